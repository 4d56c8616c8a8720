//! What PostgreSQL does in a shorter way for speed does what the longer way does, and holds nobody up.

use super::fixture::*;
use crate::support::wait;
use minium_protocol::{EnqueueRequest, TraceContext};
use minium_queue::{Enqueued, Limit, QueueError};
use std::time::Duration;

/// The snapshot as PostgreSQL itself would write it, member by member.
const BY_THE_SERVER: &str = "row_to_json(row(
  j.id, j.task, j.queue, j.state, j.priority, coalesce(j.args_shown, j.args), j.notes, j.attempt, j.attempts, j.retries,
  j.parents, j.lax, j.key, j.schedule, j.worker, j.result, j.error, j.progress, j.origin, minium.time_text(j.created),
  minium.time_text(j.delayed), minium.time_text(j.expires), minium.time_text(j.started), minium.time_text(j.finished),
  minium.time_text(j.retried))::minium.snapshot_row)";

#[tokio::test]
async fn a_snapshot_is_what_the_server_would_make_of_the_row() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    // each column with nothing, with something plain and with whatever has to be escaped
    let odd = "E'\"quoted\" back\\\\slash \\n \\t \\r \\b \\f \\x01 \\x1f / é € 😀'";
    let fill = format!(
        "insert into minium.job (task, queue, state, priority, args, args_shown, notes, attempt, attempts, retries, parents, lax,
                                 key, schedule, worker, result, error, progress, origin, created, expires, started, finished,
                                 retried)
         select 'a/b.c~d:e@f-g_1', 'q/' || n, s.state, -1000 + n, a.json::json,
                case when n % 5 = 0 then '[\"***\"]'::json end,
                case when n % 3 = 0 then '{{}}' else jsonb_build_object({odd}, {odd}, 'n', n / 7.0) end, n, 1 + n, n % 4,
                case when n % 3 = 1 then array[n, 9223372036854775807] else '{{}}' end, n % 2 = 0,
                case n % 4 when 0 then {odd} when 1 then 'key' end, case n % 5 when 0 then {odd} when 1 then 'nightly' end,
                case when n % 2 = 0 then json_build_object('id', n, 'host', {odd}, 'pid', 1) end,
                case n % 3 when 0 then a.json::json when 1 then 'null'::json end,
                case n % 3 when 0 then {odd} when 1 then 'no' end,
                case when n % 4 = 2 then json_build_object('percent', n, 'text', {odd}) end,
                case when n % 5 = 3 then -n end, '2026-01-01 00:00:00Z'::timestamptz + n * interval '1.0001 s',
                case when n % 2 = 0 then '2026-01-01 12:00:00+02'::timestamptz end,
                case when n % 3 = 0 then now() end, case when n % 4 = 0 then '0099-02-28'::timestamptz end,
                case when n % 5 = 0 then '294276-12-31'::timestamptz end
           from generate_series(1, 120) n,
                unnest(enum_range(null::minium.state)) s (state),
                unnest(array['[]', '[1, 2.50, \"\\u00e9\"]', ' {{\"a\" : null}} ', 'true']) a (json)"
    );
    client.batch_execute(&fill).await.unwrap();
    for zone in ["UTC", "Asia/Kathmandu"] {
        client.batch_execute(&format!("set timezone = '{zone}'")).await.unwrap();
        let sql = format!(
            "select count(*), min(minium.snapshot(j)::text) filter (where minium.snapshot(j)::text is distinct from {BY_THE_SERVER}::text)
               from minium.job j"
        );
        let row = client.query_one(&sql, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 120 * 5 * 4);
        assert_eq!(row.get::<_, Option<&str>>(1), None, "differs");
    }
}

