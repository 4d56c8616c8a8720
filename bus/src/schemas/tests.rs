//! The set of schemas: places, replacement, and the built-in files.

use super::*;
use serde_json::{Value, json};

const STRING: &str = r#"{"type":"string"}"#;
const NUMBER: &str = r#"{"type":"number"}"#;

fn files(list: &[(&str, &str)]) -> Vec<SchemaFile> {
    list.iter().map(|(path, text)| SchemaFile::new(*path, *text)).collect()
}

fn governs(schemas: &Schemas, topic: &str) -> Option<String> {
    schemas.governing(Pattern::Sub, topic).map(|s| s.path().to_owned())
}

#[test]
fn the_nearest_ancestor_governs_in_each_name_space_by_itself() {
    let schemas = Schemas::empty();
    let report = schemas.replace(files(&[
        ("sub/a.json", STRING),
        ("sub/a/b.json", NUMBER),
        ("push/a/b/c.json", STRING),
    ]));
    assert_eq!((report.added, report.is_clean()), (3, true));
    assert_eq!(governs(&schemas, "a").as_deref(), Some("sub/a.json"));
    assert_eq!(governs(&schemas, "a/x/y").as_deref(), Some("sub/a.json"));
    assert_eq!(governs(&schemas, "a/b").as_deref(), Some("sub/a/b.json"));
    assert_eq!(governs(&schemas, "a/b/c").as_deref(), Some("sub/a/b.json"));
    assert_eq!(governs(&schemas, "ab"), None, "whole segments only");
    assert_eq!(schemas.governing(Pattern::Push, "a/b").map(|s| s.path().to_owned()), None);
    assert!(schemas.governing(Pattern::Push, "a/b/c/d").is_some());
    assert!(schemas.governing(Pattern::Bus, "a").is_none());
}

#[test]
fn arguments_are_found_by_the_name_of_the_task() {
    let schemas = Schemas::empty();
    schemas.replace(files(&[("tasks/livesys.json", STRING), ("tasks/livesys/inventory.json", NUMBER)]));
    let path = |task: &str| schemas.for_task(task).map(|s| s.path().to_owned());
    assert_eq!(path("livesys/inventory").as_deref(), Some("tasks/livesys/inventory.json"));
    assert_eq!(path("livesys/7").as_deref(), Some("tasks/livesys.json"));
    assert_eq!(path("import"), None);
    assert_eq!(governs(&schemas, "livesys"), None, "a task is no topic");
}

#[test]
fn a_replacement_counts_what_it_did_and_drops_what_vanished() {
    let schemas = Schemas::empty();
    schemas.replace(files(&[("sub/a.json", STRING), ("sub/b.json", STRING), ("sub/c.json", STRING)]));
    let report =
        schemas.replace(files(&[("sub/a.json", STRING), ("sub/b.json", NUMBER), ("sub/d.json", STRING)]));
    assert_eq!((report.added, report.changed, report.removed, report.in_force), (1, 1, 1, 3));
    assert_eq!(governs(&schemas, "c"), None);
    assert!(schemas.governing(Pattern::Sub, "b").unwrap().check(&json!(1)).is_ok());
}

