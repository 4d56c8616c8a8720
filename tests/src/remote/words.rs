//! What pullers say, and what they are told.

use super::desk::{Desk, LEASE, of, options, snapshot};
use super::on_each_store;
use crate::store::fixture::{Fixture, json};
use crate::support::wait;
use futures::future::join_all;
use jiff::Timestamp;
use minium_bus::{Backing, Bus, LeasedJob, Options, Said, Saying, Word, Work};
use minium_notifier::{EnvelopeOptions, Journal, Relay, RelayOptions};
use minium_protocol::{ErrorCode, LeaseToken, Progress, State};
use minium_queue::RetryOptions;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

on_each_store! {
    every_kind_of_word_has_its_effect
    a_word_that_was_said_before_counts_once
    a_word_of_a_stranger_is_lease_lost
    a_cancelled_job_says_so
    words_about_one_job_stay_in_order
    words_of_many_go_together
    one_outcome_that_cannot_be_stored_hinders_nobody
    a_note_extends_as_long_as_the_lease_was_given
    a_cancellation_reaches_who_has_the_job
}

fn note(notes: &str, progress: Option<Progress>) -> Saying {
    Saying::Note { notes: serde_json::from_str(notes).unwrap(), progress, log: Vec::new() }
}

fn nack(retry: bool) -> Saying {
    Saying::Nack { error: "no disk".into(), retry }
}

async fn every_kind_of_word_has_its_effect(f: Fixture) {
    let desk = Desk::of(&f);
    let mut puller = desk.puller("p", &["t"], 10);
    let mut twice = of("t");
    twice.options.attempts = 2;
    f.store().enqueue(&[of("t"), twice, of("t")]).await.unwrap();
    let jobs = puller.jobs(3).await;
    let progress = Progress { percent: 40.0, text: Some("half".into()) };
    let said = desk.say(&jobs[0], note("{\"a\":1}", Some(progress.clone()))).await.unwrap();
    let Said::Until(until) = said else { panic!("{said:?}") };
    assert!(until > Timestamp::now());
    let job = f.job(jobs[0].id).await;
    assert_eq!((job.notes["a"].as_i64(), job.progress), (Some(1), Some(progress)));
    let extended = desk.say(&jobs[0], Saying::Extend { lease: LEASE * 2 }).await.unwrap();
    assert!(matches!(extended, Said::Until(later) if later > until), "{extended:?}");
    assert_eq!(desk.say(&jobs[0], Saying::Ack { result: None }).await, Ok(Said::Done));
    assert_eq!(desk.say(&jobs[1], nack(true)).await, Ok(Said::Done));
    assert_eq!(desk.say(&jobs[2], nack(false)).await, Ok(Said::Done));
    let ends = [f.job(jobs[0].id).await, f.job(jobs[1].id).await, f.job(jobs[2].id).await];
    let states: Vec<State> = ends.iter().map(|job| job.state).collect();
    assert_eq!(states, [State::Finished, State::Inactive, State::Failed], "one of them is tried again");
    assert_eq!(ends[2].error.as_deref(), Some("no disk"));
    desk.close().await;
}

async fn a_word_that_was_said_before_counts_once(f: Fixture) {
    let desk = Desk::of(&f);
    let mut puller = desk.puller("p", &["t"], 1);
    f.enqueue(of("t")).await;
    let job = puller.job().await;
    assert_eq!(desk.ack(&job, "[1]").await, Ok(Said::Done));
    f.entries().await;
    assert_eq!(desk.ack(&job, "[1]").await, Ok(Said::Done), "its answer was lost");
    f.wrote(&[]).await;
    assert_eq!(desk.ack(&job, "[2]").await, Err(ErrorCode::LeaseLost), "another word");
    f.wrote(&[(job.id, "task.late_result")]).await;
    desk.close().await;
}

