//! Jobs by COPY, which only PostgreSQL has: anybody's lines, in anybody's transaction.

use super::fixture::*;
use super::postgres_only::postgres;
use crate::support::postgres::connect;
use futures::{SinkExt, stream};
use minium_protocol::{EnqueueRequest, Phase, Unique};
use minium_queue::{DatabaseUrl, QueueError};
use serde_json::json as value;
use std::io::Cursor;
use std::pin::pin;
use tokio_postgres::Client;

/// Copies lines as a program would that knows no Rust.
async fn copy(client: &Client, lines: &str) -> Result<u64, tokio_postgres::Error> {
    let sink = client.copy_in("copy minium.bulk (task, args, options) from stdin").await?;
    let mut sink = pin!(sink);
    sink.send(Cursor::new(lines.as_bytes().to_vec())).await?;
    sink.finish().await
}

fn message(error: &tokio_postgres::Error) -> String {
    let db = error.as_db_error().unwrap();
    format!("{} {}", db.message(), db.where_().unwrap_or_default())
}

/// Q-34: a line is a call of `minium.enqueue`.
#[tokio::test]
async fn a_copied_line_is_a_job_like_any_other() {
    let f = Fixture::postgres().await;
    let parent = f.running(plain()).await;
    f.entries().await;
    let client = f.client().await;
    let lines = format!(
        "a/b\t[1]\t{{\"priority\":5,\"attempts\":3,\"notes\":{{\"who\":\"me\"}},\"key\":\"k\",\"origin\":{0}}}\n\
         t\t[]\t{{\"parents\":[{0}]}}\n\
         a/b\t[2]\t{{\"key\":\"k\"}}\n\
         t\t{{\"text\":\"a\\\\tb\"}}\t{{\"delay\":\"5m\"}}\n",
        parent.id
    );
    assert_eq!(copy(&client, &lines).await.unwrap(), 4);
    assert_eq!(f.count("bulk").await, 0, "it keeps nothing");
    let made: Vec<i64> = f.entries().await.iter().map(|entry| entry.id()).collect();
    let [first, child, later] = made[..] else { panic!("the key was held: {made:?}") };
    let job = f.job(first).await;
    assert_eq!((job.task.as_str(), job.args.get(), job.priority, job.attempts), ("a/b", "[1]", 5, 3));
    assert_eq!((value!(job.notes), job.key.as_deref()), (value!({ "who": "me" }), Some("k")));
    assert_eq!(job.origin, Some(parent.id));
    assert_eq!(f.phase(child).await, Some(Phase::Blocked));
    assert_eq!(f.phase(later).await, Some(Phase::Delayed));
    assert_eq!(f.job(later).await.args.get(), r#"{"text": "a\tb"}"#);
    f.accepted(finish(&parent, "1")).await;
    assert_eq!(ids(&f.claim(9).await), [first, child]);
}

#[tokio::test]
async fn what_is_copied_is_there_when_its_transaction_commits() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    client.batch_execute("begin").await.unwrap();
    copy(&client, "t\t[]\t{}\n").await.unwrap();
    client.batch_execute("rollback").await.unwrap();
    f.nothing_to_claim().await;
    client.batch_execute("begin").await.unwrap();
    copy(&client, "t\t[]\t{}\n").await.unwrap();
    client.batch_execute("insert into minium.bulk (task) values ('t'), ('t')").await.unwrap();
    client.batch_execute("commit").await.unwrap();
    assert_eq!(f.claim(9).await.len(), 3);
}

#[tokio::test]
async fn thousands_are_copied_in_their_order() {
    let f = Fixture::postgres().await;
    let lines: String = (0..2_345).map(|n| format!("t\t[{n}]\t{{}}\n")).collect();
    assert_eq!(copy(&f.client().await, &lines).await.unwrap(), 2_345);
    let mut seen = Vec::new();
    while seen.len() < 2_345 {
        let jobs = f.claim(500).await;
        assert!(!jobs.is_empty(), "{} came", seen.len());
        seen.extend(jobs.iter().map(|job| job.args.get().to_owned()));
    }
    assert!(seen.iter().enumerate().all(|(n, args)| *args == format!("[{n}]")), "in the order of the lines");
    assert_eq!(f.store().stats().await.unwrap().active, 2_345);
}

