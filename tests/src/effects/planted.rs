//! The audit itself: books that are in order pass, and each way of breaking a promise is found, by its name.

use super::audit::{Books, Event, Violation, audit, runs_in};
use serde_json::{Value, json};

fn event(kind: &str, attempt: i32, state: &str, result: Value) -> Event {
    let error = if state == "failed" { json!("exit code 3: run:7:1;") } else { Value::Null };
    let mut data = json!({"attempt": attempt, "state": state, "error": error});
    data["result"] = result;
    Event { job: 7, kind: format!("task.{kind}"), data, late: None }
}

fn own(attempt: i32) -> Value {
    json!(format!("run:7:{attempt};"))
}

/// A run that failed, one that was lost and came late, one that was given back, and one that ended well.
fn in_order() -> Books {
    let finished = event("finished", 3, "finished", own(3));
    let late = json!({"state": "finished", "result": own(2), "lease": "l"});
    Books {
        enqueued: vec![7],
        events: vec![
            event("enqueue", 0, "inactive", Value::Null),
            event("dequeue", 1, "active", Value::Null),
            event("failed", 1, "failed", Value::Null),
            event("retry", 1, "inactive", Value::Null),
            event("dequeue", 2, "active", Value::Null),
            event("lost", 2, "inactive", Value::Null),
            event("dequeue", 3, "active", Value::Null),
            event("lost", 2, "inactive", Value::Null),
            event("dequeue", 3, "active", Value::Null),
            finished.clone(),
            Event { kind: "task.late_result".into(), late: Some(late), ..finished },
        ],
        effects: vec![(7, 1), (7, 2), (7, 3)],
        brought: [(7, 1), (7, 2), (7, 3)].into(),
    }
}

fn found(plant: impl FnOnce(&mut Books)) -> Vec<Violation> {
    let mut books = in_order();
    plant(&mut books);
    let mut found = audit(&books);
    found.sort();
    found
}

#[test]
fn books_in_order_pass() {
    assert_eq!(found(|_| {}), []);
    assert_eq!(runs_in("a run:7:12; b run: run:8:1;\" run:9:"), [(7, 12), (8, 1)].into());
}

#[test]
fn a_job_that_has_not_ended_is_found() {
    assert_eq!(found(|books| books.enqueued.push(8)), [Violation::Unended(8)]);
    let unended = found(|books| books.events.truncate(9));
    assert_eq!(unended[..2], [Violation::Unended(7), Violation::Open((7, 3))]);
}

#[test]
fn a_second_outcome_of_a_run_is_found() {
    let twice = found(|books| books.events.insert(10, event("finished", 3, "finished", own(3))));
    assert_eq!(twice, [Violation::Doubled((7, 3))]);
    let after_its_loss = found(|books| books.events.insert(6, event("finished", 2, "finished", own(2))));
    assert_eq!(after_its_loss, [Violation::Doubled((7, 2))]);
}

#[test]
fn a_run_without_an_outcome_is_found() {
    let mut open = found(|books| drop(books.events.remove(5)));
    open.retain(|violation| matches!(violation, Violation::Open(_)));
    assert_eq!(open, [Violation::Open((7, 2))]);
}

#[test]
fn an_outcome_of_another_run_is_found() {
    let mut foreign = found(|books| books.events[9] = event("finished", 3, "finished", own(2)));
    foreign.retain(|violation| matches!(violation, Violation::Foreign(_)));
    assert_eq!(foreign, [Violation::Foreign((7, 3))]);
}

#[test]
fn an_outcome_that_is_not_on_record_is_found() {
    assert_eq!(
        found(|books| drop(books.events.pop())),
        [Violation::Silent((7, 2))],
        "there is no late result"
    );
    let lost = found(|books| books.events[2].data["error"] = json!("nobody knows"));
    assert_eq!(lost, [Violation::Lost((7, 1))]);
}

#[test]
fn a_late_result_that_changes_the_job_is_found() {
    assert_eq!(found(|books| books.events[10].data["result"] = own(2)), [Violation::Changed((7, 3))]);
}

#[test]
fn what_was_done_and_not_given_out_is_found() {
    assert_eq!(found(|books| books.effects.push((7, 4))), [Violation::Ghost((7, 4))]);
    assert_eq!(found(|books| books.effects.push((7, 2))), [Violation::Again((7, 2))]);
    assert_eq!(found(|books| books.effects.truncate(2)), [Violation::Idle((7, 3))]);
}
