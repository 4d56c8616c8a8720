//! What users put into jobs comes out as it went in.

use crate::store::fixture::*;
use minium_protocol::{EnqueueRequest, JSON_LEVELS_MAX, Progress, State};
use minium_queue::{Annotation, Claim, JobFilter, QueueError, Verdict, WorkerInfo};

/// Enqueues these arguments, claims the job and answers what came to the worker and what the snapshot holds.
async fn round_trip(f: &Fixture, args: &str) -> (String, String) {
    let leased = f.running(EnqueueRequest::new("t", json(args))).await;
    let kept = f.job(leased.id).await.args.get().to_owned();
    f.agree(&f.entries().await).await;
    (leased.args.get().to_owned(), kept)
}

async fn kept_as_it_came(f: &Fixture, args: &str) {
    let (claimed, kept) = round_trip(f, args).await;
    assert_eq!(claimed, args);
    assert_eq!(kept, args);
}

pub(crate) async fn unicode_survives(f: &Fixture) {
    let words = "grüße, 世界, \u{1F600}, \u{200D}, \u{FFFD}, e\u{301}";
    kept_as_it_came(f, &serde_json::to_string(&[words]).unwrap()).await;
    kept_as_it_came(f, r#"["\ud83d\ude00","\u00e4"]"#).await;
    let id = f
        .enqueue(with(|o| {
            o.key = Some(words.into());
            o.schedule = Some(words.into());
            o.notes.insert(words.into(), words.into());
        }))
        .await;
    let job = f.job(id).await;
    assert_eq!((job.key.as_deref(), job.schedule.as_deref()), (Some(words), Some(words)));
    assert_eq!(job.notes[words], words);
    f.agree(&f.entries().await).await;
}

pub(crate) async fn numbers_of_any_size_are_kept_as_they_came(f: &Fixture) {
    let numbers = "[123456789012345678901234567890,0.1000,1e300,-0,1E-7,3.141592653589793238462643383279,9007199254740993]";
    kept_as_it_came(f, numbers).await;
    let leased = f.running(plain()).await;
    f.accepted(finish(&leased, numbers)).await;
    assert_eq!(f.job(leased.id).await.result.unwrap().get(), numbers);
    f.agree(&f.entries().await).await;
}

fn nested(levels: usize) -> String {
    format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
}

pub(crate) async fn deep_json_is_kept(f: &Fixture) {
    kept_as_it_came(f, &nested(JSON_LEVELS_MAX)).await;
    let leased = f.running(plain()).await;
    f.accepted(finish(&leased, &nested(JSON_LEVELS_MAX))).await;
    assert_eq!(f.job(leased.id).await.result.unwrap().get(), nested(JSON_LEVELS_MAX));
}

pub(crate) async fn arguments_that_a_reader_would_choke_on_are_refused(f: &Fixture) {
    for args in [&nested(JSON_LEVELS_MAX + 1), "[1e400]", r#"["\ud800"]"#] {
        let answer = f.store().enqueue(&[EnqueueRequest::new("t", json(args))]).await;
        assert!(matches!(&answer, Err(QueueError::Invalid(words)) if words.contains("args")), "{answer:?}");
    }
    f.wrote(&[]).await;
}

pub(crate) async fn a_result_that_a_reader_would_choke_on_is_kept_as_text(f: &Fixture) {
    for result in [&nested(JSON_LEVELS_MAX + 1), &nested(20_000), "[1e400]", r#"["\ud800"]"#] {
        let leased = f.running(plain()).await;
        let outcome = finish(&leased, result);
        f.accepted(outcome.clone()).await;
        let kept = f.job(leased.id).await.result.unwrap();
        assert_eq!(serde_json::from_str::<String>(kept.get()).unwrap(), *result);
        assert_eq!(f.hand_in(&[outcome]).await, [Verdict::Repeated]);
    }
    f.agree(&f.entries().await).await;
}

pub(crate) async fn a_megabyte_is_kept(f: &Fixture) {
    kept_as_it_came(f, &format!("[\"{}\"]", "minium ".repeat(150_000))).await;
}

pub(crate) async fn escaped_nul_in_arguments_is_kept(f: &Fixture) {
    kept_as_it_came(f, r#"["a\u0000b"]"#).await;
    let leased = f.running(plain()).await;
    f.accepted(finish(&leased, r#"{"\u0000":"\u0000"}"#)).await;
    assert_eq!(f.job(leased.id).await.result.unwrap().get(), r#"{"\u0000":"\u0000"}"#);
    f.agree(&f.entries().await).await;
}

pub(crate) async fn line_breaks_between_tokens_become_blanks(f: &Fixture) {
    let (claimed, kept) = round_trip(f, "[1,\r\n\t\"a\\nb\",\n2]").await;
    assert_eq!(claimed, "[1,  \t\"a\\nb\", 2]");
    assert_eq!(kept, claimed);
    let leased = f.running(plain()).await;
    f.accepted(finish(&leased, "{\n\"a\":1}")).await;
    let entries = f.entries().await;
    assert_eq!(f.job(leased.id).await.result.unwrap().get(), "{ \"a\":1}");
    assert!(entries.iter().all(|e| !e.data.contains(['\n', '\r'])), "an event is one line");
}

pub(crate) async fn a_nul_in_an_error_is_replaced(f: &Fixture) {
    let leased = f.running(plain()).await;
    let outcome = fail(&leased, "a\0b");
    f.accepted(outcome.clone()).await;
    assert_eq!(f.job(leased.id).await.error.as_deref(), Some("a\u{fffd}b"));
    assert_eq!(f.hand_in(&[outcome]).await, [Verdict::Repeated]);
}

pub(crate) async fn a_nul_in_a_note_is_replaced(f: &Fixture) {
    let notes = |text: &str| serde_json::from_str(text).unwrap();
    let leased = f.running(with(|o| o.notes = notes(r#"{"a\u0000":"\u0000"}"#))).await;
    f.note(leased.id, Some(leased.lease), r#"{"b":["\u0000"],"a\u0000":null,"c\u0000":1}"#).await.unwrap();
    let told = serde_json::Value::Object(f.job(leased.id).await.notes);
    assert_eq!(told, serde_json::json!({"b": ["\u{fffd}"], "c\u{fffd}": 1}));
    let text = Some("\0".to_owned());
    let progress =
        Annotation { progress: Some(Progress { percent: 1.0, text: text.clone() }), ..Annotation::default() };
    f.store().annotate(leased.id, Some(leased.lease), &progress).await.unwrap();
    assert_eq!(f.job(leased.id).await.progress.unwrap().text, text);
    f.agree(&f.entries().await).await;
}

pub(crate) async fn a_nul_in_a_question_finds_nothing(f: &Fixture) {
    f.enqueue(plain()).await;
    let nul = || vec!["\0".to_owned()];
    for filter in [
        JobFilter { tasks: nul(), ..JobFilter::default() },
        JobFilter { queues: nul(), ..JobFilter::default() },
        JobFilter { notes: nul(), ..JobFilter::default() },
    ] {
        assert!(f.store().list(&filter).await.unwrap().jobs.is_empty());
    }
    for asked in [Claim { queues: nul(), ..claim(1) }, Claim { tasks: Some(nul()), ..claim(1) }] {
        let answer = f.store().exchange(&[], &asked).await;
        assert!(matches!(answer, Err(QueueError::Invalid(_))), "{answer:?}");
    }
    f.store().register_worker(&WorkerInfo::new("a\0b", 1)).await.unwrap();
    let worker = minium_protocol::WorkerRef { host: "a\0b".into(), ..worker() };
    let job = f.exchange(&[], Claim { worker: worker.clone(), ..claim(1) }).await.jobs.remove(0);
    assert_eq!(f.job(job.id).await.worker, Some(worker));
    for refused in [with(|o| o.schedule = Some("\0".into())), keyed("\0")] {
        assert!(matches!(f.store().enqueue(&[refused]).await, Err(QueueError::Invalid(_))));
    }
}

pub(crate) async fn results_and_errors_of_any_kind_are_kept(f: &Fixture) {
    for result in ["null", "false", "0", "\"\"", "[]", "{}", "\"null\""] {
        let id = f.enqueue(plain()).await;
        let leased = f.claim_one().await;
        f.accepted(finish(&leased, result)).await;
        let snapshot = f.view(id).await.snapshot;
        assert!(
            snapshot.get().contains(&format!("\"result\":{result},\"error\":null")),
            "{}",
            snapshot.get()
        );
    }
    for error in ["", "null", "it's \"quoted\"\n\tand long: ", &"x".repeat(100_000)] {
        let leased = f.running(plain()).await;
        f.accepted(fail(&leased, error)).await;
        let job = f.job(leased.id).await;
        assert_eq!((job.state, job.error.as_deref()), (State::Failed, Some(error)));
    }
    f.agree(&f.entries().await).await;
}

pub(crate) async fn quotes_and_control_characters_are_escaped(f: &Fixture) {
    let odd: String = (1..=0x20u8).map(char::from).chain("\"\\/'%{}\u{7f}\u{80}\u{2028}".chars()).collect();
    let id = f.enqueue(with(|o| (o.key, o.schedule) = (Some(odd.clone()), Some(odd.clone())))).await;
    let mut leased = f.claim(1).await;
    f.accepted(fail(&leased.remove(0), &odd)).await;
    let job = f.job(id).await;
    assert_eq!((job.key, job.schedule, job.error), (Some(odd.clone()), Some(odd.clone()), Some(odd)));
    f.agree(&f.entries().await).await;
}
