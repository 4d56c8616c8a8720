//! What the statements of the queue and of the journal read, as PostgreSQL itself tells: `auto_explain` writes down the plan
//! of every statement, those inside functions too, with the rows that each of its steps saw. On a database with twenty
//! thousand rows of every kind nothing may walk over a table or over a backlog, whatever the planner knows: with fresh
//! statistics, and with those of an empty table, which is what a database has that was filled a moment ago.

mod explained;

use crate::journal::Node;
use crate::store::fixture::*;
use crate::support::postgres::{Cluster, ClusterOptions};
use explained::{Plan, plans};
use minium_notifier::{EnvelopeOptions, Journal};
use minium_protocol::{EnqueueRequest, LogLevel, LogLine, Phase, State};
use minium_queue::{
    Annotation, Backend, Claim, JobFilter, Leased, Limit, Outcome, Pressure, Pull, QueueError, RetryOptions,
    Store, WorkerInfo,
};
use std::time::Duration;
use tokio_postgres::Client;

/// So many jobs of each kind.
const MANY: usize = 20_000;
/// What one call may ask for here.
const FEW: u32 = 100;
/// No step of a plan sees more rows than this: a piece of the journal, and a quarter of all.
const ROWS_MAX: f64 = 5_100.0;

/// Statements that may see more, on purpose: a part of them, how much they may see, and why.
const MAY_SEE_MORE: [(&str, f64, &str); 5] = [
    (
        "as fresh\n                  from minium.worker",
        f64::INFINITY,
        "figures count delayed and blocked jobs one by one",
    ),
    ("names as (\n  select queue from used", PIECE, "a queue's ready jobs are counted up to a bound"),
    ("with passed as materialized (", PIECE, "upkeep looks for expired leases in pieces"),
    ("walked as materialized (", PIECE, "upkeep walks to what is old in pieces"),
    (
        "found := array(select o.\"offset\"",
        PIECE,
        "a filtered read of the journal walks over a bounded piece",
    ),
];
/// What is done in pieces sees so many rows in each.
const PIECE: f64 = 10_000.0;

#[tokio::test]
async fn no_statement_walks_over_a_table_or_a_backlog() {
    let said = judge(true).await;
    assert!(said.is_empty(), "{}", said.join("\n"));
}

#[tokio::test]
async fn nor_does_one_that_is_planned_with_the_statistics_of_empty_tables() {
    let said = judge(false).await;
    assert!(said.is_empty(), "{}", said.join("\n"));
}

/// Fills a database, does everything once on it, and tells of each plan that reads too much.
async fn judge(fresh: bool) -> Vec<String> {
    let cluster = Cluster::start(ClusterOptions::default()).await;
    let url = cluster.create_database("minium").await;
    let client = crate::support::postgres::connect(&url).await.unwrap();
    let backend = Backend::open(&url.parse().unwrap()).await.unwrap();
    // what is not analyzed now is not analyzed at all
    for sql in ["alter system set autovacuum = off", "select pg_reload_conf()"] {
        client.batch_execute(sql).await.unwrap();
    }
    backend.migrate().await.unwrap();
    let stock = fill(backend.store().as_ref(), &client).await;
    use_the_journal(&backend, &client).await;
    drop(backend);
    if fresh {
        client.batch_execute("vacuum analyze").await.unwrap();
    }
    client
        .batch_execute(
            "alter database minium set session_preload_libraries = 'auto_explain';
             alter database minium set auto_explain.log_min_duration = 0;
             alter database minium set auto_explain.log_nested_statements = on;
             alter database minium set auto_explain.log_analyze = on;
             alter database minium set auto_explain.log_timing = off;
             alter database minium set auto_explain.log_format = 'json'",
        )
        .await
        .unwrap();

    let backend = Backend::open(&url.parse().unwrap()).await.unwrap();
    use_the_queue(backend.store().as_ref(), &stock).await.unwrap();
    use_the_journal(&backend, &client).await;
    drop(backend);

    let plans = plans(&cluster.log());
    let claims = plans.iter().filter(|p| p.has("lanes as (")).count();
    assert!(claims >= 4, "{claims} plans of claims were written down, of {} in all", plans.len());
    // one statement is enough to mend
    let mut told = std::collections::BTreeMap::new();
    plans
        .iter()
        .filter_map(|p| Some((p.text(), complaint(p)?)))
        .for_each(|(text, said)| drop(told.insert(text, said)));
    told.into_values().collect()
}

fn complaint(plan: &Plan) -> Option<String> {
    let walk = plan.nodes().find(|n| n.walks_a_table());
    let bound = MAY_SEE_MORE.iter().find(|(part, ..)| plan.has(part)).map_or(ROWS_MAX, |(_, rows, _)| *rows);
    let much = plan.nodes().filter(|n| n.rows() > bound).max_by(|a, b| a.rows().total_cmp(&b.rows()));
    walk.or(much).map(|node| format!("{} in\n{}", node.told(), plan.text()))
}

