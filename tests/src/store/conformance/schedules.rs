//! Schedules fire each due time once, whoever calls and however late; they are put, paused and run by whoever may.

use crate::store::fixture::*;
use minium_protocol::{JobOptions, Missed, ScheduleView};
use minium_queue::{QueueError, Schedule, ScheduleFilter, Timing};
use std::time::Duration;

const NAME: &str = "inventory";

fn by_interval(interval: u64) -> Schedule {
    every(NAME, plain(), interval)
}

fn by_clock(text: &str, zone: &str) -> Schedule {
    Schedule { timing: Timing::new(None, Some(text), Some(zone)).unwrap(), ..by_interval(1) }
}

async fn put(f: &Fixture, schedule: &Schedule) {
    f.store().put_schedule(schedule).await.unwrap();
}

async fn fire(f: &Fixture) -> Duration {
    f.store().fire_schedules().await.unwrap().unwrap()
}

async fn put_and_fire(f: &Fixture, schedule: &Schedule) -> Duration {
    put(f, schedule).await;
    fire(f).await
}

async fn view(f: &Fixture, name: &str) -> ScheduleView {
    f.store().schedule(name).await.unwrap().unwrap()
}

async fn names(f: &Fixture) -> Vec<String> {
    let page = f.store().schedules(&ScheduleFilter::default()).await.unwrap();
    page.schedules.into_iter().map(|s| s.name).collect()
}

/// Is the next firing in so long, as far as a test can tell?
#[track_caller]
fn is_about(next: Duration, expected: u64) {
    assert!(next <= seconds(expected) && next > seconds(expected - 10), "{next:?}");
}

async fn fired(f: &Fixture) -> usize {
    let entries = f.entries().await;
    assert!(entries.iter().all(|e| e.kind == "task.enqueue"));
    entries.len()
}