/// Q-34: all or none, and the line is named.
#[tokio::test]
async fn a_line_that_breaks_a_rule_is_named_and_nothing_is_enqueued() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    for (bad, words) in [
        ("a b\t[]\t{}", "line 3: task is"),
        ("t\t[]\t{\"colour\":1}", "line 3: there is no option 'colour'"),
        ("t\t[]\t{\"attempts\":0}", "line 3: attempts is 0"),
        ("t\t[]\t{\"when\":\"failure\"}", "line 3: a job that runs on a failure"),
        ("t\t[]\t{\"unique\":\"5m\"}", "line 3: unique goes with a key"),
        ("t\t[]\t5", "line 3: options must be an object"),
        ("t\t[]\t{\"delay\":\"soon\"}", "line 3: delay is"),
        ("t\t[\t{}", "line 3, column args"),
        ("\\N\t[]\t{}", "line 3"),
    ] {
        let error =
            copy(&client, &format!("t\t[]\t{{}}\nt\t[]\t{{}}\n{bad}\nt\t[]\t{{}}\n")).await.unwrap_err();
        assert!(message(&error).contains(words), "{bad}: {}", message(&error));
    }
    f.wrote(&[]).await;
    assert_eq!(f.count("bulk").await, 0);
}

/// Q-34: what a role needs.
#[tokio::test]
async fn a_role_that_may_only_write_the_table_enqueues_and_sees_nothing() {
    let f = Fixture::postgres().await;
    let owner = f.client().await;
    let role = format!("copier_{}", uuid::Uuid::new_v4().simple());
    let grants = format!(
        "create role {role} login; grant usage on schema minium to {role}; grant insert on minium.bulk to {role}"
    );
    owner.batch_execute(&grants).await.unwrap();
    let DatabaseUrl::Postgres(url) = f.url() else { panic!("not on PostgreSQL") };
    let client = connect(url).await.unwrap();
    client.batch_execute(&format!("set role {role}")).await.unwrap();
    copy(&client, "t\t[7]\t{}\n").await.unwrap();
    for forbidden in [
        "select * from minium.bulk",
        "select * from minium.job",
        "select minium.read_request('t', '{}')",
        "select minium.enqueue_requests('{}')",
    ] {
        let error = client.batch_execute(forbidden).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{forbidden}");
    }
    client.batch_execute("reset role").await.unwrap();
    owner.batch_execute(&format!("drop owned by {role}; drop role {role}")).await.unwrap();
    assert_eq!(f.claim_one().await.args.get(), "[7]");
}

#[tokio::test]
async fn a_stream_of_jobs_is_copied() {
    let f = Fixture::postgres().await;
    let parent = f.running(plain()).await;
    let full = with(|o| {
        (o.queue, o.priority, o.attempts) = ("other".into(), -3, 7);
        (o.delay, o.expire) = (seconds(100), Some(seconds(500)));
        (o.timeout, o.backoff) = (Some(seconds(9)), Some(seconds(8)));
        (o.parents, o.lax, o.origin) = (vec![parent.id, 999_999], true, Some(parent.id));
        (o.key, o.unique) = (Some("k\t\\".into()), Unique::For(seconds(77)));
        o.notes.insert("tab\t".into(), "line\n".into());
    });
    // the same, enqueued in the usual way
    let usual = f.enqueue(EnqueueRequest { task: "u".into(), ..full.clone() }).await;
    let jobs = vec![plain(); 1_500].into_iter().chain([full]);
    f.entries().await;
    assert_eq!(postgres(&f).copy(stream::iter(jobs)).await.unwrap(), 1_501);
    let entries = f.entries().await;
    assert_eq!(entries.len(), 1_501);
    let mut copied: serde_json::Value = serde_json::from_str(&entries[1_500].data).unwrap();
    let mut usual: serde_json::Value = serde_json::from_str(f.view(usual).await.snapshot.get()).unwrap();
    for job in [&mut copied, &mut usual] {
        let times =
            ["created", "delayed", "expires"].map(|name| job[name].as_str().unwrap().parse().unwrap());
        let [created, delayed, expires]: [jiff::Timestamp; 3] = times;
        assert_eq!(
            (delayed.duration_since(created).as_secs(), expires.duration_since(created).as_secs()),
            (100, 500)
        );
        for name in ["id", "task", "created", "delayed", "expires"] {
            job.as_object_mut().unwrap().remove(name);
        }
    }
    assert_eq!(copied, usual);
    assert_eq!(f.store().stats().await.unwrap().inactive, 1_502);
}

#[tokio::test]
async fn a_stream_with_a_job_that_breaks_a_rule_enqueues_nothing() {
    let f = Fixture::postgres().await;
    let after = with(|o| o.after = vec![0]);
    let nul = EnqueueRequest::new("t", json(r#"["\u0000"]"#));
    let wrong = with(|o| o.priority = 5_000);
    for (bad, words) in
        [(after, "line 3: a job that is copied"), (nul, "line 3: "), (wrong, "line 3: priority")]
    {
        let jobs = [plain(), plain(), bad, plain()];
        let error = postgres(&f).copy(stream::iter(jobs)).await.unwrap_err();
        assert!(matches!(&error, QueueError::Invalid(w) if w.starts_with(words)), "{words}: {error:?}");
    }
    f.wrote(&[]).await;
    assert_eq!(postgres(&f).copy(stream::iter([plain()])).await.unwrap(), 1, "the connections are well");
    assert_eq!(f.claim_one().await.id, f.entries().await[0].id());
}