/// Jobs that the calls are made on.
struct Stock {
    running: Vec<Leased>,
    parent: Leased,
    ended: i64,
    failed: i64,
    waiting: Vec<i64>,
}

/// Twenty thousand jobs of each kind.
async fn fill(store: &dyn Store, client: &Client) -> Stock {
    let many = async |request: EnqueueRequest| {
        let mut ids = Vec::new();
        for _ in 0..MANY / 1_000 {
            ids.extend(store.enqueue(&vec![request.clone(); 1_000]).await.unwrap().iter().map(|e| e.id));
        }
        ids
    };
    let limit = Limit { task: "limited".into(), running: Some(50), per_partition: None, rate: None };
    store.put_limits(&[limit]).await.unwrap();

    let ended = many(of("done", |_| {})).await;
    let failed = many(of("dead", |_| {})).await;
    client
        .batch_execute(
            "update minium.job set state = 'finished', ready = false, started = now(), finished = now(), result = '1',
                    attempt = 1, lease = gen_random_uuid(), lease_until = now() where task = 'done';
             update minium.job set state = 'failed', ready = false, started = now(), finished = now(), error = 'no',
                    attempt = 1, lease = gen_random_uuid(), lease_until = now() where task = 'dead';
             insert into minium.failure (job, attempt, error, final)
               select id, 1, 'no', true from minium.job where task = 'dead';
             delete from minium.tally;
             insert into minium.tally (inactive, finished, failed)
               select 0, count(*) filter (where state = 'finished'), count(*) filter (where state = 'failed') from minium.job",
        )
        .await
        .unwrap();

    store.enqueue(&vec![of("parent", |_| {}); 1 + 2 * FEW as usize]).await.unwrap();
    let mut running = claimed(store, 1 + 2 * FEW).await;
    let parent = running.remove(0);
    let of_the_parent = |o: &mut minium_protocol::JobOptions| {
        (o.parents, o.origin) = (vec![parent.id], Some(parent.id));
    };
    many(of("child", of_the_parent)).await;
    many(of("later", |o| o.delay = seconds(3_600))).await;
    many(of("limited", |_| {})).await;
    let waiting = many(of("task", |_| {})).await;
    many(of("task", |o| o.priority = 5)).await;
    many(of("task", |o| o.priority = -5)).await;
    Stock { running, parent, ended: ended[0], failed: failed[0], waiting }
}

fn of(task: &str, options: impl FnOnce(&mut minium_protocol::JobOptions)) -> EnqueueRequest {
    let mut request = with(options);
    request.task = task.into();
    request
}

async fn claimed(store: &dyn Store, limit: u32) -> Vec<Leased> {
    store.exchange(&[], &claim(limit)).await.unwrap().jobs
}

/// Every operation of the store that workers, nodes and users call all day.
async fn use_the_queue(store: &dyn Store, stock: &Stock) -> Result<(), QueueError> {
    let few = FEW as usize;
    store.enqueue(&[of("task", |_| {})]).await?;
    store.enqueue(&vec![of("task", |_| {}); few]).await?;
    store.enqueue(&[of("task", |o| o.key = Some("k".into()))]).await?;
    store.enqueue(&[of("task", |o| o.parents = vec![stock.running[0].id, stock.ended])]).await?;

    let (to_finish, rest) = stock.running.split_at(few);
    let outcomes: Vec<_> = to_finish.iter().map(|l| finish(l, "1")).collect();
    let jobs = store.exchange(&outcomes, &claim(FEW)).await?.jobs;
    assert_eq!(jobs.len(), few);
    // twice: a lease that is gone is told late, a word that was said before is known
    store.exchange(&outcomes, &Claim::nothing()).await?;
    let outcomes: Vec<_> = rest[..few / 2].iter().map(|l| fail_for_good(l, "no")).collect();
    store.exchange(&outcomes, &claim(FEW)).await?;
    let asks = [
        Claim { tasks: Some(vec!["task".into()]), ..claim(FEW) },
        Claim { tasks: Some(vec!["task".into(), "unknown".into()]), ..claim(FEW) },
        Claim { tasks: Some(vec!["limited".into()]), ..claim(FEW) },
        Claim { min_priority: Some(1), ..claim(FEW) },
        Claim { aged: Some(Duration::ZERO), ..claim(FEW) },
        Claim {
            tasks: Some(vec!["task".into(), "other".into()]),
            caps: [("task".to_owned(), 3)].into(),
            ..claim(FEW)
        },
    ];
    let mut held = jobs;
    for ask in &asks {
        held.extend(store.exchange(&[], ask).await?.jobs);
    }
    let pull = |task: &str| Pull {
        queue: "default".into(),
        tasks: vec![task.into()],
        lease: LEASE,
        workers: vec![worker()],
    };
    store.pull(&[pull("task"), pull("limited"), pull("unknown")]).await?;

    let leases: Vec<_> = held.iter().map(|l| (l.id, l.lease)).collect();
    store.extend(&leases[..few], LEASE).await?;
    store.release(&leases[..10]).await?;
    assert!(store.postpone(leases[10].0, leases[10].1, Duration::from_secs(60)).await?);
    let line = LogLine { at: None, level: LogLevel::Info, text: "text".into() };
    let note = Annotation {
        notes: [("k".to_owned(), 1.into())].into_iter().collect(),
        log: vec![line],
        progress: None,
    };
    store.annotate(leases[20].0, Some(leases[20].1), &note).await?;
    store.annotate(stock.waiting[9_000], None, &note).await?;
    store.cancel(leases[21].0).await?;
    store.cancel(stock.waiting[9_001]).await?;
    store.cancel_cascade(stock.waiting[9_002]).await?;
    store.retry(stock.failed, &RetryOptions::default()).await?;
    store.remove(stock.ended).await?;
    // twenty thousand children, some at a time
    let last = Outcome { ..finish(&stock.parent, "1") };
    store.exchange(&[last], &Claim::nothing()).await?;
    look(store, stock).await?;
    store.upkeep(&upkeep_rules()).await?;
    store.upkeep(&minium_queue::UpkeepRules { keep: keep(Some(Duration::ZERO)), ..upkeep_rules() }).await?;
    // where there are no limits there is a shorter way
    store.put_limits(&[]).await?;
    store.enqueue(&[of("task", |_| {})]).await?;
    store.enqueue(&vec![of("task", |_| {}); few]).await?;
    Ok(())
}

