//! `minium attach minion` as a script sees it: what it says, what it ends with, and that it may be done twice.

use super::minion::{Minion, attach};
use crate::support::postgres::Database;
use serde_json::{Value, json};
use std::process::Output;

/// Asserts the exit status, and that both outputs together say these words.
fn assert_says(output: &Output, status: i32, words: &str) {
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(said.contains(words), "{said}");
}

async fn report(minion: &Minion) -> Value {
    let output = minion.attach(&["--check", "--json"]).await;
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// What there is of Minion, as far as the catalogue knows, without our triggers.
async fn minions_own(minion: &Minion) -> String {
    let sql = "select (select string_agg(c.oid || c.relname || c.relnatts::text, ',' order by c.oid) from pg_class c
                        where c.relnamespace = 'public'::regnamespace)
                   || (select string_agg(p.oid || p.prosrc, ',' order by p.oid) from pg_proc p
                        where p.pronamespace = 'public'::regnamespace)
                   || (select string_agg(t.oid || t.tgname, ',' order by t.oid) from pg_trigger t join pg_class c on c.oid = t.tgrelid
                        where c.relnamespace = 'public'::regnamespace and t.tgname !~ '^minium_')
                   || (select string_agg(m::text, ',') from mojo_migrations m)";
    minion.admin.query_one(sql, &[]).await.unwrap().get(0)
}

