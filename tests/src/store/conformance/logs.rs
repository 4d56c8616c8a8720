//! What jobs say while they run: kept in order, within a bound, under the lease, and told by events.

use crate::store::fixture::*;
use jiff::Timestamp;
use minium_protocol::{
    KeptLine, LOG_BYTES_MAX, LOG_LINES_MAX, LOG_TEXT_BYTES_MAX, LeaseToken, LogLevel, LogLine, Progress,
};
use minium_queue::{Annotation, LogPage, QueueError, RetryOptions};

fn line(level: LogLevel, text: &str) -> LogLine {
    LogLine { at: None, level, text: text.into() }
}

fn info(text: &str) -> LogLine {
    line(LogLevel::Info, text)
}

fn lines(log: Vec<LogLine>) -> Annotation {
    Annotation { log, ..Annotation::default() }
}

async fn say(f: &Fixture, leased: &minium_queue::Leased, log: Vec<LogLine>) {
    f.store().annotate(leased.id, Some(leased.lease), &lines(log)).await.unwrap();
}

async fn log(f: &Fixture, id: i64) -> LogPage {
    f.store().log(id, 0, 1_000).await.unwrap()
}

async fn texts(f: &Fixture, id: i64) -> Vec<String> {
    log(f, id).await.lines.into_iter().map(|line| line.text).collect()
}

/// The lines that an event brings.
fn told(entry: &Entry) -> Option<Vec<KeptLine>> {
    let data: serde_json::Value = serde_json::from_str(&entry.data).unwrap();
    data.get("log").map(|log| serde_json::from_value(log.clone()).unwrap())
}

pub(crate) async fn lines_stand_in_their_order_with_their_run(f: &Fixture) {
    let leased = f.running(with(|o| o.attempts = 2)).await;
    let at: Timestamp = "2026-11-22T02:00:00.123456Z".parse().unwrap();
    let dated = LogLine { at: Some(at), ..line(LogLevel::Step, "source downloaded") };
    say(f, &leased, vec![dated, line(LogLevel::Debug, "b")]).await;
    say(f, &leased, vec![line(LogLevel::Warn, "c")]).await;
    f.accepted(fail(&leased, "no")).await;
    f.pass(seconds(100)).await;
    f.upkeep().await;
    let again = f.claim_one().await;
    say(f, &again, vec![line(LogLevel::Error, "d")]).await;
    let page = log(f, leased.id).await;
    let seen: Vec<_> = page.lines.iter().map(|l| (l.n, l.attempt, l.level, l.text.as_str())).collect();
    let expected = [
        (1, 1, LogLevel::Step, "source downloaded"),
        (2, 1, LogLevel::Debug, "b"),
        (3, 1, LogLevel::Warn, "c"),
        (4, 2, LogLevel::Error, "d"),
    ];
    assert_eq!(seen, expected);
    assert_eq!((page.next, page.dropped), (None, 0));
    assert!(page.lines[1].at > page.lines[0].at, "without a time it is the database's");
    assert_eq!(log(f, leased.id + 1).await, LogPage::default());
}

