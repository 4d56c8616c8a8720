//! What becomes of deliveries, without any HTTP around them.

use super::*;
use crate::config::load_text;
use serde_json::json;

fn hook(members: &str) -> Arc<Hook> {
    let text = format!(
        "[hooks.x]\nkind = \"github\"\ntask = \"t\"\nsecrets = [\"sixteen bytes and more\"]\n{members}"
    );
    let config = load_text(&text, &crate::config::Flags::default()).unwrap();
    build(&config).unwrap()["x"].clone()
}

fn judged(hook: &Hook, payload: &Value, event: &str, id: &str) -> Result<Verdict, String> {
    let body = RawValue::from_string(payload.to_string()).unwrap();
    hook.judge(Delivery { payload, event, id }, &body)
}

fn job(hook: &Hook, payload: &Value) -> EnqueueRequest {
    match judged(hook, payload, "push", "id-1") {
        Ok(Verdict::Job(job)) => *job,
        other => panic!("{other:?}"),
    }
}

fn ignored(hook: &Hook, payload: &Value, event: &str) -> &'static str {
    match judged(hook, payload, event, "id-1") {
        Ok(Verdict::Ignored(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_mapping_the_payload_is_the_argument_to_the_byte() {
    let hook = hook("");
    let body = RawValue::from_string("{ \"a\" : 1.00000000000000000001 }".into()).unwrap();
    let payload: Value = serde_json::from_str(body.get()).unwrap();
    let Ok(Verdict::Job(job)) = hook.judge(Delivery { payload: &payload, event: "", id: "7" }, &body) else {
        panic!("it is a job")
    };
    assert_eq!(job.args.get(), "[{ \"a\" : 1.00000000000000000001 }]");
    assert_eq!((job.task.as_str(), job.options.key.as_deref()), ("t", Some("hooks/x/7")));
    assert_eq!(job.options.unique, Unique::For(std::time::Duration::from_secs(7 * 86_400)));
    assert!(job.options.notes.is_empty());
}

#[test]
fn events_and_conditions_decide_in_this_order() {
    let hook = hook("events = [\"push\", \"create\"]\nwhen = { \"/ref\" = \"main\", \"/n\" = 1 }");
    let good = json!({ "ref": "main", "n": 1, "other": true });
    job(&hook, &good);
    assert_eq!(ignored(&hook, &good, "star"), "event");
    assert_eq!(ignored(&hook, &good, ""), "event");
    for payload in [
        json!({ "ref": "other", "n": 1 }),
        json!({ "ref": "main" }),
        json!([]),
        json!({ "ref": "main", "n": "1" }),
    ] {
        assert_eq!(ignored(&hook, &payload, "create"), "when");
    }
}

#[test]
fn arguments_notes_and_options_come_from_the_configuration() {
    let hook = hook(
        "args = { ref = \"$/ref\", by = [\"$event\", \"$delivery\"] }\nnotes = { sha = \"$/after\", from = \"git\" }\n\
         queue = \"q\"\npriority = 9\nattempts = 3\ndelay = \"5s\"\nwindow = \"9d\"",
    );
    let job = job(&hook, &json!({ "ref": "main" }));
    let args: Value = serde_json::from_str(job.args.get()).unwrap();
    assert_eq!(args, json!({ "ref": "main", "by": ["push", "id-1"] }));
    let options = job.options;
    assert_eq!(Value::Object(options.notes.clone()), json!({ "sha": null, "from": "git" }));
    assert_eq!((options.queue.as_str(), options.priority, options.attempts), ("q", 9, 3));
    assert_eq!(options.delay.as_secs(), 5);
    assert_eq!(options.unique, Unique::For(std::time::Duration::from_secs(9 * 86_400)));
}

#[test]
fn an_id_that_is_no_key_is_refused() {
    let hook = hook("");
    let most = ID_BYTES_MAX - "hooks/x/".len();
    assert!(judged(&hook, &json!({}), "", &"i".repeat(most)).is_ok());
    for bad in [String::new(), "i".repeat(most + 1)] {
        assert!(judged(&hook, &json!({}), "", &bad).unwrap_err().contains("1 to 247 bytes"));
    }
}

#[test]
fn files_that_cannot_be_used_are_all_told() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("good"), "sixteen bytes and more\n").unwrap();
    std::fs::write(dir.path().join("weak"), "short\n").unwrap();
    let built = |one: &str, other: &str| {
        let of = |name: &str, file: &str| {
            let file = dir.path().join(file);
            format!("[hooks.{name}]\nkind = \"github\"\ntask = \"t\"\nsecret_files = [{file:?}]\n")
        };
        let text = of("a", one) + &of("b", other);
        build(&load_text(&text, &crate::config::Flags::default()).unwrap())
    };
    assert_eq!(built("good", "good").unwrap().len(), 2);
    let wrong = built("weak", "missing").unwrap_err();
    assert!(
        wrong[0].starts_with("hooks.a: the secret in ") && wrong[0].ends_with("16 bytes or more"),
        "{wrong:?}"
    );
    assert!(wrong[1].starts_with("hooks.b: ") && wrong[1].contains("cannot be read"), "{wrong:?}");
    assert!(!wrong.concat().contains("short"));
}
