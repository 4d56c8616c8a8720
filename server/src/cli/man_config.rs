//! The manual page `minium.toml(5)`, made from what `docs/configuration.md` is made from.
//!
//! The words are Markdown, of which they use little: code is set in bold, and of a link its text is left, which is the name of
//! a document of the package.

use super::man::{DATE, SOURCE};
use crate::config::reference::{ABOUT, TABLES, Table};
use clap_mangen::roff::{Inline, Roff, bold, roman};

/// The name of the page, without its section.
pub(super) const NAME: &str = "minium.toml";

/// The page.
pub(super) fn page() -> String {
    let mut roff = Roff::new();
    roff.control("TH", [NAME, "5", DATE, SOURCE, "Minium"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman(format!("{NAME} - settings of a node"))]);
    roff.control("SH", ["DESCRIPTION"]);
    for (at, paragraph) in ABOUT.split("\n\n").enumerate() {
        if at > 0 {
            roff.control("PP", []);
        }
        roff.text(inlines(paragraph));
    }
    roff.control("SH", ["TABLES"]);
    roff.text([roman(
        "What stands in brackets behind a key is its default. Names in capitals are those that you choose.",
    )]);
    for table in TABLES {
        describe(&mut roff, table);
    }
    roff.control("SH", ["FILES"]);
    for (file, what) in [
        ("./minium.toml", "Read where no other file is said."),
        ("/etc/minium/minium.toml", "Read where that is not there either; the service reads no other."),
        ("/usr/share/doc/minium/docs", "The documents that are named here."),
    ] {
        roff.control("TP", []);
        roff.text([bold(file)]);
        roff.text([roman(what)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    let pages = ["minium", "minium-serve", "minium-config-show", "minium-doctor"];
    let mut named: Vec<Inline> = Vec::new();
    for page in pages {
        named.extend([roman(if named.is_empty() { "" } else { ", " }), bold(page), roman("(1)")]);
    }
    roff.text(named);
    roff.render()
}

/// A table of the file, and its keys with their defaults.
fn describe(roff: &mut Roff, table: &Table) {
    // the name has quotes: as a line of its own it needs none around it
    roff.control("SS", []);
    roff.text([roman(format!("[{}]", table.name))]);
    roff.text(inlines(table.about));
    for key in table.keys {
        roff.control("TP", []);
        let default = if key.default.is_empty() { String::new() } else { format!(" [{}]", key.default) };
        roff.text([bold(key.name), roman(default)]);
        roff.text(inlines(&format!("{} {}", key.meaning(), key.bounds())));
    }
}

/// A paragraph of Markdown as one line of the page.
fn inlines(markdown: &str) -> Vec<Inline> {
    let joined = markdown.replace('\n', " ");
    let mut found = Vec::new();
    for (at, piece) in joined.split('`').enumerate() {
        let is_code = at % 2 == 1;
        found.push(if is_code { bold(piece) } else { roman(without_links(piece)) });
    }
    found
}

/// The text with `[word](target)` as `word`.
fn without_links(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, (word, behind))) =
        rest.split_once('[').and_then(|(before, link)| Some((before, link.split_once("](")?)))
    {
        let (_, after) = behind.split_once(')').unwrap_or(("", behind));
        out.push_str(before);
        out.push_str(word);
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_stands_in_the_page() {
        let page = page();
        for table in TABLES {
            let name = table.name.replace('-', "\\-");
            assert!(page.contains(&format!("\n.SS\n[{name}]\n")), "{name}");
            for key in table.keys {
                assert!(page.contains(&format!("\n.TP\n\\fB{}\\fR", key.name)), "{name}: {}", key.name);
            }
        }
        assert!(!page.contains("](") && !page.contains('`'), "Markdown is left");
    }

    #[test]
    fn of_a_link_its_text_is_left() {
        assert_eq!(without_links("see [a.md](a.md#b) and [b](b); `[x]` too"), "see a.md and b; `[x]` too");
        assert_eq!(without_links("[x] (y)"), "[x] (y)");
    }
}