#[test]
fn a_broken_file_keeps_the_schema_that_stood_there() {
    let schemas = Schemas::empty();
    schemas.replace(files(&[("sub/a.json", STRING), ("sub/b.json", STRING), ("sub/c.json", STRING)]));
    let mut next =
        files(&[("sub/a.json", "{"), ("sub/b.json", r#"{"type":"strng"}"#), ("sub/new.json", "nonsense")]);
    next.push(SchemaFile::unreadable("sub/c.json", "permission denied"));
    let report = schemas.replace(next);
    let refused: Vec<_> = report.refused.iter().map(|r| (r.path.as_str(), r.kept)).collect();
    assert_eq!(
        refused,
        [("sub/a.json", true), ("sub/b.json", true), ("sub/c.json", true), ("sub/new.json", false)]
    );
    assert!(report.refused[2].reason.contains("permission denied"));
    assert_eq!((report.added, report.changed, report.removed), (0, 0, 0));
    for topic in ["a", "b", "c"] {
        assert!(schemas.governing(Pattern::Sub, topic).unwrap().check(&json!(1)).is_err(), "{topic}");
    }
    assert_eq!(schemas.text("sub/a.json").as_deref(), Some(STRING), "what is served is what is in force");
}

#[test]
fn the_generation_moves_only_when_something_changed() {
    let schemas = Schemas::empty();
    let first = schemas.generation();
    schemas.replace(files(&[("sub/a.json", STRING)]));
    let second = schemas.generation();
    assert_ne!(first, second);
    schemas.replace(files(&[("sub/a.json", STRING)]));
    assert_eq!(schemas.generation(), second, "the same files again");
    schemas.replace(files(&[("sub/a.json", "broken")]));
    assert_eq!(schemas.generation(), second, "a file that was refused");
    schemas.replace(Vec::new());
    assert_ne!(schemas.generation(), second);
}

#[test]
fn files_beyond_the_bound_are_refused() {
    let schemas = Schemas::with_base(&[], SchemaOptions { files_max: 1, ..SchemaOptions::default() });
    let report = schemas.replace(files(&[("sub/b.json", STRING), ("sub/a.json", STRING)]));
    assert_eq!(report.in_force, 1);
    assert_eq!(report.refused[0].path, "sub/b.json");
}

#[test]
fn what_minium_itself_says_is_described_by_no_file_but_its_own() {
    let schemas = Schemas::built_in();
    let report =
        schemas.replace(files(&[("job.json", "{}"), ("sub/task.json", "{}"), ("sub/livesys.json", STRING)]));
    let refused: Vec<_> = report.refused.iter().map(|r| r.path.as_str()).collect();
    assert_eq!(refused, ["job.json", "sub/task.json"]);
    assert_eq!(report.changed, 1);
    assert!(schemas.governing(Pattern::Sub, "task/import/1").unwrap().check(&json!({})).is_err());
    assert!(schemas.governing(Pattern::Sub, "livesys/7").unwrap().check(&json!("free")).is_ok());
    schemas.replace(Vec::new());
    assert!(
        schemas.governing(Pattern::Sub, "livesys/7").unwrap().check(&json!("free")).is_err(),
        "uncovered"
    );
}

/// The repository's own directory is the built-in set: serving it must not complain.
#[test]
fn the_built_in_files_may_be_handed_over_again() {
    let schemas = Schemas::built_in();
    let report = schemas.replace(BUILT_IN_SCHEMAS.iter().map(BuiltInSchema::file).collect());
    assert_eq!(report, Report { in_force: BUILT_IN_SCHEMAS.len(), ..Report::default() });
}

fn built_in(path: &str) -> Value {
    let found = BUILT_IN_SCHEMAS.iter().find(|b| b.path == path).unwrap();
    serde_json::from_str(found.text).unwrap()
}

#[test]
fn the_snapshot_inside_the_event_is_the_snapshot() {
    let mut job = built_in("job.json");
    job.as_object_mut().unwrap().remove("$schema");
    assert_eq!(built_in("sub/task.json")["$defs"]["job"], job);
}

#[test]
fn the_schema_of_events_names_every_type_that_there_is() {
    let names: Vec<_> = minium_protocol::EventType::ALL.iter().map(|t| t.as_str()).collect();
    assert_eq!(built_in("sub/task.json")["properties"]["type"]["enum"], json!(names));
    let states: Vec<_> = minium_protocol::State::ALL.iter().map(|s| s.as_str()).collect();
    assert_eq!(built_in("job.json")["properties"]["state"]["enum"], json!(states));
}

fn snapshot() -> Value {
    json!({"id":42,"task":"import","queue":"default","state":"finished","priority":0,"args":["x"],"notes":{},
      "attempt":1,"attempts":3,"retries":0,"parents":[],"lax":false,"key":null,"schedule":null,
      "worker":{"id":7,"host":"rack3","pid":411},"result":{"rows":10},"error":null,"progress":null,"origin":null,
      "created":"2026-11-22T02:00:00.123456Z","delayed":"2026-11-22T02:00:00.123456Z","expires":null,
      "started":"2026-11-22T02:00:00.123456Z","finished":"2026-11-22T02:00:00.123456Z","retried":null})
}

fn event(kind: &str, data: &Value) -> Value {
    json!({"specversion":"1.0","id":"01981c3e-0000-4000-8000-000000000000","source":"/minium/default","type":kind,
      "subject":"42","time":"2026-11-22T02:00:00.123456Z","datacontenttype":"application/json",
      "dataschema":"http://127.0.0.1:3000/schemas/job.json","epoch":"1","sequence":"00000000000000012345",
      "data":data})
}

#[test]
fn the_schema_of_jobs_describes_every_member_of_a_job() {
    let schema = Schemas::built_in().get("job.json").unwrap();
    assert_eq!(schema.check(&snapshot()), Ok(()));
    // what Rust reads as a job and what the schema describes are the same members
    let job: minium_protocol::Job = serde_json::from_str(&snapshot().to_string()).unwrap();
    let written = serde_json::to_value(&job).unwrap();
    let mut described = built_in("job.json")["properties"].as_object().unwrap().clone();
    // but for the lines that some events bring beside the job
    let line = described.remove("log").unwrap()["items"].clone();
    let members: Vec<_> = written.as_object().unwrap().keys().collect();
    assert_eq!(members, described.keys().collect::<Vec<_>>());
    for name in described.keys() {
        let mut lacking = snapshot();
        lacking.as_object_mut().unwrap().remove(name);
        assert!(schema.check(&lacking).is_err(), "{name} is always there");
    }
    let kept = minium_protocol::KeptLine {
        n: 1,
        at: jiff::Timestamp::UNIX_EPOCH,
        attempt: 1,
        level: minium_protocol::LogLevel::Step,
        text: "x".into(),
    };
    let kept = serde_json::to_value(&kept).unwrap();
    assert!(kept.as_object().unwrap().keys().eq(line["properties"].as_object().unwrap().keys()));
    let levels: Vec<_> = minium_protocol::LogLevel::ALL.iter().map(|l| l.as_str()).collect();
    assert_eq!(line["properties"]["level"]["enum"], json!(levels));
    let mut said = snapshot();
    said["log"] = json!([kept]);
    assert_eq!(schema.check(&said), Ok(()));
    let mut more = snapshot();
    more["gained"] = json!(1);
    assert_eq!(schema.check(&more), Ok(()), "snapshots may gain members");
}

#[test]
fn the_schema_of_events_knows_which_state_follows() {
    let schema = Schemas::built_in().get("sub/task.json").unwrap();
    assert_eq!(schema.check(&event("task.finished", &snapshot())), Ok(()));
    assert_eq!(schema.check(&event("task.progress", &snapshot())), Ok(()));
    let faults = schema.check(&event("task.dequeue", &snapshot())).unwrap_err();
    assert_eq!(faults[0].pointer, "/data/state");
    assert!(schema.check(&event("task.late_result", &snapshot())).is_err(), "it says what was late");
    let mut odd = event("task.finished", &snapshot());
    odd["data"]["worker"]["pid"] = json!("411");
    assert_eq!(schema.check(&odd).unwrap_err()[0].pointer, "/data/worker/pid");
    odd = event("task.finished", &snapshot());
    odd["sequence"] = json!("12345");
    assert_eq!(schema.check(&odd).unwrap_err()[0].pointer, "/sequence");
}

#[test]
fn livesys_messages_are_judged_by_what_they_say_they_are() {
    let schemas = Schemas::built_in();
    let check = |topic: &str, message: Value| schemas.governing(Pattern::Sub, topic).unwrap().check(&message);
    assert_eq!(check("livesys/7", json!({"type":"command","command":"reboot","id":"c1"})), Ok(()));
    assert_eq!(check("livesys/7", json!({"type":"status","state":"ready","host":"rack3"})), Ok(()));
    assert_eq!(check("livesys/7/power", json!({"volts":12})), Ok(()));
    for refused in [json!("on"), json!([]), json!({}), json!({"type":"command"}), json!({"type":"inventory"})]
    {
        assert!(check("livesys/7", refused.clone()).is_err(), "{refused}");
    }
    let faults = check("livesys/7", json!({"type":"status","state":"asleep"})).unwrap_err();
    assert_eq!(faults[0].pointer, "/state");
    assert!(check("livesys/all", json!({"type":"status","state":"ready"})).is_err(), "commands only");
    assert_eq!(check("livesys/all", json!({"type":"command","command":"reboot"})), Ok(()));
}

#[test]
fn inventory_takes_no_arguments_or_one_object() {
    let schema = Schemas::built_in().for_task("livesys/inventory").unwrap();
    assert_eq!(schema.check(&json!([])), Ok(()));
    assert_eq!(schema.check(&json!([{"serial":"A1","sections":["cpu","dmi"]}])), Ok(()));
    assert_eq!(schema.check(&json!([{"serial":7}])).unwrap_err()[0].pointer, "/0/serial");
    assert!(schema.check(&json!([{"serail":"A1"}])).is_err());
    assert!(schema.check(&json!([{}, {}])).is_err());
    assert!(schema.check(&json!({})).is_err());
}
