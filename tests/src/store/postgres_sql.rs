//! What SQL callers may ask for and what they are told; and rows that somebody wrote by hand.

use super::fixture::*;
use minium_queue::Pull;
use std::time::Duration;

/// Calls `minium.enqueue`.
pub(super) async fn enqueue_by_sql(
    client: &tokio_postgres::Client,
    task: &str,
    options: &str,
) -> Result<i64, tokio_postgres::Error> {
    let sql = "select minium.enqueue($1, '[\"x\"]', $2::text::jsonb)";
    client.query_one(sql, &[&task, &options]).await.map(|row| row.get(0))
}

#[tokio::test]
async fn sql_takes_every_option_in_both_forms() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    // times must not depend on where the caller lives
    client.batch_execute("set timezone = 'Pacific/Kiritimati'; set datestyle = 'German'").await.unwrap();
    let parent = f.running(plain()).await.id;
    let options = format!(
        r#"{{"attempts":3,"delay":"5m","expire":90.5,"lax":true,"notes":{{"a":1}},"parents":[{parent},{parent}],
            "priority":-7,"queue":"slow/one","key":"k","timeout":"250ms","backoff":2,"origin":{parent}}}"#
    );
    let id = enqueue_by_sql(&client, "a/b", &options).await.unwrap();
    let job = f.job(id).await;
    assert_eq!((job.task.as_str(), job.queue.as_str(), job.priority), ("a/b", "slow/one", -7));
    assert_eq!((job.attempts, job.lax, job.key.as_deref()), (3, true, Some("k")));
    assert_eq!((job.parents, job.origin, job.args.get()), (vec![parent], Some(parent), "[\"x\"]"));
    assert_eq!(serde_json::Value::from(job.notes), serde_json::json!({"a": 1}));
    assert_eq!(job.delayed.duration_since(job.created).as_secs(), 300);
    assert_eq!(job.expires.unwrap().duration_since(job.created).as_millis(), 90_500);
    let row = client.query_one("select timeout_us, backoff_us from minium.job where id = $1", &[&id]).await;
    let row = row.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (250_000, 2_000_000));
    assert_eq!(enqueue_by_sql(&client, "a/b", r#"{"key":"k"}"#).await.unwrap(), id, "the key is held");
    let plain = enqueue_by_sql(&client, "a/b", r#"{"delay":null,"queue":null}"#).await.unwrap();
    assert_eq!(f.job(plain).await.queue, "default");
    f.entries().await;
    let row = client.query_one("select minium.enqueue('t', '{\"y\": 1}')", &[]).await.unwrap();
    f.wrote(&[(row.get(0), "task.enqueue")]).await;
}

#[tokio::test]
async fn sql_is_told_which_option_is_wrong() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    let long = "x".repeat(231);
    let deep = vec!["a"; 15].join("/");
    let cases = [
        ("t", r#"{"prority":1}"#, "prority"),
        ("t", r#"{"schedule":"s"}"#, "schedule"),
        ("t", "[]", "options"),
        ("a b", "{}", "task"),
        ("", "{}", "task"),
        ("a//b", "{}", "task"),
        ("a/../b", "{}", "task"),
        ("a\n", "{}", "task"),
        (&long, "{}", "task"),
        (&deep, "{}", "task"),
        ("t", r#"{"queue":"a b"}"#, "queue"),
        ("t", r#"{"queue":7}"#, "queue"),
        ("t", r#"{"attempts":0}"#, "attempts"),
        ("t", r#"{"attempts":1001}"#, "attempts"),
        ("t", r#"{"attempts":1.5}"#, "attempts"),
        ("t", r#"{"attempts":"2"}"#, "attempts"),
        ("t", r#"{"priority":-1001}"#, "priority"),
        ("t", r#"{"delay":"soon"}"#, "delay"),
        ("t", r#"{"delay":-1}"#, "delay"),
        ("t", r#"{"expire":"9999999d"}"#, "expire"),
        ("t", r#"{"timeout":[1]}"#, "timeout"),
        ("t", r#"{"backoff":true}"#, "backoff"),
        ("t", r#"{"lax":"yes"}"#, "lax"),
        ("t", r#"{"notes":[]}"#, "notes"),
        ("t", r#"{"notes":{"x":1e400}}"#, "double"),
        ("t", &format!(r#"{{"notes":{{"x":{}}}}}"#, nested(100)), "100 levels"),
        ("t", r#"{"parents":["a"]}"#, "parents"),
        ("t", r#"{"parents":1}"#, "parents"),
        ("t", r#"{"key":""}"#, "key"),
        ("t", r#"{"origin":"x"}"#, "origin"),
    ];
    for (task, options, word) in cases {
        let error = enqueue_by_sql(&client, task, options).await.unwrap_err();
        let error = error.as_db_error().unwrap_or_else(|| panic!("{task} {options}: {error}"));
        assert!(error.message().contains(word), "{task} {options}: {error}");
        assert_eq!(error.code().code(), "22023", "{task} {options}: {error}");
    }
    f.wrote(&[]).await;
}

#[tokio::test]
async fn a_role_with_nothing_but_enqueue_can_enqueue_and_nothing_else() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    let role = format!("app_{}", uuid::Uuid::new_v4().simple());
    let make = format!("create role {role}; grant usage on schema minium to {role}; set role {role}");
    client.batch_execute(&make).await.unwrap();
    let refused = enqueue_by_sql(&client, "t", "{}").await.unwrap_err();
    assert_eq!(refused.code().map(|c| c.code()), Some("42501"), "nobody has it unasked");
    let grant = format!("reset role; grant execute on function minium.enqueue to {role}; set role {role}");
    client.batch_execute(&grant).await.unwrap();
    let id = enqueue_by_sql(&client, "t", "{}").await.unwrap();
    for forbidden in [
        "select * from minium.job",
        "update minium.job set state = 'finished'",
        "insert into minium.entry (topic, type, subject, data) values ('t', 't', 't', '{}')",
        "delete from minium.edge",
        "select minium.drop_jobs('{1}', 'task.removed')",
        "select minium.settle('{1}')",
    ] {
        let error = client.batch_execute(forbidden).await.unwrap_err();
        assert_eq!(error.code().map(|c| c.code()), Some("42501"), "{forbidden}: {error}");
    }
    client.batch_execute(&format!("reset role; drop owned by {role}; drop role {role}")).await.unwrap();
    assert_eq!(f.claim_one().await.id, id);
}

#[tokio::test]
async fn the_view_shows_whole_jobs() {
    let f = Fixture::postgres().await;
    let blocker = f.running(plain()).await.id;
    let child = f.enqueue(after(&[blocker])).await;
    let sql = "select id, task, state, args->>0, phase from minium.jobs order by id";
    let rows = f.client().await.query(sql, &[]).await.unwrap();
    let seen: Vec<(i64, String, Option<String>)> =
        rows.iter().map(|r| (r.get(0), r.get(2), r.get(4))).collect();
    assert_eq!(seen, [(blocker, "active".into(), None), (child, "inactive".into(), Some("blocked".into()))]);
}

/// What is hidden is hidden whoever enqueues, and in the view that people report from.
#[tokio::test]
async fn arguments_enqueued_by_sql_are_hidden_as_well() {
    let f = Fixture::postgres().await;
    let mask = minium_queue::ArgsMask { task: "t".into(), paths: vec![vec!["0".into()]] };
    f.store().put_masks(&[mask]).await.unwrap();
    let id = enqueue_by_sql(&f.client().await, "t", "{}").await.unwrap();
    assert_eq!(f.job(id).await.args.get(), r#"["***"]"#);
    let seen = "select args::text from minium.jobs where id = $1";
    let seen: String = f.client().await.query_one(seen, &[&id]).await.unwrap().get(0);
    assert_eq!(seen, r#"["***"]"#);
    assert_eq!(f.claim_one().await.args.get(), r#"["x"]"#);
}

/// A list in a list, so many.
fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

/// Over HTTP they are refused as well.
#[tokio::test]
async fn json_that_readers_refuse_is_refused_from_sql() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    let enqueue = "select minium.enqueue('t', $1::text::jsonb)";
    let copy = "insert into minium.bulk (task, args) values ('t', $1::text::jsonb)";
    let (deep, low) = (nested(101), format!("[{}]", "-1".to_owned() + &"0".repeat(309)));
    for (args, word) in [(&deep, "100 levels"), (&"[1e309]".to_owned(), "double"), (&low, "double")] {
        for sql in [enqueue, copy] {
            let error = client.execute(sql, &[args]).await.unwrap_err();
            let error = error.as_db_error().unwrap_or_else(|| panic!("{args}: {error}"));
            assert!(error.message().contains(word) && error.message().contains("args"), "{args}: {error}");
            assert_eq!(error.code().code(), "22023");
        }
    }
    f.wrote(&[]).await;
    // what is just within the bounds is read by everybody
    for sql in [enqueue, copy] {
        client.execute(sql, &[&nested(100)]).await.unwrap();
        client.execute(sql, &[&"[1e308]"]).await.unwrap();
    }
    assert_eq!(f.claim(10).await.len(), 4);
}

/// Rows written by hand, past every check, cost nobody else a job.
#[tokio::test]
async fn notes_that_cannot_be_read_hold_nobody_up() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    let write =
        "insert into minium.job (task, args, notes) values ('t', '[]', '{\"x\": 1e400}') returning id";
    let by_hand = async || client.query_one(write, &[]).await.unwrap().get::<_, i64>(0);
    let (first, good) = (by_hand().await, f.enqueue(plain()).await);
    let claimed = f.claim(10).await;
    assert_eq!(ids(&claimed), [first, good]);
    assert!(claimed[0].notes.is_empty());
    let (second, good) = (by_hand().await, f.enqueue(with(|o| o.priority = -1)).await);
    let pull = Pull {
        queue: "default".into(),
        tasks: vec!["t".into(), "task".into()],
        lease: Duration::from_secs(30),
        workers: vec![worker(); 2],
    };
    let pulled = f.store().pull(&[pull]).await.unwrap();
    let mut pulled: Vec<i64> = pulled.iter().map(|p| p.job.id).collect();
    pulled.sort_unstable();
    assert_eq!(pulled, [second, good]);
}