/// What is read by people and by workers about themselves.
async fn look(store: &dyn Store, stock: &Stock) -> Result<(), QueueError> {
    store.get(stock.waiting[0]).await?;
    store.failures(stock.failed + 1).await?;
    let lists = [
        JobFilter::default(),
        JobFilter { before: Some(stock.ended + 10_000), ..JobFilter::default() },
        JobFilter { states: vec![State::Failed], ..JobFilter::default() },
        JobFilter { ids: vec![stock.failed + 1, stock.waiting[0]], ..JobFilter::default() },
        JobFilter {
            origin: Some(stock.parent.id),
            before: Some(stock.waiting[9_000]),
            ..JobFilter::default()
        },
    ];
    for filter in &lists {
        assert!(!store.list(filter).await?.jobs.is_empty());
    }
    let closely = |text: &str| JobFilter {
        phases: vec![Phase::Blocked],
        notes_at: vec![minium_queue::ValueAt { path: vec!["k".into()], value: text.into() }],
        args_at: vec![minium_queue::ValueAt { path: vec!["0".into()], value: text.into() }],
        text: Some(text.into()),
        ..JobFilter::default()
    };
    // nothing passes: each walks as far as it may
    for filter in [
        JobFilter { tasks: vec!["none".into()], ..JobFilter::default() },
        JobFilter { states: vec![State::Failed], queues: vec!["none".into()], ..JobFilter::default() },
        JobFilter { origin: Some(stock.parent.id), queues: vec!["none".into()], ..JobFilter::default() },
        JobFilter { ids: vec![stock.failed + 1], ..closely("none") },
        closely("none"),
    ] {
        assert!(store.list(&filter).await?.jobs.is_empty());
    }
    store.results(&[stock.ended, stock.failed, stock.waiting[1]], 1 << 20).await?;
    assert!(!store.log(stock.waiting[9_000], 0, FEW).await?.lines.is_empty());
    let node = uuid::Uuid::new_v4();
    for pressure in [Some(Pressure::Easing), None] {
        store.press(node, pressure).await?;
        assert_eq!(store.pressure().await?, pressure);
    }
    store.stats().await?;
    store.hours().await?;
    store.queues().await?;
    store.limits().await?;
    let me = store.register_worker(&WorkerInfo::new("rack3", 411)).await?;
    store.workers(&minium_queue::WorkerFilter::default()).await?;
    store.heartbeat(me.id, &minium_queue::WorkerStatus::default()).await?;
    store.take_commands(me.id).await?;
    let lock = store.lock("l", "me", Duration::from_secs(60), 1).await?;
    assert!(lock.is_some());
    store.locks(&minium_queue::LockFilter::default()).await?;
    store.fire_schedules().await?;
    Ok(())
}

/// Numbers what was written, sends it, and reads some of it again.
async fn use_the_journal(backend: &Backend, client: &Client) {
    let journal = Journal::open(backend, EnvelopeOptions::default());
    let node = Node::start(&journal);
    let written: i64 = client.query_one("select count(*) from minium.entry", &[]).await.unwrap().get(0);
    let written = u64::try_from(written).unwrap();
    for some in (0..written).step_by(20_000) {
        node.relayed(some).await;
    }
    let last = node.relayed(written).await.offset;
    let history = journal.history();
    for filter in ["task", "task/task", "+"] {
        let filter = filter.parse().unwrap();
        history.bounds(&filter).await.unwrap();
        let (mut after, mut found) = (0, 0);
        while after < last && found == 0 {
            let page = history.read(&filter, after, last, FEW, 1 << 20).await.unwrap();
            (after, found) = (page.scanned_to, page.entries.len());
        }
        assert!(found > 0, "{filter}");
        history.before_last(&filter, FEW).await.unwrap();
    }
    node.stop().await;
}