async fn a_word_of_a_stranger_is_lease_lost(f: Fixture) {
    let desk = Desk::of(&f);
    let mut puller = desk.puller("p", &["t"], 1);
    f.enqueue(of("t")).await;
    let job = puller.job().await;
    let stranger = LeasedJob { lease: LeaseToken::fresh(), ..job.clone() };
    let nowhere = LeasedJob { id: job.id + 1_000, ..job.clone() };
    for wrong in [&stranger, &nowhere] {
        let all = [nack(true), note("{\"a\":1}", None), Saying::Extend { lease: LEASE }];
        for saying in all {
            assert_eq!(desk.say(wrong, saying).await, Err(ErrorCode::LeaseLost));
        }
    }
    assert!(f.job(job.id).await.notes.is_empty());
    assert_eq!(desk.ack(&job, "1").await, Ok(Said::Done));
    desk.close().await;
}

async fn a_cancelled_job_says_so(f: Fixture) {
    let desk = Desk::of(&f);
    let mut puller = desk.puller("p", &["t"], 1);
    f.enqueue(of("t")).await;
    let job = puller.job().await;
    f.store().cancel(job.id).await.unwrap();
    assert_eq!(desk.say(&job, note("{\"a\":1}", None)).await, Ok(Said::Cancelled));
    assert_eq!(desk.say(&job, Saying::Extend { lease: LEASE }).await, Ok(Said::Cancelled));
    assert_eq!(desk.ack(&job, "1").await, Err(ErrorCode::LeaseLost));
    assert!(f.job(job.id).await.notes.is_empty());
    desk.close().await;
}

async fn words_about_one_job_stay_in_order(f: Fixture) {
    let desk = Desk::of(&f);
    let mut puller = desk.puller("p", &["t"], 1);
    f.enqueue(of("t")).await;
    let job = puller.job().await;
    let word = |saying| Word { job: job.id, lease: job.lease, saying };
    let words = vec![
        word(note("{\"n\":1}", None)),
        word(Saying::Extend { lease: LEASE }),
        word(note("{\"n\":2}", None)),
        word(Saying::Ack { result: Some(json("7")) }),
        word(note("{\"n\":3}", None)),
        word(Saying::Ack { result: Some(json("7")) }),
    ];
    let answers = desk.work.say(words).await;
    let short: Vec<&str> = answers
        .iter()
        .map(|answer| match answer {
            Ok(Said::Until(_)) => "until",
            Ok(Said::Done) => "done",
            Ok(Said::Cancelled) => "cancelled",
            Err(problem) => problem.code.as_str(),
        })
        .collect();
    assert_eq!(short, ["until", "until", "until", "done", "lease_lost", "done"]);
    assert_eq!(f.job(job.id).await.notes["n"], 2);
    assert!(desk.work.say(vec![]).await.is_empty());
    desk.close().await;
}

async fn words_of_many_go_together(f: Fixture) {
    let desk = &Desk::of(&f);
    let mut puller = desk.puller("p", &["t"], 400);
    f.store().enqueue(&vec![of("t"); 400]).await.unwrap();
    let jobs = puller.jobs(400).await;
    let extend = |job| desk.say(job, Saying::Extend { lease: LEASE });
    assert!(join_all(jobs.iter().map(extend)).await.iter().all(|said| matches!(said, Ok(Said::Until(_)))));
    let answers = join_all(jobs.iter().map(|job| desk.ack(job, "1"))).await;
    assert!(answers.iter().all(|answer| *answer == Ok(Said::Done)));
    assert_eq!(f.store().stats().await.unwrap().finished, 400);
    let calls = [&desk.calls.extends, &desk.calls.exchanges].map(|calls| calls.load(Ordering::SeqCst));
    assert!(calls.iter().all(|calls| *calls < 100), "400 words of each kind made {calls:?} calls");
}