/// M-6: look, attach, attach again, mend, detach, detach again; Minion's own things are as they were.
#[tokio::test]
async fn attached_and_detached_and_each_of_it_twice() {
    let mut minion = Minion::start().await;
    let own = minions_own(&minion).await;
    let before = minion.enqueue("add", json!({})).await;
    let looked = minion.attach(&["--check"]).await;
    assert_says(&looked, 0, "attached  no; it would work");
    assert_says(&looked, 0, "warning   the functions run as the superuser minium, and minion,");
    let schema = "select to_regnamespace('minium') is null";
    assert!(minion.admin.query_one(schema, &[]).await.unwrap().get::<_, bool>(0), "looking makes nothing");
    assert_says(&minion.attach(&["--detach"]).await, 0, "nothing was attached");
    let minion_version = report(&minion).await["minion_version"].clone();
    assert_eq!((minion_version.as_i64(), report(&minion).await["attached"].clone()), (Some(23), Value::Null));

    assert_says(&minion.attach(&["--name", "app"]).await, 0, "attached  as /minion/app since");
    let first = report(&minion).await;
    assert_eq!((&first["jobs"], &first["migrations_pending"]), (&json!("public.minion_jobs"), &json!(0)));
    assert_says(&minion.attach(&[]).await, 0, "attached  as /minion/app since");
    assert_eq!(report(&minion).await, first, "the second time changed nothing");
    assert_says(&minion.attach(&["--name", "other"]).await, 0, "/minion/other");
    assert_eq!(
        minions_own(&minion).await,
        own,
        "nothing of Minion's is touched, but for our triggers beside its own"
    );

    let id = minion.enqueue("add", json!({})).await;
    let entries = minion.expect(&[("task.enqueue", id)]).await;
    assert_eq!(entries[0].source.as_deref(), Some("/minion/other"));
    minion.sql("alter table minion_jobs disable trigger minium_updated; drop trigger minium_deleted on minion_jobs").await;
    let broken = minion.attach(&["--check"]).await;
    assert_says(&broken, 7, "the trigger minium_updated is disabled");
    assert_says(&broken, 7, "the trigger minium_deleted is missing");
    assert_says(&minion.attach(&[]).await, 0, "attached  as /minion/other since");
    assert_says(&minion.attach(&["--check"]).await, 0, "attached  as /minion/other since");

    assert_says(&minion.attach(&["--detach"]).await, 0, "stay in the journal");
    assert_says(&minion.attach(&["--detach"]).await, 0, "nothing was attached");
    assert_eq!(minions_own(&minion).await, own, "nothing of Minion's was touched");
    let left =
        "select count(*) from pg_proc where pronamespace = 'minium'::regnamespace and proname ~ '^minion_'";
    assert_eq!(minion.admin.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
    minion.order(json!({ "do": "perform" })).await;
    minion.expect(&[]).await;
    let stats = minion.order(json!({ "do": "stats" })).await;
    assert_eq!((before, &stats["finished_jobs"]), (1, &json!(2)), "Minion works on");
    let kept = "select count(*) from minium.entry";
    assert_eq!(minion.admin.query_one(kept, &[]).await.unwrap().get::<_, i64>(0), 1);
    assert_says(&minion.attach(&["--name", "app"]).await, 0, "/minion/app");
    let id = minion.enqueue("add", json!({})).await;
    minion.expect(&[("task.enqueue", id)]).await;
}

/// M-8: each reason why it cannot be done has its words and its exit status, and leaves nothing behind.
#[tokio::test]
async fn what_is_in_the_way_is_told() {
    let empty = Database::create().await;
    for args in [&[][..], &["--check"]] {
        assert_says(&attach(empty.url(), args).await, 3, "there is no Minion");
    }
    let admin = empty.connect().await;
    let schema = "select to_regnamespace('minium') is null";
    assert!(admin.query_one(schema, &[]).await.unwrap().get::<_, bool>(0), "nothing was made");
    assert_says(&attach("sqlite::memory:", &[]).await, 2, "only a Minion on PostgreSQL can be attached");
    assert_says(&attach("postgres:///x?host=/nowhere", &[]).await, 5, "not available");
    assert_says(&attach(empty.url(), &["--name", "a/b"]).await, 2, "cannot be a name");
    assert_says(&attach(empty.url(), &["--check", "--detach"]).await, 2, "cannot be used with");
    admin.batch_execute("create table minion_jobs (id int)").await.unwrap();
    let strange = attach(empty.url(), &[]).await;
    assert_says(&strange, 7, "public.minion_jobs.id is integer and not bigint");
    assert_says(&strange, 7, "there is no table public.minion_workers");
}

/// M-8: rights that are missing are named; a Minion elsewhere than on the search path is found by name; one at a time.
#[tokio::test]
async fn rights_and_schemas() {
    let minion = Minion::start().await;
    let role = format!("poor_{}", uuid::Uuid::new_v4().simple());
    minion.sql(&format!("create role {role} login")).await;
    let url = minion.database.url().replace("user=minium", &format!("user={role}"));
    let refused = attach(&url, &["--check"]).await;
    for need in ["TRIGGER on public.minion_jobs", "SELECT on public.minion_workers", "CREATE on database"] {
        assert_says(&refused, 4, need);
    }
    minion
        .sql(&format!(
            "grant trigger, select on minion_jobs to {role}; grant select on minion_workers to {role};
             do $$ begin execute format('grant create on database %I to {role}', current_database()); end $$"
        ))
        .await;
    // no more than these: it does not own Minion's tables
    let attached = attach(&url, &["--name", "app"]).await;
    assert_says(&attached, 0, "attached  as /minion/app");
    let warned = |output: &Output| String::from_utf8_lossy(&output.stdout).contains("superuser");
    assert!(
        !warned(&attached) && !warned(&minion.attach(&["--check"]).await),
        "the functions are not a superuser's"
    );
    let mut minion = minion;
    let id = minion.enqueue("add", json!({})).await;
    minion.order(json!({ "do": "perform" })).await;
    minion.expect(&[("task.enqueue", id), ("task.dequeue", id), ("task.finished", id)]).await;
    // whose rights are taken away afterwards, to the harm of Minion: it is told
    minion.sql(&format!("revoke select on minion_workers from {role}")).await;
    assert_says(&minion.attach(&["--check"]).await, 7, "may not read Minion's tables");
    minion.sql(&format!("grant select on minion_workers to {role}")).await;

    minion
        .sql(
            "create schema other; create table other.minion_jobs (like minion_jobs including all);
                create table other.minion_workers (like minion_workers including all)",
        )
        .await;
    assert_says(
        &minion.attach(&["--schema", "other"]).await,
        7,
        "another Minion is attached in this database, that of public",
    );
    assert_says(
        &minion.attach(&["--schema", "nowhere"]).await,
        3,
        "there is one by --schema other, --schema public",
    );
    assert_says(&attach(&url, &["--detach"]).await, 0, "stay in the journal");
    assert_says(
        &minion.attach(&["--schema", "other", "--check"]).await,
        0,
        "other.minion_jobs, of a version that cannot be read",
    );
    minion.sql(&format!("drop owned by {role}; drop role {role}")).await;
}