/// Jobs that ask for nothing but their turn, with each of the options that such a job may have.
fn modest() -> Vec<EnqueueRequest> {
    vec![
        plain(),
        with(|o| o.queue = "other".into()),
        with(|o| (o.priority, o.attempts) = (7, 3)),
        with(|o| o.delay = Duration::from_secs(60)),
        with(|o| o.expire = Some(Duration::from_secs(60))),
        with(|o| o.lax = true),
        with(|o| _ = o.notes.insert("a".into(), serde_json::json!({ "b": [1, "é"] }))),
        with(|o| (o.timeout, o.backoff) = (Some(Duration::from_secs(9)), Some(Duration::from_millis(1)))),
        with(|o| (o.schedule, o.origin) = (Some("nightly".into()), Some(1))),
        with(|o| {
            o.trace = TraceContext::new("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None)
        }),
        with(|o| o.partition = Some("p".into())),
    ]
}

#[tokio::test]
async fn jobs_that_ask_for_nothing_are_enqueued_as_all_others_are() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    // the short way has no need of the function
    let rename = async |from: &str, to: &str| {
        let sql = format!(
            "do $$ declare f regprocedure; begin
               for f in select oid from pg_proc where pronamespace = 'minium'::regnamespace and proname = '{from}' loop
                 execute format('alter function %s rename to {to}', f);
               end loop;
             end $$"
        );
        client.batch_execute(&sql).await.unwrap();
    };
    rename("enqueue_jobs", "gone").await;
    let short = f.store().enqueue(&modest()).await.unwrap();
    rename("gone", "enqueue_jobs").await;
    // as soon as there is any limit, all go the long way
    let limit = Limit { task: "elsewhere".into(), running: Some(1), per_partition: None, rate: None };
    f.store().put_limits(&[limit]).await.unwrap();
    let long = f.store().enqueue(&modest()).await.unwrap();
    assert!(short.iter().chain(&long).all(|e| !e.existing));
    let told = async |ids: Vec<i64>| -> Vec<String> {
        // what is counted from the moment of the call, as how far it is away; what is drawn, as how far it is from the first
        let sql = "select (to_jsonb(j) - '{id,seq,created,delayed,later_at,expires}'::text[]
                           || jsonb_build_object('id', j.id - ($1::bigint[])[1], 'seq', j.seq - (select seq from minium.job where id = ($1::bigint[])[1]),
                                'delay', j.delayed - j.created, 'later', j.later_at - j.created, 'expire', j.expires - j.created,
                                'events', (select jsonb_agg(jsonb_build_object('type', e.type, 'trace', e.trace,
                                             'topic', replace(e.topic, j.id::text, ''), 'whole', e.data::text = minium.snapshot(j)::text))
                                             from minium.entry e where e.subject = j.id::text)))::text
                     from minium.job j where j.id = any ($1::bigint[]) order by j.id";
        client.query(sql, &[&ids]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    let (short, long) = (short.iter().map(|e| e.id).collect(), long.iter().map(|e| e.id).collect());
    let (short, long) = (told(short).await, told(long).await);
    assert_eq!(short.len(), modest().len());
    assert!(short.iter().all(|told| told.contains(r#""whole": true"#)), "{short:?}");
    assert_eq!(short, long);
    let lanes = client.query("select queue, priority from minium.lane order by 1, 2", &[]).await.unwrap();
    let lanes: Vec<(String, i32)> = lanes.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected = [("default", 0), ("default", 7), ("other", 0)];
    assert_eq!(lanes, expected.map(|(queue, priority)| (queue.to_owned(), priority)), "each once");
    assert_eq!(f.store().stats().await.unwrap().inactive, 2 * i64::try_from(modest().len()).unwrap());
}

#[tokio::test]
async fn a_claim_beside_many_outcomes_touches_nothing_that_others_have_claimed_meanwhile() {
    let f = Fixture::postgres().await;
    f.store().enqueue(&vec![plain(); 60]).await.unwrap();
    let held = f.claim(20).await;
    // whoever looks at this row holds up the outcomes for as long
    let mut client = f.client().await;
    let stop = client.transaction().await.unwrap();
    stop.execute("select from minium.job where id = $1 for update", &[&held[19].id]).await.unwrap();
    let outcomes: Vec<_> = held.iter().map(|leased| finish(leased, "1")).collect();
    let store = f.shared();
    let exchange = tokio::spawn(async move { store.exchange(&outcomes, &claim(20)).await.unwrap() });
    let look = f.client().await;
    let waits = "select pid from pg_stat_activity where datname = current_database() and wait_event = 'transactionid'";
    wait::until("the outcomes to be held up", async || look.query_opt(waits, &[]).await.unwrap()).await;
    let of_another = f.second().await.exchange(&[], &claim(20)).await.unwrap().jobs;
    stop.commit().await.unwrap();
    let exchanged = wait::within("the exchange", exchange).await.unwrap();
    assert_eq!((exchanged.verdicts.len(), exchanged.jobs.len(), of_another.len()), (20, 20, 20));
    assert!(exchanged.jobs.iter().all(|job| !of_another.iter().any(|other| other.id == job.id)));
    // a lock leaves its transaction in the row; the claim's own is the one that wrote it
    let sql =
        "select count(*) from minium.job where id = any ($1) and xmax::text <> all (array['0', xmin::text])";
    let ids: Vec<i64> = of_another.iter().map(|job| job.id).collect();
    assert_eq!(
        look.query_one(sql, &[&ids]).await.unwrap().get::<_, i64>(0),
        0,
        "rows that were locked in vain"
    );
}

/// One job whose argument tells it from all others.
fn numbered(n: usize) -> Vec<EnqueueRequest> {
    vec![EnqueueRequest::new("t", json(&format!("[{n}]")))]
}

/// Enqueues by a task of its own.
fn caller(
    f: &Fixture,
    jobs: Vec<EnqueueRequest>,
) -> tokio::task::JoinHandle<Result<Vec<Enqueued>, QueueError>> {
    let store = f.shared();
    tokio::spawn(async move { store.enqueue(&jobs).await })
}

/// The job with this number, if it is there.
async fn job_of(client: &tokio_postgres::Client, n: usize) -> Option<i64> {
    let sql = "select id from minium.job where args::text = $1";
    client.query_opt(sql, &[&format!("[{n}]")]).await.unwrap().map(|row| row.get(0))
}

#[tokio::test]
async fn each_of_many_callers_at_once_gets_its_own_jobs() {
    let f = Fixture::postgres().await;
    let callers: Vec<_> = (0..200)
        .map(|n| {
            let jobs = (0..=n % 3).flat_map(|of| numbered(n * 10 + of)).collect();
            caller(&f, jobs)
        })
        .collect();
    let client = f.client().await;
    for (n, caller) in callers.into_iter().enumerate() {
        let made = wait::within("an enqueue", caller).await.unwrap().unwrap();
        assert_eq!(made.len(), n % 3 + 1);
        for (of, one) in made.iter().enumerate() {
            assert_eq!(job_of(&client, n * 10 + of).await, Some(one.id), "once, and its caller knows it");
        }
    }
    let sql = "select count(distinct xmin::text) from minium.job";
    let commits: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    assert!(commits < 200, "{commits} commits");
}

/// Waits until so many statements wait for a lock on the table of jobs.
async fn held_up(client: &tokio_postgres::Client, count: i64) {
    let sql = "select count(*) from pg_locks where not granted and relation = 'minium.job'::regclass";
    let what = format!("{count} statements to be held up");
    wait::until(&what, async || {
        (client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_gives_up_takes_nobody_along() {
    let f = Fixture::postgres().await;
    // connections and statements are there already
    f.store().enqueue(&numbered(0)).await.unwrap();
    let mut holder = f.client().await;
    let hold = holder.transaction().await.unwrap();
    hold.batch_execute("lock table minium.job in exclusive mode").await.unwrap();
    let look = f.client().await;
    let first = caller(&f, numbered(1));
    held_up(&look, 1).await;
    let second = caller(&f, numbered(2));
    held_up(&look, 2).await;
    // these wait for a turn; on this runtime of one thread they do as soon as we do
    let (third, fourth) = (caller(&f, numbered(3)), caller(&f, numbered(4)));
    tokio::task::yield_now().await;
    // the first one's end makes room for a turn
    for gone in [third, first] {
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
    }
    hold.commit().await.unwrap();
    let second = wait::within("the second caller", second).await.unwrap().unwrap();
    let fourth = wait::within("the fourth caller", fourth).await.unwrap().unwrap();
    assert_eq!(job_of(&look, 2).await, Some(second[0].id));
    assert_eq!(job_of(&look, 4).await, Some(fourth[0].id));
    wait::until("the first caller's job, which was on its way", async || job_of(&look, 1).await).await;
    assert_eq!(job_of(&look, 3).await, None, "it was not");
}

#[tokio::test]
async fn who_gets_no_turn_goes_by_itself() {
    let f = Fixture::postgres().await;
    f.store().enqueue(&numbered(0)).await.unwrap();
    let mut holder = f.client().await;
    let hold = holder.transaction().await.unwrap();
    hold.batch_execute("lock table minium.job in exclusive mode").await.unwrap();
    let look = f.client().await;
    let mut callers = Vec::new();
    for n in 1..=4 {
        callers.push(caller(&f, numbered(n)));
        // the third and the fourth find both turns taken, by statements that do not end
        held_up(&look, n as i64).await;
    }
    hold.commit().await.unwrap();
    for (n, caller) in (1..).zip(callers) {
        let made = wait::within("an enqueue", caller).await.unwrap().unwrap();
        assert_eq!(job_of(&look, n).await, Some(made[0].id), "once");
    }
}

#[tokio::test]
async fn what_the_database_does_not_take_fails_nobody_else() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    // stands for whatever a server may refuse that no rule of ours knows
    let check = "alter table minium.job add constraint refused check (args::text <> '[13]')";
    client.batch_execute(check).await.unwrap();
    let callers: Vec<_> = (0..40).map(|n| caller(&f, numbered(n))).collect();
    for (n, caller) in callers.into_iter().enumerate() {
        let made = wait::within("an enqueue", caller).await.unwrap();
        match (n, made) {
            (13, Err(QueueError::Invalid(_))) => assert_eq!(job_of(&client, n).await, None),
            (_, Ok(made)) if n != 13 => assert_eq!(job_of(&client, n).await, Some(made[0].id)),
            (_, other) => panic!("{n}: {other:?}"),
        }
    }
}
