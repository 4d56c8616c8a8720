//! What may be wrong with the hooks of the configuration. What stands in files is judged when they are read.

use super::check::Findings;
use super::section::path_of;
use super::{Config, Hook};
use crate::hooks::{KINDS, Sender, Template, check_pointer};
use minium_protocol::EnqueueRequest;
use serde_json::Value;
use serde_json::value::RawValue;
use std::time::Duration;

/// Each is a label of a metric.
const HOOKS_MAX: usize = 256;
/// A body is gone through once for each.
const SECRETS_MAX: usize = 8;
/// GitHub lets deliveries be sent again by hand for so long; others try for days.
const WINDOW_MIN: Duration = Duration::from_secs(3 * 86_400);

pub(super) fn check(config: &Config, findings: &mut Findings<'_>) {
    if config.hooks.len() > HOOKS_MAX {
        findings.add("hooks".into(), format!("has {} hooks, more than {HOOKS_MAX}", config.hooks.len()));
    }
    for (name, hook) in &config.hooks {
        check_one(name, hook, findings);
    }
}

fn check_one(name: &str, hook: &Hook, findings: &mut Findings<'_>) {
    let path = |key: &str| path_of(&["hooks", name, key]);
    let good = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if name.len() > 64 || !name.bytes().all(good) || name.bytes().all(|b| b == b'.') {
        let what =
            "the name of a hook must be 1 to 64 of the characters A-Z a-z 0-9 _ - ., and not dots alone";
        findings.add(path_of(&["hooks", name]), what);
    }
    check_secrets(name, hook, findings);
    match &hook.task {
        None => findings.add(path("task"), "is missing; it must be the name of a task"),
        Some(task) if task == "minium" || task.starts_with("minium/") => {
            findings.add(path("task"), "tasks below minium/ are the node's own");
        }
        Some(task) => {
            let nothing = RawValue::from_string("[]".into()).expect("an empty array is JSON");
            let options = hook.options();
            let options = minium_protocol::JobOptions { key: Some("k".into()), ..options };
            let request = EnqueueRequest { options, ..EnqueueRequest::new(task.clone(), nothing) };
            if let Err(why) = request.check() {
                findings.add(path_of(&["hooks", name]), why);
            }
        }
    }
    if hook.window < WINDOW_MIN {
        findings.add(path("window"), "must be 3d or more");
    }
    match hook.when.as_ref().map(|when| &when.0) {
        Some(Value::Object(when)) => {
            if let Some(Err(why)) = when.keys().map(|place| check_pointer(place)).find(Result::is_err) {
                findings.add(path("when"), why);
            }
        }
        Some(_) => findings.add(path("when"), "must be a table of JSON pointers and values"),
        None => {}
    }
    for (key, json) in [("args", &hook.args), ("notes", &hook.notes)] {
        if let Some(Err(why)) = json.as_ref().map(|json| Template::read(&json.0)) {
            findings.add(path(key), why);
        }
    }
    if hook.notes.as_ref().is_some_and(|notes| !notes.0.is_object()) {
        findings.add(path("notes"), "must be a table");
    }
}

fn check_secrets(name: &str, hook: &Hook, findings: &mut Findings<'_>) {
    let path = |key: &str| path_of(&["hooks", name, key]);
    match hook.secrets.iter().count() + hook.secret_files.len() {
        0 => findings.add(path("secrets"), "is missing; or say secret_files"),
        1..=SECRETS_MAX => {}
        count => findings.add(path("secrets"), format!("are {count}, more than {SECRETS_MAX}")),
    }
    let Some(mut sender) = hook.kind.as_deref().and_then(Sender::named) else {
        return findings.add(path("kind"), format!("must be {KINDS}"));
    };
    for (i, secret) in hook.secrets.iter().enumerate() {
        if let Err(what) = sender.add(secret.as_bytes()) {
            // which of them, and nothing of it
            findings.add(path("secrets"), format!("number {} {what}", i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::from_text;

    fn wrong(members: &str) -> String {
        let whole =
            |good: &str| if members.contains(good.split(' ').next().unwrap()) { "" } else { good }.to_owned();
        let usual = ["kind = \"github\"\n", "secrets = [\"sixteen bytes and more\"]\n", "task = \"t\"\n"];
        let text = format!("[hooks.x]\n{}{members}", usual.map(whole).concat());
        match from_text(&text) {
            Ok(_) => String::new(),
            Err(mistakes) => mistakes.iter().map(|m| format!("{m}\n")).collect(),
        }
    }

    #[test]
    fn each_key_is_checked() {
        for (members, told) in [
            ("kind = \"gitlab\"", "hooks.x.kind: must be \"github\" or \"standard\""),
            ("secrets = []", "hooks.x.secrets: is missing; or say secret_files"),
            (
                "secrets = [\"sixteen bytes and more\", \"short\"]",
                "hooks.x.secrets: number 2 must have 16 bytes",
            ),
            ("kind = \"standard\"", "hooks.x.secrets: number 1 must be whsec_"),
            (
                "secret_files = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\"]",
                "hooks.x.secrets: are 9",
            ),
            ("task = \"a b\"", "hooks.x: task \"a b\""),
            ("task = \"minium/deliver\"", "hooks.x.task: tasks below minium/"),
            ("priority = 5000", "hooks.x: priority is 5000"),
            ("queue = \"a b\"", "hooks.x: queue \"a b\""),
            ("attempts = 0", "hooks.x: attempts is 0"),
            ("window = \"1d\"", "hooks.x.window: must be 3d or more"),
            ("when = \"x\"", "hooks.x.when: must be a table"),
            ("when = { ref = \"x\" }", "hooks.x.when: \"ref\" must be a JSON pointer"),
            ("args = [\"$ref\"]", "hooks.x.args: \"$ref\" must be $"),
            ("notes = [1]", "hooks.x.notes: must be a table"),
            ("notes = { a = \"$/~\" }", "hooks.x.notes: \"/~\" must be a JSON pointer"),
        ] {
            assert!(wrong(members).starts_with(told), "{members}: {}", wrong(members));
        }
        assert_eq!(wrong("window = \"3d\"\nwhen = { \"/ref\" = \"x\", \"/a~1b\" = 1 }\nargs = \"$\""), "");
        let names = from_text("[hooks.\"a/b\"]\nkind = \"github\"").unwrap_err();
        assert_eq!(names.len(), 3, "all at once: {names:?}");
    }

    #[test]
    fn no_message_has_a_secret_in_it() {
        for members in [
            "secrets = \"short one\"",
            "secrets = [\"short one\", 7]",
            "kind = \"standard\"\nsecrets = [\"short one\"]",
        ] {
            let told = wrong(members);
            assert!(!told.is_empty() && !told.contains("short one"), "{told}");
        }
    }
}
