//! The configuration as it holds, for people: TOML that could be a configuration file, secrets masked.

use super::Config;
use super::section::{Section, show_named as named};
use minium_queue::DatabaseUrl;

/// The whole configuration, defaults included.
pub(crate) fn show(config: &Config) -> String {
    let mut root = toml::Table::new();
    // by name, so that no section can be forgotten
    let Config {
        server,
        database,
        schemas,
        channels,
        schedules,
        hooks,
        notifier,
        recorders,
        auth,
        queue,
        retention,
        limits,
        worker,
        tasks,
        sinks,
        deliveries,
    } = config;
    let url = mask(&database.url);
    let mut database = database.show();
    database.insert("url".into(), url.into());
    let sections = [
        ("server", server.show()),
        ("database", database),
        ("schemas", schemas.show()),
        ("channels", named(channels)),
        ("schedules", named(schedules)),
        ("hooks", named(hooks)),
        ("notifier", notifier.show()),
        ("recorders", recorders.show()),
        ("auth", auth.show()),
        ("queue", queue.show()),
        ("retention", named(retention)),
        ("limits", named(limits)),
        ("worker", worker.show()),
        ("tasks", named(tasks)),
        ("sinks", named(sinks)),
        ("deliveries", deliveries.show()),
    ];
    for (name, table) in sections {
        if !table.is_empty() {
            root.insert(name.into(), table.into());
        }
    }
    toml::to_string_pretty(&root).expect("tables with string keys print as TOML")
}

/// A URL of a database shows itself without a password; what is none was refused before.
fn mask(url: &str) -> String {
    url.parse::<DatabaseUrl>().map_or_else(|_| String::new(), |url| url.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::load::from_text;
    use super::*;

    #[test]
    fn passwords_never_show() {
        for url in ["postgres://me:secret@host/db", "postgres://host/db?user=me&password=secret"] {
            let shown = show(&from_text(&format!("[database]\nurl = {url:?}")).unwrap());
            assert!(!shown.contains("secret") && shown.contains("host/db"), "{shown}");
        }
    }

    #[test]
    fn secrets_of_hooks_never_show() {
        let text = "[hooks.x]\nkind = \"github\"\ntask = \"t\"\nsecrets = [\"the first of the two\", \"the second of them\"]";
        let config = from_text(text).unwrap();
        let shown = show(&config);
        assert!(shown.contains("secrets = [\n    \"***\",\n    \"***\",\n]"), "{shown}");
        assert!(!format!("{config:?}").contains("of the two"));
    }

    #[test]
    fn what_is_shown_is_a_configuration_file_that_says_the_same() {
        let text = r#"
            [server]
            listen = "127.0.0.1:0"
            [channels.task]
            retention = { age = "36h" }
            [schedules."a b"]
            task = "x/y"
            every = "90s"
            args = [{ serial = "7", n = 1.5 }]
            [retention.slow]
            finished = "9d"
            [limits.import]
            running = 3
            [tasks."burn-in"]
            command = ["./burn-in.sh", "--fast"]
        "#;
        let shown = show(&from_text(text).unwrap());
        let again = show(&from_text(&shown).expect(&shown));
        assert_eq!(shown, again);
        assert!(shown.contains("every = \"90s\"") && shown.contains("message_bytes = \"256KiB\""), "{shown}");
        assert!(shown.contains("finished = \"9d\"") && shown.contains("running = 3"), "{shown}");
    }
}
