//! What must not go wrong: Minion's role has no rights here, its tables may change and go, and its names may be anything.

use super::mapping::{assert_says, row};
use super::minion::Minion;
use crate::support::wait;
use minium_protocol::{Job, Topic};
use serde_json::json;
use tokio_postgres::AsyncMessage;

/// M-4: the role that Minion connects as has no rights in our schema, and needs none.
#[tokio::test]
async fn minions_role_needs_no_rights() {
    let mut minion = Minion::attached().await;
    let sql = "select has_schema_privilege('minion', 'minium', 'usage'),
                      has_function_privilege('minion', 'minium.minion_inserted()', 'execute'),
                      (select tableowner::text from pg_tables where tablename = 'minion_jobs')";
    let rights = minion.admin.query_one(sql, &[]).await.unwrap();
    assert_eq!((rights.get::<_, bool>(0), rights.get::<_, bool>(1)), (false, false));
    assert_eq!(rights.get::<_, &str>(2), "minion", "it works as itself");
    let id = minion.enqueue("add", json!({})).await;
    minion.order(json!({ "do": "perform" })).await;
    minion.expect(&[("task.enqueue", id), ("task.dequeue", id), ("task.finished", id)]).await;
}

/// M-2: the members of the snapshot, and their order, are those of our own jobs.
#[tokio::test]
async fn the_snapshot_has_the_members_of_ours() {
    let mut minion = Minion::attached().await;
    minion.order(json!({ "do": "register" })).await;
    let id = minion.enqueue("steered", json!({})).await;
    minion.dequeue(id).await;
    minion.sql("select minium.enqueue('ours', '[]')").await;
    let entries = minion.entries().await;
    let members = async |text: &str| -> Vec<String> {
        let sql = "select array_agg(k) from json_object_keys($1::text::json) k";
        minion.admin.query_one(sql, &[&text]).await.unwrap().get(0)
    };
    let (theirs, ours) = (&entries[1], entries.iter().find(|e| e.source.is_none()).unwrap());
    assert_eq!(members(&theirs.text).await, members(&ours.text).await);
    assert!(!theirs.text.contains('\n'), "an event is one line");
    // clients read them as one
    let job: Job = serde_json::from_str(&theirs.text).unwrap();
    assert_eq!((job.id, job.attempt, job.worker.unwrap().pid > 0), (id, 1, true));
    minion.order(json!({ "do": "unregister" })).await;
    minion.order(json!({ "do": "fail", "id": id, "result": "x" })).await;
    let job: Job = serde_json::from_str(&minion.entries().await[0].text).unwrap();
    assert_eq!((job.worker.unwrap().host.as_str(), job.error.as_deref()), ("", Some("x")));
}