pub(crate) async fn a_new_interval_fires_at_once(f: &Fixture) {
    let mut schedule = by_interval(100);
    schedule.request.args = json(r#"["x"]"#);
    is_about(put_and_fire(f, &schedule).await, 100);
    let leased = f.claim_one().await;
    let job = f.job(leased.id).await;
    assert_eq!((job.schedule.as_deref(), job.args.get(), job.key), (Some(NAME), r#"["x"]"#, None));
    assert!(job.notes.is_empty());
    f.wrote(&[(job.id, "task.enqueue"), (job.id, "task.dequeue")]).await;
    let view = view(f, NAME).await;
    assert_eq!(view.job, Some(job.id));
    assert_eq!(view.due.duration_since(view.fired.unwrap()).as_secs_f64().round(), 100.0);
}

pub(crate) async fn a_new_expression_waits_for_its_time(f: &Fixture) {
    let next = put_and_fire(f, &by_clock("0 0 1 1 *", "America/New_York")).await;
    assert_eq!(fired(f).await, 0);
    let due = view(f, NAME).await.due;
    let told = due.in_tz("America/New_York").unwrap().strftime("%m-%d %H:%M:%S").to_string();
    assert_eq!(told, "01-01 00:00:00");
    let ahead = due.duration_since(jiff::Timestamp::now()).unsigned_abs();
    assert!(ahead.abs_diff(next) < seconds(10), "{ahead:?} {next:?}");
    f.pass(ahead + seconds(1)).await;
    fire(f).await;
    assert_eq!(fired(f).await, 1);
    assert!(
        view(f, NAME).await.due > jiff::Timestamp::now(),
        "its next time is by the clock, not by the last"
    );
    fire(f).await;
    assert_eq!(fired(f).await, 0);
}

pub(crate) async fn a_schedule_fires_once_from_three_stores(f: &Fixture) {
    let stores = [f.shared(), f.second().await, f.second().await];
    put(f, &by_interval(100)).await;
    for round in 0..8 {
        let callers: Vec<_> = (0..6)
            .map(|i| {
                let store = stores[i % 3].clone();
                tokio::spawn(async move { store.fire_schedules().await.unwrap() })
            })
            .collect();
        for caller in callers {
            assert!(caller.await.unwrap().is_some());
        }
        assert_eq!(fired(f).await, 1, "round {round}");
        f.pass(seconds(100)).await;
    }
}

pub(crate) async fn missed_firings_are_made_up_by_one(f: &Fixture) {
    put_and_fire(f, &by_interval(100)).await;
    assert_eq!(fired(f).await, 1);
    f.pass(seconds(90)).await;
    fire(f).await;
    assert_eq!(fired(f).await, 0, "not yet");
    f.pass(seconds(500 + 30)).await;
    // 620 s after the first: six were due, the next stays in step
    is_about(fire(f).await, 80);
    assert_eq!(fired(f).await, 1);
    fire(f).await;
    assert_eq!(fired(f).await, 0);
}

pub(crate) async fn missed_firings_are_made_up_one_by_one_where_that_is_wanted(f: &Fixture) {
    put_and_fire(f, &Schedule { missed: Missed::All, ..by_interval(100) }).await;
    assert_eq!(fired(f).await, 1);
    f.pass(seconds(620)).await;
    is_about(fire(f).await, 80);
    assert_eq!(fired(f).await, 6);
    let jobs = f.claim(100).await;
    for job in &jobs {
        assert_eq!(f.job(job.id).await.schedule.as_deref(), Some(NAME));
    }
    assert_eq!((jobs.len(), view(f, NAME).await.job), (7, jobs.last().map(|job| job.id)));
    f.entries().await;
    f.pass(seconds(100 * 1_500)).await;
    fire(f).await;
    assert_eq!(fired(f).await, 1_000, "no more than so many are made up");
    is_about(fire(f).await, 80);
    assert_eq!(fired(f).await, 0);
}

pub(crate) async fn a_round_has_a_bound_and_the_next_goes_on(f: &Fixture) {
    for n in 0..3 {
        let schedule = every(&format!("schedule {n}"), plain(), 100);
        put(f, &Schedule { missed: Missed::All, ..schedule }).await;
    }
    fire(f).await;
    assert_eq!(fired(f).await, 3);
    f.pass(seconds(100 * 600)).await;
    let mut all = 0;
    for expected in [600, 600, 600] {
        let next = fire(f).await;
        let more = fired(f).await;
        assert_eq!(more, expected, "after {all}");
        all += more;
        assert!(all == 1_800 || next.is_zero(), "there is more to do at once");
    }
}

pub(crate) async fn a_shorter_interval_brings_the_next_firing_nearer(f: &Fixture) {
    put_and_fire(f, &by_interval(1_000)).await;
    is_about(put_and_fire(f, &by_interval(100)).await, 100);
    is_about(put_and_fire(f, &by_interval(1_000)).await, 100);
    assert_eq!(fired(f).await, 1);
    is_about(put_and_fire(f, &every("other", plain(), 50)).await, 50);
    assert_eq!(fired(f).await, 1, "each has a time of its own");
    // a clock that was put right: what is due too far away comes nearer
    f.pass_back(seconds(5_000)).await;
    is_about(fire(f).await, 50);
    assert_eq!(fired(f).await, 0);
}

pub(crate) async fn a_key_keeps_firings_from_piling_up(f: &Fixture) {
    let mut schedule = by_interval(100);
    schedule.request.options = JobOptions { key: Some("one".into()), ..JobOptions::default() };
    put_and_fire(f, &schedule).await;
    f.pass(seconds(100)).await;
    is_about(fire(f).await, 100);
    assert_eq!(fired(f).await, 1);
    let leased = f.claim_one().await;
    f.accepted(finish(&leased, "1")).await;
    f.entries().await;
    f.pass(seconds(100)).await;
    fire(f).await;
    assert_eq!(fired(f).await, 1);
}

pub(crate) async fn options_and_arguments_are_kept_as_they_were_put(f: &Fixture) {
    let mut schedule = by_interval(100);
    schedule.request.args = json(r#"{"n":123456789012345678901234567890.10e+5,"nul":"\u0000"}"#);
    schedule.request.options = JobOptions {
        attempts: 3,
        expire: Some(seconds(1_000)),
        timeout: Some(Duration::from_micros(1_500_001)),
        backoff: Some(Duration::from_millis(2_500)),
        notes: serde_json::from_str(r#"{"who":"me"}"#).unwrap(),
        priority: -3,
        queue: "slow".into(),
        ..JobOptions::default()
    };
    put_and_fire(f, &schedule).await;
    let job = f.job(view(f, NAME).await.job.unwrap()).await;
    assert_eq!(job.args.get(), schedule.request.args.get());
    assert_eq!((job.attempts, job.priority, job.queue.as_str()), (3, -3, "slow"));
    assert_eq!(job.notes, schedule.request.options.notes);
    assert_eq!(job.expires.unwrap().duration_since(job.created).as_secs(), 1_000);
    let claim = minium_queue::Claim { queues: vec!["slow".into()], ..claim(1) };
    assert_eq!(f.exchange(&[], claim).await.jobs[0].timeout, schedule.request.options.timeout);
}

pub(crate) async fn what_breaks_a_rule_is_refused(f: &Fixture) {
    let mut bad = by_interval(100);
    bad.request.options.attempts = 0;
    let mut child = by_interval(100);
    child.request.options.parents = vec![1];
    let named = |name: &str| every(name, plain(), 100);
    let cases = [
        (bad, "attempts"),
        (child, "parents"),
        (by_interval(0), "every"),
        (named(""), "name"),
        (named("a\0"), "name"),
        (named(".."), "name"),
        (named(&"x".repeat(256)), "name"),
    ];
    for (schedule, word) in cases {
        let answer = f.store().put_schedule(&schedule).await;
        assert!(matches!(&answer, Err(QueueError::Invalid(w)) if w.contains(word)), "{answer:?}");
        let answer = f.store().put_configured_schedules(&[named("good"), schedule]).await;
        assert!(matches!(&answer, Err(QueueError::Invalid(w)) if w.contains(word)), "{answer:?}");
    }
    assert!(names(f).await.is_empty());
    assert_eq!(f.store().fire_schedules().await.unwrap(), None);
    f.nothing_to_claim().await;
}

pub(crate) async fn no_schedules_are_never_due(f: &Fixture) {
    assert_eq!(f.store().fire_schedules().await.unwrap(), None);
    put_and_fire(f, &by_interval(100)).await;
    f.store().remove_schedule(NAME).await.unwrap();
    assert_eq!(f.store().fire_schedules().await.unwrap(), None);
}

pub(crate) async fn schedules_are_put_listed_and_removed(f: &Fixture) {
    let store = f.store();
    for name in ["b", "ä", "a/b", "B", "c"] {
        assert!(store.put_schedule(&every(name, plain(), 100)).await.unwrap());
    }
    assert!(!store.put_schedule(&every("b", plain(), 200)).await.unwrap(), "it was there");
    assert_eq!(view(f, "b").await.every, Some(seconds(200)));
    assert_eq!(names(f).await, ["B", "a/b", "b", "c", "ä"], "in the order of their bytes");
    let page = async |after: Option<&str>| {
        let filter = ScheduleFilter { after: after.map(str::to_owned), limit: 3 };
        let page = store.schedules(&filter).await.unwrap();
        (page.schedules.into_iter().map(|s| s.name).collect::<Vec<_>>(), page.next)
    };
    assert_eq!(page(None).await, (vec!["B".into(), "a/b".into(), "b".into()], Some("b".into())));
    assert_eq!(page(Some("b")).await, (vec!["c".into(), "ä".into()], None));
    store.remove_schedule("b").await.unwrap();
    for name in ["b", "none", "a\0"] {
        let missing = |e: QueueError| assert!(matches!(&e, QueueError::NoSchedule(n) if n == name), "{e:?}");
        missing(store.remove_schedule(name).await.unwrap_err());
        missing(store.pause_schedule(name, true).await.unwrap_err());
        missing(store.pause_schedule(name, false).await.unwrap_err());
        missing(store.run_schedule(name).await.unwrap_err());
        assert!(store.schedule(name).await.unwrap().is_none());
    }
}

pub(crate) async fn what_a_pause_keeps_from_firing_is_not_made_up(f: &Fixture) {
    put_and_fire(f, &Schedule { missed: Missed::All, ..by_interval(100) }).await;
    // once a day, and not while this test runs
    let hour = (jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).hour() + 12) % 24;
    put(f, &Schedule { name: "other".into(), ..by_clock(&format!("0 {hour} * * *"), "UTC") }).await;
    for name in [NAME, "other"] {
        f.store().pause_schedule(name, true).await.unwrap();
        f.store().pause_schedule(name, true).await.unwrap();
    }
    f.entries().await;
    f.pass(seconds(250 + 2 * 86_400)).await;
    assert_eq!(f.store().fire_schedules().await.unwrap(), None, "nothing is to come");
    assert!(view(f, NAME).await.paused);
    put(f, &Schedule { missed: Missed::All, ..by_interval(100) }).await;
    assert!(view(f, NAME).await.paused, "putting it again does not wake it");
    for name in [NAME, "other"] {
        f.store().pause_schedule(name, false).await.unwrap();
        f.store().pause_schedule(name, false).await.unwrap();
    }
    // 173,050 s after its first: in step
    is_about(fire(f).await, 50);
    assert_eq!(fired(f).await, 0);
    assert!(view(f, "other").await.due > jiff::Timestamp::now());
    f.pass(seconds(50)).await;
    fire(f).await;
    assert_eq!(fired(f).await, 1);
}

pub(crate) async fn running_by_hand_moves_nothing(f: &Fixture) {
    put_and_fire(f, &by_interval(100)).await;
    f.pass(seconds(30)).await;
    let before = view(f, NAME).await;
    let run = f.store().run_schedule(NAME).await.unwrap();
    let after = view(f, NAME).await;
    assert_eq!((after.due, after.job, run.existing), (before.due, Some(run.id), false));
    assert!(after.fired > before.fired);
    assert_eq!(f.job(run.id).await.schedule.as_deref(), Some(NAME));
    assert_eq!(fired(f).await, 2);
    f.store().pause_schedule(NAME, true).await.unwrap();
    f.store().run_schedule(NAME).await.unwrap();
    assert_eq!(fired(f).await, 1, "also while it rests");
    assert!(view(f, NAME).await.paused);
}

pub(crate) async fn the_configuration_has_its_own_and_leaves_others_alone(f: &Fixture) {
    let store = f.store();
    put(f, &every("by hand", plain(), 100)).await;
    put(f, &every("taken over", plain(), 100)).await;
    fire(f).await;
    let configured = ["a", "b", "taken over"].map(|name| every(name, plain(), 100));
    store.put_configured_schedules(&configured).await.unwrap();
    assert_eq!(names(f).await, ["a", "b", "by hand", "taken over"]);
    fire(f).await;
    assert_eq!(fired(f).await, 4);
    for name in ["a", "taken over"] {
        let taken = |e: QueueError| assert!(matches!(&e, QueueError::Configured(n) if n == name), "{e:?}");
        taken(store.put_schedule(&every(name, plain(), 5)).await.unwrap_err());
        taken(store.remove_schedule(name).await.unwrap_err());
    }
    assert_eq!(view(f, "a").await.every, Some(seconds(100)), "nothing was changed");

    // the next start: one has changed, one has gone, one rests by hand
    store.pause_schedule("a", true).await.unwrap();
    let mut changed = every("a", plain(), 50);
    changed.request.args = json("[2]");
    store.put_configured_schedules(&[changed, every("new", plain(), 100)]).await.unwrap();
    assert_eq!(names(f).await, ["a", "by hand", "new"]);
    let a = view(f, "a").await;
    assert!(a.paused && a.configured && a.to_json().contains("\"args\":[2]"), "{a:?}");
    assert!(!view(f, "by hand").await.configured);
    is_about(fire(f).await, 100);
    assert_eq!(fired(f).await, 1, "only the new one was due");
    store.put_configured_schedules(&[]).await.unwrap();
    assert_eq!(names(f).await, ["by hand"]);
}

pub(crate) async fn a_time_of_before_is_kept_by_what_defines_it_now(f: &Fixture) {
    // as a program of before this has left them
    f.execute("insert into schedule (name, due) values ('inventory', $due), ('gone', $due)", seconds(70))
        .await;
    assert_eq!(f.store().fire_schedules().await.unwrap(), None, "nobody knows yet what they enqueue");
    assert!(names(f).await.is_empty() && f.store().schedule("gone").await.unwrap().is_none());
    f.store().put_configured_schedules(&[by_interval(100)]).await.unwrap();
    is_about(fire(f).await, 70);
    assert_eq!((fired(f).await, f.count("schedule").await), (0, 1));
}

pub(crate) async fn changes_are_told_to_this_process(f: &Fixture) {
    let mut changes = f.store().schedule_changes();
    put(f, &by_interval(100)).await;
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    f.store().pause_schedule(NAME, true).await.unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    fire_nothing(f).await;
    assert!(!changes.has_changed().unwrap(), "firing changes no schedule");
}

async fn fire_nothing(f: &Fixture) {
    assert_eq!(f.store().fire_schedules().await.unwrap(), None);
}

pub(crate) async fn what_cannot_be_read_here_holds_up_nothing_else(f: &Fixture) {
    put(f, &by_clock("0 0 * * *", "UTC")).await;
    f.execute("update schedule set zone = 'Mars/Olympus', due = $due", Duration::ZERO).await;
    put(f, &every("other", plain(), 100)).await;
    f.pass(seconds(1)).await;
    is_about(fire(f).await, 100);
    assert_eq!(fired(f).await, 1);
    assert_eq!(view(f, NAME).await.zone, "Mars/Olympus", "it is shown all the same");
    assert!(f.store().run_schedule(NAME).await.is_err());
    put(f, &by_clock("0 0 * * *", "UTC")).await;
    assert!(view(f, NAME).await.due > jiff::Timestamp::now());
}
