//! Lists that look into what jobs say, and how far such a list walks.

use crate::store::fixture::*;
use minium_protocol::{EnqueueRequest, Job, JobOptions, Phase, State};
use minium_queue::{ArgsMask, BulkAction, JobFilter, Span, ValueAt, bulk};

fn all() -> JobFilter {
    JobFilter::default()
}

async fn list(f: &Fixture, filter: JobFilter) -> Vec<i64> {
    let page = f.store().list(&filter).await.unwrap();
    page.jobs.iter().map(|job| serde_json::from_str::<Job>(job.get()).unwrap().id).collect()
}

fn at(path: &[&str], value: &str) -> ValueAt {
    ValueAt { path: path.iter().map(|step| (*step).to_owned()).collect(), value: value.into() }
}

fn of(args: &str, options: impl FnOnce(&mut JobOptions)) -> EnqueueRequest {
    EnqueueRequest { args: json(args), ..with(options) }
}

fn notes(text: &str) -> impl FnOnce(&mut JobOptions) {
    move |o| o.notes = serde_json::from_str(text).unwrap()
}

pub(crate) async fn phases_narrow_a_list(f: &Fixture) {
    let running = f.running(plain()).await;
    f.finished(plain()).await;
    let ready = f.enqueue(plain()).await;
    let delayed = f.enqueue(with(|o| o.delay = seconds(100))).await;
    let blocked = f.enqueue(after(&[running.id])).await;
    let in_phase = |phases: &[Phase]| JobFilter { phases: phases.to_vec(), ..all() };
    assert_eq!(list(f, in_phase(&[Phase::Ready])).await, [ready]);
    assert_eq!(list(f, in_phase(&[Phase::Delayed])).await, [delayed]);
    assert_eq!(list(f, in_phase(&[Phase::Blocked, Phase::Ready])).await, [blocked, ready]);
    for (id, phase) in [(ready, Phase::Ready), (delayed, Phase::Delayed), (blocked, Phase::Blocked)] {
        assert_eq!(f.phase(id).await, Some(phase), "as the job says");
    }
    let none = JobFilter { states: vec![State::Active], ..in_phase(Phase::ALL) };
    assert!(list(f, none).await.is_empty(), "what runs waits for nothing");
    f.pass(seconds(200)).await;
    assert_eq!(list(f, in_phase(&[Phase::Ready])).await, [delayed, ready], "its time has come");
}