pub(crate) async fn all_that_is_told_at_once_is_one_event(f: &Fixture) {
    let leased = f.running(plain()).await;
    f.entries().await;
    let at: Timestamp = "2026-11-22T02:00:00Z".parse().unwrap();
    let annotation = Annotation {
        notes: serde_json::from_str(r#"{"a":1}"#).unwrap(),
        progress: Some(Progress { percent: 40.0, text: None }),
        log: vec![LogLine { at: Some(at), ..info("x\n\u{1F600}\"\u{7}") }, line(LogLevel::Step, "y")],
    };
    f.store().annotate(leased.id, Some(leased.lease), &annotation).await.unwrap();
    let entries = f.wrote(&[(leased.id, "task.progress")]).await;
    let job = entries[0].job();
    assert_eq!((job.notes["a"].as_i64(), job.progress.map(|p| p.percent)), (Some(1), Some(40.0)));
    assert_eq!(told(&entries[0]), Some(log(f, leased.id).await.lines));
    let first = r#"{"n":1,"at":"2026-11-22T02:00:00.000000Z","attempt":1,"level":"info","text":"x\n"#;
    assert!(entries[0].data.contains(first) && !entries[0].data.contains('\n'), "{}", entries[0].data);
}

pub(crate) async fn only_the_event_that_brings_lines_has_them(f: &Fixture) {
    let leased = f.running(plain()).await;
    say(f, &leased, vec![info("a"), info("b")]).await;
    say(f, &leased, vec![info("c")]).await;
    f.note(leased.id, Some(leased.lease), r#"{"a":1}"#).await.unwrap();
    f.accepted(finish(&leased, "1")).await;
    let (id, p) = (leased.id, "task.progress");
    let expected =
        [(id, "task.enqueue"), (id, "task.dequeue"), (id, p), (id, p), (id, p), (id, "task.finished")];
    let entries = f.wrote(&expected).await;
    let numbers = |entry: &Entry| told(entry).map(|log| log.iter().map(|line| line.n).collect::<Vec<_>>());
    let brought: Vec<_> = entries.iter().map(numbers).collect();
    assert_eq!(brought, [None, None, Some(vec![1, 2]), Some(vec![3]), None, None]);
    assert!(!f.view(id).await.snapshot.get().contains("\"log\""));
}

pub(crate) async fn the_newest_lines_are_kept(f: &Fixture) {
    let leased = f.running(plain()).await;
    let numbered = |from: usize, count: usize| (from..from + count).map(|n| info(&n.to_string())).collect();
    say(f, &leased, numbered(1, 700)).await;
    say(f, &leased, numbered(701, 700)).await;
    let page = log(f, leased.id).await;
    assert_eq!((page.lines.len(), page.dropped, page.next), (LOG_LINES_MAX, 400, None));
    for (line, n) in page.lines.iter().zip(401i64..) {
        assert_eq!((line.n, line.text.as_str()), (n, n.to_string().as_str()), "without gaps");
    }
    say(f, &leased, numbered(1_401, LOG_LINES_MAX)).await;
    let page = log(f, leased.id).await;
    assert_eq!((page.lines.len(), page.lines[0].n, page.dropped), (LOG_LINES_MAX, 1_401, 1_400));
}

pub(crate) async fn the_newest_bytes_are_kept(f: &Fixture) {
    let leased = f.running(plain()).await;
    let long = "ä".repeat(LOG_TEXT_BYTES_MAX / 2);
    let most = LOG_BYTES_MAX / LOG_TEXT_BYTES_MAX;
    say(f, &leased, vec![info(&long); most - 1]).await;
    say(f, &leased, vec![info("short"); 10]).await;
    let page = log(f, leased.id).await;
    assert_eq!((page.lines.len(), page.dropped), (most + 9, 0));
    say(f, &leased, vec![info(&long)]).await;
    let page = log(f, leased.id).await;
    assert_eq!((page.lines[0].n, page.dropped), (2, 1), "the first one goes to make room");
    say(f, &leased, vec![info(&long); most]).await;
    let page = log(f, leased.id).await;
    let bytes: usize = page.lines.iter().map(|line| line.text.len()).sum();
    assert_eq!((page.lines.len(), bytes), (most, LOG_BYTES_MAX));
    say(f, &leased, vec![info("a"), info("")]).await;
    assert_eq!(log(f, leased.id).await.lines.len(), most + 1);
}

pub(crate) async fn a_line_is_cut_and_without_nul(f: &Fixture) {
    let leased = f.running(plain()).await;
    let times = ["-004711-01-01T00:00:00Z", "2026-11-22T02:00:00.123456789Z", "9999-12-30T22:00:00Z"];
    let dated = times.map(|at| LogLine { at: Some(at.parse().unwrap()), ..info("a\0b") });
    let long = info(&"ä".repeat(LOG_TEXT_BYTES_MAX));
    say(f, &leased, dated.into_iter().chain([long]).collect()).await;
    let page = log(f, leased.id).await;
    assert!(page.lines[..3].iter().all(|line| line.text == "a\u{fffd}b"));
    let kept: Vec<_> = page.lines[..3].iter().map(|line| line.at.to_string()).collect();
    assert_eq!(kept, ["1970-01-01T00:00:00Z", "2026-11-22T02:00:00.123456Z", "9999-12-30T22:00:00Z"]);
    let cut = &page.lines[3].text;
    assert!(cut.len() <= LOG_TEXT_BYTES_MAX && cut.ends_with("ä…"), "{} bytes", cut.len());
    let entries = f.entries().await;
    assert_eq!(told(entries.last().unwrap()), Some(page.lines));
}

pub(crate) async fn too_much_at_once_changes_nothing(f: &Fixture) {
    let leased = f.running(plain()).await;
    f.entries().await;
    let long = "x".repeat(LOG_TEXT_BYTES_MAX);
    for too_much in [vec![info("x"); LOG_LINES_MAX + 1], vec![info(&long); 33]] {
        let annotation = Annotation {
            notes: serde_json::from_str(r#"{"a":1}"#).unwrap(),
            log: too_much,
            ..Annotation::default()
        };
        let refused = f.store().annotate(leased.id, Some(leased.lease), &annotation).await;
        assert!(matches!(refused, Err(QueueError::Invalid(_))), "{refused:?}");
    }
    // notes that are too large take the lines of the same call with them
    let notes = serde_json::json!({ "a": "x".repeat(300_000) }).as_object().unwrap().clone();
    let annotation = Annotation { notes, log: vec![info("x")], ..Annotation::default() };
    let refused = f.store().annotate(leased.id, Some(leased.lease), &annotation).await;
    assert!(matches!(refused, Err(QueueError::TooLarge(_))), "{refused:?}");
    f.wrote(&[]).await;
    assert_eq!(log(f, leased.id).await, LogPage::default());
}

pub(crate) async fn who_has_lost_the_job_adds_nothing(f: &Fixture) {
    let ended = f.running(plain()).await;
    f.accepted(finish(&ended, "1")).await;
    let cancelled = f.running(plain()).await;
    f.store().cancel(cancelled.id).await.unwrap();
    let mut stranger = f.running(plain()).await;
    stranger.lease = LeaseToken::fresh();
    for leased in [ended, cancelled, stranger] {
        let said = f.store().annotate(leased.id, Some(leased.lease), &lines(vec![info("x")])).await;
        assert!(matches!(said, Err(QueueError::LeaseLost(id)) if id == leased.id), "{said:?}");
        assert_eq!(log(f, leased.id).await, LogPage::default());
    }
    let none = f.store().annotate(4_711, None, &lines(vec![info("x")])).await;
    assert!(matches!(none, Err(QueueError::NotFound(4_711))), "{none:?}");
}

pub(crate) async fn a_log_goes_with_its_job(f: &Fixture) {
    let removed = f.running(plain()).await;
    say(f, &removed, vec![info("x")]).await;
    f.accepted(finish(&removed, "1")).await;
    let kept = f.running(plain()).await;
    say(f, &kept, vec![info("x")]).await;
    f.accepted(finish(&kept, "1")).await;
    let expired = f.enqueue(with(|o| o.expire = Some(seconds(10)))).await;
    f.store().annotate(expired, None, &lines(vec![info("by a user")])).await.unwrap();
    f.store().remove(removed.id).await.unwrap();
    assert_eq!(log(f, removed.id).await, LogPage::default());
    f.pass(seconds(100)).await;
    f.upkeep().await;
    assert_eq!(log(f, expired).await, LogPage::default());
    assert_eq!(texts(f, kept.id).await, ["x"], "it stays while its job does");
    let rules = minium_queue::UpkeepRules { keep: keep(Some(seconds(50))), ..upkeep_rules() };
    f.store().upkeep(&rules).await.unwrap();
    assert!(f.is_gone(kept.id).await);
    assert_eq!(log(f, kept.id).await, LogPage::default());
}

pub(crate) async fn a_line_that_is_said_again_is_kept_once(f: &Fixture) {
    let leased = f.running(with(|o| o.attempts = 2)).await;
    let at =
        |second: i64, text: &str| LogLine { at: Some(Timestamp::from_second(second).unwrap()), ..info(text) };
    let first = vec![at(1, "a"), at(1, "a"), at(2, "b")];
    say(f, &leased, first.clone()).await;
    f.entries().await;
    // its answer was lost: all of it again, and more that was said meanwhile
    say(f, &leased, first.clone()).await;
    f.wrote(&[]).await;
    say(f, &leased, first.iter().cloned().chain([at(3, "b")]).collect()).await;
    assert_eq!(texts(f, leased.id).await, ["a", "a", "b", "b"]);
    let entries = f.wrote(&[(leased.id, "task.progress")]).await;
    assert_eq!(told(&entries[0]).unwrap().iter().map(|line| line.n).collect::<Vec<_>>(), [4]);
    // words that were on their way together, each a call of its own
    for line in &first {
        say(f, &leased, vec![line.clone()]).await;
    }
    f.wrote(&[]).await;
    // notes of the same call are told all the same
    let noted = Annotation { notes: serde_json::from_str(r#"{"a":1}"#).unwrap(), ..lines(vec![at(3, "b")]) };
    f.store().annotate(leased.id, Some(leased.lease), &noted).await.unwrap();
    let entries = f.wrote(&[(leased.id, "task.progress")]).await;
    assert_eq!(told(&entries[0]), None);
    // another run may say the same, and so may a line without a time
    f.accepted(fail(&leased, "no")).await;
    f.store().retry(leased.id, &RetryOptions::default()).await.unwrap();
    let again = f.claim_one().await;
    say(f, &again, vec![at(3, "b"), info("c")]).await;
    say(f, &again, vec![info("c")]).await;
    assert_eq!(texts(f, leased.id).await, ["a", "a", "b", "b", "b", "c", "c"]);
}

pub(crate) async fn a_log_is_read_by_the_page(f: &Fixture) {
    let leased = f.running(plain()).await;
    say(f, &leased, (1..=7).map(|n| info(&n.to_string())).collect()).await;
    let (mut after, mut seen, mut pages) = (0, Vec::new(), 0);
    loop {
        let page = f.store().log(leased.id, after, 3).await.unwrap();
        seen.extend(page.lines.iter().map(|line| line.n));
        pages += 1;
        let Some(next) = page.next else { break };
        after = next;
    }
    assert_eq!((seen, pages), (vec![1, 2, 3, 4, 5, 6, 7], 3));
    assert_eq!(f.store().log(leased.id, 7, 3).await.unwrap(), LogPage::default());
    assert_eq!(
        f.store().log(leased.id, 4, 3).await.unwrap().next,
        None,
        "a page that is full may be the last"
    );
    assert_eq!(f.store().log(leased.id, i64::MAX, u32::MAX).await.unwrap(), LogPage::default());
}
