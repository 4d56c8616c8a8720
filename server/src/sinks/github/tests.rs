//! What is told of which job, and what the API's answers mean.

use super::*;

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

fn place() -> Place {
    Place { repository: "/args/0/repository".into(), sha: "/notes/sha".into() }
}

fn snapshot(repository: &str, sha: &str) -> Value {
    json!({ "args": [{ "repository": repository }], "notes": { "sha": sha } })
}

#[test]
fn a_commit_is_taken_in_good_form_only() {
    let commit = place().commit(&snapshot("o.w-n/re_po", SHA)).unwrap();
    assert_eq!(
        (commit.owner.as_str(), commit.repository.as_str(), commit.sha.as_str()),
        ("o.w-n", "re_po", SHA)
    );
    for (repository, sha) in [
        ("repo", SHA),
        ("a/b/c", SHA),
        ("../b", SHA),
        ("a/..", SHA),
        ("a/b?x", SHA),
        ("a/", SHA),
        ("a b/c", SHA),
        ("a/b", "main"),
        ("a/b", &SHA[1..]),
        ("a/b", "z123456789abcdef0123456789abcdef01234567"),
    ] {
        assert_eq!(place().commit(&snapshot(repository, sha)), None, "{repository} {sha}");
    }
    assert_eq!(place().commit(&json!({ "args": [] })), None);
}

#[test]
fn the_first_each_end_and_each_new_beginning_are_told() {
    use EventType as E;
    for told in [E::Enqueue, E::Retry, E::Finished, E::Failed, E::Cancelled] {
        assert!(is_told(told, State::Active), "{told:?}");
    }
    for passed in [E::Dequeue, E::Progress, E::Changed, E::LateResult] {
        assert!(!is_told(passed, State::Active), "{passed:?}");
    }
    assert!(is_told(E::Removed, State::Inactive) && !is_told(E::Removed, State::Finished));
    assert!(is_told(E::Lost, State::Failed) && !is_told(E::Lost, State::Inactive));
}

fn job(state: State, error: Option<&str>) -> Job {
    let mut job: Job = serde_json::from_value(json!({
        "id": 7, "task": "ci", "queue": "default", "state": "inactive", "priority": 0, "args": [], "notes": {},
        "attempt": 1, "attempts": 1, "retries": 0, "parents": [], "lax": false, "key": null, "schedule": null,
        "worker": null, "result": null, "error": null, "progress": null, "origin": null,
        "created": "2026-01-01T00:00:00Z", "delayed": "2026-01-01T00:00:00Z", "expires": null, "started": null,
        "finished": null, "retried": null,
    }))
    .unwrap();
    job.state = state;
    job.error = error.map(str::to_owned);
    job
}

fn told(kind: &str) -> Told {
    let text = json!({ "id": "1", "source": "s", "type": kind, "time": "2026-01-01T00:00:00Z", "data": {} });
    Told::read(text.to_string().as_bytes()).unwrap()
}

#[test]
fn each_state_has_its_status_and_words() {
    let said = |state, error| of_job(&job(state, error));
    assert_eq!(said(State::Inactive, None).status, Status::Pending);
    assert_eq!(said(State::Active, None), Say { status: Status::Pending, description: "running".into() });
    assert_eq!(said(State::Finished, None).status.word(), "success");
    assert_eq!(said(State::Cancelled, None).status.word(), "error");
    let failed = said(State::Failed, Some(&format!("no\ndisk {}", "é".repeat(500))));
    assert_eq!(failed.status.word(), "failure");
    assert!(failed.description.starts_with("no disk é"));
    assert_eq!(failed.description.chars().count(), DESCRIPTION_CHARS_MAX);
}

#[test]
fn of_a_job_that_is_gone_only_its_end_is_told() {
    let of = |kind: &str, state| of_event(&told(kind), &job(state, None)).map(|say| say.status);
    assert_eq!(of("task.enqueue", State::Inactive), None);
    assert_eq!(of("task.finished", State::Finished), Some(Status::Success));
    assert_eq!(of("task.removed", State::Inactive), Some(Status::Error));
    assert_eq!(of("task.expired", State::Inactive), Some(Status::Error));
}

#[test]
fn each_answer_has_its_meaning() {
    let now = Timestamp::from_second(1_000).unwrap();
    let judged = |status: u16, headers: &[(&'static str, &str)]| {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect(),
            body: "so".into(),
        };
        judge(&answer, Status::Success, now)
    };
    assert!(matches!(judged(201, &[]), Verdict::Delivered(result) if result["state"] == "success"));
    assert!(
        matches!(judged(404, &[]), Verdict::Refused(_)) && matches!(judged(422, &[]), Verdict::Refused(_))
    );
    assert!(matches!(judged(401, &[]), Verdict::Failed(_)) && matches!(judged(403, &[]), Verdict::Failed(_)));
    assert!(matches!(judged(301, &[]), Verdict::Failed(_)));
    assert!(matches!(judged(429, &[]), Verdict::Later(pause, _) if pause == PAUSE));
    assert!(matches!(judged(403, &[("retry-after", "9")]), Verdict::Later(pause, _) if pause.as_secs() == 9));
    let spent = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1100")];
    assert!(matches!(judged(403, &spent), Verdict::Later(pause, _) if pause.as_secs() == 100));
    let left = [("x-ratelimit-remaining", "5"), ("x-ratelimit-reset", "1100")];
    assert!(matches!(judged(403, &left), Verdict::Failed(_)));
}
