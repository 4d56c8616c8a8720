//! The environment: `MINIUM_SERVER__LISTEN` means `server.listen`. Two underscores nest, so a name without them is
//! never a configuration key (`MINIUM_URL` belongs to the clients).

use super::section::Origins;

/// Puts what the environment says over what the file says, and notes where it came from.
pub(crate) fn overlay(
    table: &mut toml::Table,
    origins: &mut Origins,
    vars: impl IntoIterator<Item = (String, String)>,
) {
    let mut known: Vec<(String, Vec<String>, String)> = Vec::new();
    for (name, text) in vars {
        let Some(rest) = name.strip_prefix("MINIUM_") else { continue };
        if rest.contains("__") {
            let path = rest.to_ascii_lowercase().split("__").map(str::to_owned).collect();
            known.push((name, path, text));
        }
    }
    known.sort();
    for (name, path, text) in known {
        put(table, origins, &path, &text, &name);
    }
}

/// Sets one value by path; `origin` says who said so.
pub(crate) fn put(table: &mut toml::Table, origins: &mut Origins, path: &[String], text: &str, origin: &str) {
    let Some((last, sections)) = path.split_last() else { return };
    let mut at = table;
    for section in sections {
        let inner = at.entry(section.clone()).or_insert_with(|| toml::Table::new().into());
        if !inner.is_table() {
            *inner = toml::Table::new().into();
        }
        at = inner.as_table_mut().expect("it was made a table above");
    }
    at.insert(last.clone(), text.into());
    origins.insert(path.join("."), origin.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn two_underscores_nest_and_win_over_the_file() {
        let mut table: toml::Table =
            "[server]\nlisten = \"127.0.0.1:1\"\npublic_url = \"http://x\"".parse().unwrap();
        let mut origins = Origins::new();
        let said =
            [("MINIUM_SERVER__LISTEN", "127.0.0.1:2"), ("MINIUM_SERVER__LIMITS__MESSAGE_BYTES", "1KiB")];
        overlay(&mut table, &mut origins, vars(&said));
        assert_eq!(table["server"]["listen"].as_str(), Some("127.0.0.1:2"));
        assert_eq!(table["server"]["public_url"].as_str(), Some("http://x"));
        assert_eq!(table["server"]["limits"]["message_bytes"].as_str(), Some("1KiB"));
        assert_eq!(origins["server.listen"], "MINIUM_SERVER__LISTEN");
    }

    #[test]
    fn names_without_two_underscores_are_not_ours() {
        let (mut table, mut origins) = (toml::Table::new(), Origins::new());
        overlay(&mut table, &mut origins, vars(&[("MINIUM_URL", "x"), ("MINIUM_LOG", "x"), ("A__B", "x")]));
        assert!(table.is_empty() && origins.is_empty());
    }
}