/// The name of a task from the part of the topic that stands for it.
fn unescaped(part: &str) -> String {
    if part == "~" {
        return String::new();
    }
    let (first, rest) = part.split_once('~').map_or((part, None), |(first, rest)| (first, Some(rest)));
    let mut bytes = first.as_bytes().to_vec();
    for piece in rest.into_iter().flat_map(|rest| rest.split('~')) {
        bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

/// M-5: whatever a task is called, its events have a topic, and all but the longest can be read back from it.
#[tokio::test]
async fn any_name_of_a_task_has_a_topic() {
    let mut minion = Minion::attached().await;
    let many = ["a"; 20].join("/");
    let named = [
        ("add", "add"),
        ("a/b", "a/b"),
        ("My::Task-2.x@y", "My::Task-2.x@y"),
        (".hidden", ".hidden"),
        ("My Täsk", "My~20T~C3~A4sk"),
        ("n☃/x", "n~E2~98~83/x"),
        ("~", "~7E"),
        ("a~20b", "a~7E20b"),
        ("a//b", "a~2F~2Fb"),
        ("/", "~2F"),
        ("..", "~2E~2E"),
        ("a/../b", "a~2F..~2Fb"),
        ("", "~"),
        (&many, &many.replace('/', "~2F")),
    ];
    for (name, part) in named {
        let id = minion.enqueue(name, json!({})).await;
        let entries = minion.expect(&[("task.enqueue", id)]).await;
        assert_eq!(entries[0].topic, format!("task/{part}/{id}"));
        entries[0].topic.parse::<Topic>().unwrap_or_else(|e| panic!("{name:?}: {e}"));
        assert_eq!(entries[0].data["task"], name);
        assert_eq!(unescaped(part), name);
    }
    for name in ["x".repeat(129), "x".repeat(300), "☃".repeat(100), vec!["x".repeat(100); 3].join("/")] {
        let id = minion.enqueue(&name, json!({})).await;
        let entries = minion.expect(&[("task.enqueue", id)]).await;
        entries[0].topic.parse::<Topic>().unwrap_or_else(|e| panic!("{name:?}: {e}"));
        let sql = "select md5($1)";
        let md5: String = minion.admin.query_one(sql, &[&name]).await.unwrap().get(0);
        assert!(entries[0].topic.ends_with(&format!("~~{md5}/{id}")), "{}", entries[0].topic);
        assert_eq!(entries[0].data["task"], name);
    }
}

/// M-2: what a schema of ours hides of a task's arguments is hidden here too; Minion itself sees it.
#[tokio::test]
async fn arguments_that_are_hidden_stay_so() {
    let mut minion = Minion::attached().await;
    minion.sql(r#"insert into minium.mask (task, paths) values ('secret', '[["1"]]')"#).await;
    for (task, shown) in [("secret", json!([1, "***"])), ("steered", json!([1, "é"]))] {
        let id = minion.enqueue(task, json!({})).await;
        let entries = minion.expect(&[("task.enqueue", id)]).await;
        assert_eq!(entries[0].data["args"], shown);
        assert_eq!(row(&minion, id).await["args"], json!([1, "é"]));
    }
}

/// M-1: numbers at their ends, and times that are none, are events as well.
#[tokio::test]
async fn what_is_at_the_end_of_all_numbers() {
    let mut minion = Minion::attached().await;
    let id = minion.enqueue("steered", json!({ "attempts": i32::MAX, "priority": i32::MIN })).await;
    minion
        .sql("update minion_jobs set retries = 2147483647, attempts = -5, state = 'active', started = now()")
        .await;
    minion
        .sql("update minion_jobs set delayed = 'infinity', expires = '-infinity', attempts = 2147483647")
        .await;
    minion.sql("update minion_jobs set result = '{\"a\": 1}', state = 'failed', queue = ''").await;
    let found = minion
        .expect(&[("task.enqueue", id), ("task.dequeue", id), ("task.changed", id), ("task.failed", id)])
        .await;
    assert_eq!((&found[1].data["attempt"], &found[1].data["attempts"]), (&json!(i32::MAX), &json!(i32::MAX)));
    let ends = ["9999-12-30T00:00:00.000000Z", "0001-01-01T00:00:00.000000Z"];
    assert_eq!([&found[2].data["delayed"], &found[2].data["expires"]], ends);
    serde_json::from_str::<Job>(&found[2].text).unwrap();
    assert_eq!(found[3].data["error"], r#"{"a": 1}"#);
}

/// A plan that was made for one row must not be used for many: one statement that changes very many jobs does not
/// compare each with each. (Without merge joins, as a planner may be set or minded, one row would be looked up by a nested
/// loop; with many this would take minutes, and the connection's limit ends it.)
#[tokio::test]
async fn one_statement_may_change_very_many_jobs() {
    let mut minion = Minion::attached().await;
    let id = minion.enqueue("steered", json!({})).await;
    let jobs = 30_000;
    minion
        .sql(&format!(
            "set statement_timeout = '30s'; set enable_mergejoin = off;
             update minion_jobs set priority = 1;
             insert into minion_jobs (args, delayed, priority, task) select '[]', now(), 0, 'steered' from generate_series(2, {jobs});
             update minion_jobs set priority = 2;
             delete from minion_jobs where id > 1"
        ))
        .await;
    let sql = "select type, count(*), count(distinct subject) from minium.entry group by type order by type";
    let counted: Vec<(String, i64, i64)> =
        minion.admin.query(sql, &[]).await.unwrap().iter().map(|r| (r.get(0), r.get(1), r.get(2))).collect();
    let expected = [
        ("task.changed", jobs + 1, jobs),
        ("task.enqueue", jobs, jobs),
        ("task.removed", jobs - 1, jobs - 1),
    ];
    assert_eq!(counted, expected.map(|(kind, n, distinct)| (kind.to_owned(), n, distinct)));
    let last = row(&minion, id).await;
    assert_eq!(last["priority"], 2);
}

/// M-6: Minion's own migrations go on, in both directions, and attaching again makes whole what they took.
#[tokio::test]
async fn minions_tables_may_change_and_go() {
    let mut minion = Minion::attached().await;
    let id = minion.enqueue("steered", json!({})).await;
    // as later versions do, while this session has its plans already
    minion
        .sql(
            "create table minion_schedules (id bigserial primary key);
              alter table minion_jobs add column later text not null default 'x';
              create index on minion_jobs (finished, state);
              drop index minion_jobs_parents_idx",
        )
        .await;
    minion.order(json!({ "do": "register" })).await;
    minion.dequeue(id).await;
    let found = minion.expect(&[("task.enqueue", id), ("task.dequeue", id)]).await;
    assert_says(&found[1], &row(&minion, id).await);
    // nothing of ours holds Minion's tables and types
    minion.order(json!({ "do": "down" })).await;
    assert_eq!(minion.attach(&["--check"]).await.status.code(), Some(3));
    let mut again = Minion::start_again(minion).await;
    let check = again.attach(&["--check"]).await;
    assert_eq!(check.status.code(), Some(7), "{check:?}");
    assert!(String::from_utf8_lossy(&check.stdout).contains("dropped and made anew"), "{check:?}");
    assert!(again.attach(&[]).await.status.success());
    let id = again.enqueue("steered", json!({})).await;
    let found = again.expect(&[("task.enqueue", id)]).await;
    assert_eq!(found[0].source.as_deref(), Some("/minion/app"), "it keeps its name");
}

/// M-1: who reads the journal, and has asked for it, is woken at the commit; not by what changes nothing.
#[tokio::test]
async fn the_reader_of_the_journal_is_woken() {
    let mut minion = Minion::attached().await;
    let (client, mut connection) =
        tokio_postgres::connect(minion.database.url(), tokio_postgres::NoTls).await.unwrap();
    let (heard, mut ears) = tokio::sync::mpsc::unbounded_channel();
    let listening = tokio::spawn(async move {
        while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(said) = message.unwrap() {
                heard.send(format!("{}{}", said.channel(), said.payload())).ok();
            }
        }
    });
    client.batch_execute("listen minium_journal; listen done").await.unwrap();
    minion.sql("update minium.wake set armed = true where name = 'journal'").await;
    let id = minion.enqueue("steered", json!({})).await;
    assert_eq!(wait::within("a notification", ears.recv()).await.as_deref(), Some("minium_journal"));
    minion
        .sql("update minion_jobs set priority = 1 where id = 0; update minion_jobs set id = id; notify done")
        .await;
    assert_eq!(wait::within("a notification", ears.recv()).await.as_deref(), Some("done"));
    minion.order(json!({ "do": "remove", "id": id })).await;
    assert_eq!(wait::within("a notification", ears.recv()).await.as_deref(), Some("minium_journal"));
    minion.sql("update minium.wake set armed = false where name = 'journal'").await;
    minion.enqueue("steered", json!({})).await;
    minion.sql("notify done").await;
    assert_eq!(wait::within("a notification", ears.recv()).await.as_deref(), Some("done"));
    listening.abort();
}