pub(crate) async fn values_of_notes_narrow_a_list(f: &Fixture) {
    let a = f.enqueue(with(notes(r#"{"rack":3,"a=b":"x","it's \"x\"":null}"#))).await;
    let b = f.enqueue(with(notes(r#"{"rack":"3","on":true}"#))).await;
    let c = f.enqueue(with(notes(r#"{"rack":33,"in":{"rack":3}}"#))).await;
    let with = |places: &[ValueAt]| JobFilter { notes_at: places.to_vec(), ..all() };
    assert_eq!(list(f, with(&[at(&["rack"], "3")])).await, [b, a]);
    assert_eq!(list(f, with(&[at(&["rack"], "3"), at(&["on"], "true")])).await, [b]);
    assert_eq!(list(f, with(&[at(&["in", "rack"], "3")])).await, [c]);
    assert_eq!(list(f, with(&[at(&["it's \"x\""], "null")])).await, [a]);
    assert_eq!(list(f, with(&[at(&["a=b"], "x")])).await, [a]);
    assert!(list(f, with(&[at(&["none"], "null")])).await.is_empty(), "what is not there is not null");
    let both = JobFilter { notes: vec!["on".into()], ..with(&[at(&["rack"], "3")]) };
    assert_eq!(list(f, both).await, [b]);
}

pub(crate) async fn values_of_arguments_narrow_a_list(f: &Fixture) {
    let a = f.enqueue(of(r#"[{"serial":"A\u0042C","n":2.50,"a/b":[true,null]}]"#, |_| {})).await;
    let b = f.enqueue(of(r#"[{"serial":"ABC","n":123456789012345678901234567890},"x"]"#, |_| {})).await;
    let c = f.enqueue(of(r#""whole""#, |_| {})).await;
    let d = f.enqueue(of(r#"{"":7,"0":"zero"}"#, |_| {})).await;
    // no database can take it apart, and none fails for it
    f.enqueue(of(r#"[{"serial":"ABC","n":"\u0000"}]"#, |_| {})).await;
    let with = |places: &[ValueAt]| JobFilter { args_at: places.to_vec(), ..all() };
    assert_eq!(list(f, with(&[at(&["0", "serial"], "ABC")])).await, [b, a]);
    assert_eq!(list(f, with(&[at(&["0", "serial"], "ABC"), at(&["1"], "x")])).await, [b]);
    assert_eq!(list(f, with(&[at(&["0", "n"], "2.50")])).await, [a]);
    assert_eq!(list(f, with(&[at(&["0", "n"], "123456789012345678901234567890")])).await, [b]);
    assert_eq!(list(f, with(&[at(&["0", "a/b", "1"], "null")])).await, [a]);
    assert_eq!(list(f, with(&[at(&[], "whole")])).await, [c]);
    assert_eq!(list(f, with(&[at(&[""], "7")])).await, [d]);
    assert_eq!(list(f, with(&[at(&["0"], "zero")])).await, [d]);
    for nowhere in [at(&["0", "serial"], "abc"), at(&["5"], "null"), at(&["0", "serial", "0"], "A")] {
        assert!(list(f, with(&[nowhere])).await.is_empty());
    }
    let nul = JobFilter { args_at: vec![at(&["0", "n"], "\0")], ..all() };
    assert!(list(f, nul).await.is_empty());
}

pub(crate) async fn what_is_hidden_is_found_by_nobody(f: &Fixture) {
    let paths = vec![vec!["0".to_owned(), "password".to_owned()]];
    f.store().put_masks(&[ArgsMask { task: "t".into(), paths }]).await.unwrap();
    let id = f.enqueue(of(r#"[{"user":"u","password":"hunter2"}]"#, |_| {})).await;
    let there = |value: &str| JobFilter { args_at: vec![at(&["0", "password"], value)], ..all() };
    assert!(list(f, there("hunter2")).await.is_empty());
    assert_eq!(list(f, there("***")).await, [id]);
    let says = |text: &str| JobFilter { text: Some(text.into()), ..all() };
    assert!(list(f, says("hunter2")).await.is_empty());
    assert_eq!(list(f, says("user")).await, [id]);
}

pub(crate) async fn texts_narrow_a_list(f: &Fixture) {
    let says = |text: &str| JobFilter { text: Some(text.into()), ..all() };
    let leased = f.running(of(r#"["\u0000"]"#, |_| {})).await;
    f.accepted(fail_for_good(&leased, "Disk LOST in rack 3")).await;
    let mut named = of(r#"["Ünder 100% _done_"]"#, |_| {});
    named.task = "disks/Burn-In".into();
    let a = f.enqueue(named).await;
    let b = f.enqueue(with(notes(r#"{"Owner":"Ops"}"#))).await;
    assert_eq!(list(f, says("burn-in")).await, [a]);
    assert_eq!(list(f, says("DISK")).await, [a, leased.id], "of either case");
    assert_eq!(list(f, says("Ünder")).await, [a]);
    assert_eq!(list(f, says("0% _D")).await, [a], "nothing stands for anything else");
    assert_eq!(list(f, says("owner")).await, [b]);
    assert_eq!(list(f, JobFilter { states: vec![State::Failed], ..says("rack 3") }).await, [leased.id]);
    assert!(list(f, says("rack 4")).await.is_empty());
}

pub(crate) async fn times_narrow_a_list(f: &Fixture) {
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let id = f.finished(plain()).await;
        jobs.push(f.job(id).await);
    }
    let waiting = f.enqueue(plain()).await;
    let [a, b, c] = &jobs[..] else { panic!("three") };
    let (from, to) = (Some(b.created), Some(c.created));
    let enqueued = |after, before| JobFilter { enqueued: Span { after, before }, ..all() };
    assert_eq!(list(f, enqueued(from, None)).await, [waiting, c.id, b.id], "from that moment on");
    assert_eq!(list(f, enqueued(None, to)).await, [b.id, a.id], "up to that moment, without it");
    assert_eq!(list(f, enqueued(from, to)).await, [b.id]);
    let ended = |after, before| JobFilter { ended: Span { after, before }, ..all() };
    assert_eq!(list(f, ended(b.finished, None)).await, [c.id, b.id], "what has not ended did not end then");
    assert_eq!(list(f, ended(None, b.finished)).await, [a.id]);
    let early = Some(jiff::Timestamp::MIN);
    assert_eq!(list(f, enqueued(early, None)).await.len(), 4);
    assert!(list(f, enqueued(None, early)).await.is_empty());
}

/// Q-36: a page ends where its walk has been long enough, and pages join: everything is met, once.
pub(crate) async fn a_walk_that_finds_little_ends_and_goes_on(f: &Fixture) {
    let rare = async || {
        let mut request = with(notes(r#"{"rare":true}"#));
        request.task = "rare".into();
        f.enqueue(request).await
    };
    let mut expected = vec![rare().await];
    for _ in 0..3 {
        f.store().enqueue(&vec![plain(); 1_200]).await.unwrap();
        expected.insert(0, rare().await);
    }
    let born = f.store().list(&JobFilter { origin: Some(expected[0]), ..all() }).await.unwrap();
    assert_eq!((born.jobs.len(), born.next), (0, None), "where nothing is left out there is an end");
    for filter in [
        JobFilter { tasks: vec!["rare".into()], ..all() },
        JobFilter { notes_at: vec![at(&["rare"], "true")], ..all() },
        JobFilter { text: Some("rare".into()), ..all() },
    ] {
        let mut filter = JobFilter { looked_max: 1_000, ..filter };
        let (mut met, mut pages) = (Vec::new(), 0);
        loop {
            let page = f.store().list(&filter).await.unwrap();
            met.extend(page.jobs.iter().map(|job| serde_json::from_str::<Job>(job.get()).unwrap().id));
            pages += 1;
            let Some(next) = page.next else { break };
            assert!(filter.before.is_none_or(|before| next < before), "each page leads further down");
            filter.before = Some(next);
        }
        assert_eq!(met, expected);
        assert!(pages >= 4, "{pages} pages over 3,604 jobs, a thousand for each");
    }
    // an action walks the same way
    let mut filter = JobFilter { tasks: vec!["rare".into()], looked_max: 1_000, ..all() };
    let mut changed = 0;
    loop {
        let done = bulk(f.store(), &BulkAction::Cancel, &filter, false).await.unwrap();
        changed += done.changed;
        let Some(next) = done.next else { break };
        filter.before = Some(next);
    }
    assert_eq!(changed, 4);
}