/// A constraint stands for whatever a database may have against a value.
async fn one_outcome_that_cannot_be_stored_hinders_nobody(f: Fixture) {
    let desk = &Desk::of(&f);
    let mut puller = desk.puller("p", &["t"], 20);
    f.store().enqueue(&vec![of("t"); 20]).await.unwrap();
    let jobs = puller.jobs(20).await;
    let poisoned = jobs[5].id;
    match &f.backend {
        minium_queue::Backend::Postgres(_) => {
            let sql = format!(
                "alter table minium.job add check (id <> {poisoned} or result is null or result::text <> '\"poison\"')"
            );
            f.client().await.batch_execute(&sql).await.unwrap();
        }
        minium_queue::Backend::Sqlite(store) => {
            let sql = format!(
                "create trigger poison before update on job when new.id = {poisoned} and new.result = '\"poison\"'
                 begin select raise(abort, 'no'); end"
            );
            store.call(move |conn| conn.execute_batch(&sql)).await.unwrap().unwrap();
        }
    }
    let words = jobs.iter().map(|job| Word {
        job: job.id,
        lease: job.lease,
        saying: Saying::Ack { result: Some(json("\"poison\"")) },
    });
    let answers = desk.work.say(words.collect()).await;
    for (job, answer) in jobs.iter().zip(&answers) {
        assert_eq!(answer.is_err(), job.id == poisoned, "{}: {answer:?}", job.id);
        if let Err(problem) = answer {
            assert_eq!((problem.code, problem.retryable), (ErrorCode::InvalidRequest, false));
        }
    }
    assert_eq!(f.store().stats().await.unwrap().finished, 19);
    assert_eq!(desk.say(&jobs[5], nack(false)).await, Ok(Said::Done), "it may say something else");
}

async fn a_note_extends_as_long_as_the_lease_was_given(f: Fixture) {
    let desk = Desk::of(&f);
    let mut puller = desk.puller_with("p", &["t"], 1, Duration::from_secs(5_000));
    f.enqueue(of("t")).await;
    let job = puller.job().await;
    let until = async |desk: &Desk| match desk.say(&job, note("{\"a\":1}", None)).await {
        Ok(Said::Until(until)) => until.duration_since(Timestamp::now()).as_secs(),
        other => panic!("{other:?}"),
    };
    assert!(until(&desk).await > 4_000);
    let other = Desk::on(f.second().await, options());
    assert!(until(&other).await <= 30, "another node does not know how long, and takes what is usual");
    desk.close().await;
    other.close().await;
}

async fn a_cancellation_reaches_who_has_the_job(f: Fixture) {
    let desk = Desk::of(&f);
    let journal = Journal::open(&f.backend, EnvelopeOptions::default());
    let backing = Backing { history: Some(journal.history()), ..Backing::default() };
    let bus = Bus::start(Options::default(), backing).unwrap();
    let stop = CancellationToken::new();
    let relayed = RelayOptions { work: Some(desk.work.clone()), ..RelayOptions::default() };
    let relay = Relay::start(&journal, bus.clone(), relayed, stop.clone());
    let mut puller = desk.puller("p", &["t"], 3);
    let bystander = desk.puller("bystander", &["other"], 3);
    f.store().enqueue(&vec![of("t"); 2]).await.unwrap();
    let jobs = puller.jobs(2).await;
    // by another node
    f.second().await.cancel(jobs[1].id).await.unwrap();
    wait::until("the cancellation", async || (!puller.told().is_empty()).then_some(())).await;
    assert_eq!(puller.told(), [jobs[1].id]);
    // cancelled and run again before anybody hears of it: the new run goes on
    desk.ack(&jobs[0], "1").await.unwrap();
    f.store().retry(jobs[1].id, &RetryOptions::default()).await.unwrap();
    let again = puller.job().await;
    assert_eq!((again.id, snapshot(&again).attempt), (jobs[1].id, 2));
    f.store().cancel(again.id).await.unwrap();
    wait::until("the second cancellation", async || (puller.told().len() > 1).then_some(())).await;
    assert_eq!(puller.told(), [jobs[1].id; 2]);
    assert!(bystander.told().is_empty());
    stop.cancel();
    relay.join().await;
    bus.shutdown(Duration::from_secs(1)).await;
    desk.close().await;
}
