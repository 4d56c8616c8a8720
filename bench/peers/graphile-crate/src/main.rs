//! The crate graphile_worker under the queue bench: the line protocol of `bench/src/queue/driver.rs` on stdin and stdout.
//!
//! Settings are those of its documents for throughput: a local queue (500 jobs) and completions in batches, a pool that
//! has a connection for each of them. For the pickup of single jobs it has neither, since both trade delay for throughput.

use anyhow::{Context, Result};
use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, Worker, WorkerContext, WorkerOptions,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinHandle;

const CONCURRENCY: usize = 24;
const LOCAL_QUEUE: usize = 500;
const COMPLETE_DELAY: Duration = Duration::from_millis(1);
const SCHEMA: &str = "graphile_worker";

static HANDLED: AtomicU64 = AtomicU64::new(0);
static STARTED: Mutex<Vec<(usize, Instant)>> = Mutex::new(Vec::new());

#[derive(Serialize, Deserialize)]
struct Noop {
    p: String,
    /// Which of the jobs whose pickup is timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n: Option<usize>,
}

impl TaskHandler for Noop {
    const IDENTIFIER: &'static str = "noop";

    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {
        if let Some(n) = self.n {
            STARTED.lock().map_err(|e| e.to_string())?.push((n, Instant::now()));
        }
        HANDLED.fetch_add(1, Ordering::Relaxed);
        Ok::<(), String>(())
    }
}

#[derive(Deserialize)]
struct Command {
    #[serde(rename = "do")]
    what: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    user: String,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    database: String,
    #[serde(default)]
    jobs: usize,
    #[serde(default)]
    call: usize,
    #[serde(default)]
    connections: usize,
    #[serde(default)]
    bytes: usize,
    #[serde(default)]
    every_ms: u64,
}

struct Peer {
    pool: PgPool,
    running: Option<(Arc<Worker>, JoinHandle<()>)>,
    telling: Option<JoinHandle<()>>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut peer = None;
    while let Some(line) = lines.next_line().await? {
        let command: Command = serde_json::from_str(&line)?;
        if command.what == "end" {
            break;
        }
        let answer = match obey(&mut peer, &command).await {
            Ok(answer) => answer,
            Err(e) => json!({ "error": format!("{e:#}") }),
        };
        say(&answer).await?;
    }
    Ok(())
}

async fn say(value: &Value) -> Result<()> {
    let mut out = tokio::io::stdout();
    out.write_all(format!("{value}\n").as_bytes()).await?;
    Ok(out.flush().await?)
}

async fn obey(peer: &mut Option<Peer>, command: &Command) -> Result<Value> {
    if command.what == "open" {
        *peer = Some(open(command).await?);
        return Ok(json!({ "ok": true }));
    }
    let peer = peer.as_mut().context("nothing is open")?;
    match command.what.as_str() {
        "bulk" => peer.bulk(command).await?,
        "enqueue" => peer.enqueue(command).await?,
        "work" => {
            HANDLED.store(0, Ordering::Relaxed);
            peer.work(true).await?;
            peer.telling = Some(tokio::spawn(tell(command.jobs as u64)));
        }
        "rest" => return Ok(json!({ "ok": true, "handled": peer.rest().await? })),
        "pickup" => return peer.pickup(command).await,
        other => anyhow::bail!("there is no command {other}"),
    }
    Ok(json!({ "ok": true }))
}

async fn open(command: &Command) -> Result<Peer> {
    let mut options = PgConnectOptions::new()
        .host(&command.host)
        .port(command.port)
        .username(&command.user)
        .database(&command.database);
    if let Some(password) = &command.password {
        options = options.password(password);
    }
    let pool = PgPoolOptions::new().max_connections(CONCURRENCY as u32 + 4).connect_with(options).await?;
    let peer = Peer { pool, running: None, telling: None };
    // it migrates when it is made
    drop(peer.options(false).init().await?);
    Ok(peer)
}

/// Says how many jobs were handled, whenever that has changed.
async fn tell(jobs: u64) {
    let mut told = 0;
    while told < jobs {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let handled = HANDLED.load(Ordering::Relaxed);
        if handled != told && say(&json!({ "handled": handled })).await.is_ok() {
            told = handled;
        }
    }
}

impl Peer {
    fn options(&self, batches: bool) -> WorkerOptions {
        let options = WorkerOptions::default()
            .schema(SCHEMA)
            .pg_pool(self.pool.clone())
            .concurrency(CONCURRENCY)
            .listen_os_shutdown_signals(false)
            .define_job::<Noop>();
        if !batches {
            return options;
        }
        options
            .local_queue(LocalQueueConfig::default().with_size(LOCAL_QUEUE))
            .complete_job_batch_delay(COMPLETE_DELAY)
            .fail_job_batch_delay(COMPLETE_DELAY)
    }

    async fn work(&mut self, batches: bool) -> Result<()> {
        let worker = Arc::new(self.options(batches).init().await?);
        let runs = worker.clone();
        let task = tokio::spawn(async move {
            if let Err(e) = runs.run().await {
                eprintln!("the worker has ended: {e}");
            }
        });
        self.running = Some((worker, task));
        Ok(())
    }

    async fn rest(&mut self) -> Result<u64> {
        if let Some((worker, task)) = self.running.take() {
            worker.request_shutdown();
            task.await?;
        }
        if let Some(telling) = self.telling.take() {
            telling.abort();
        }
        Ok(HANDLED.load(Ordering::Relaxed))
    }

    async fn bulk(&self, command: &Command) -> Result<()> {
        let utils = self.options(false).init().await?.create_utils();
        let payload = json!({ "p": filler(command.bytes) });
        let mut left = command.jobs;
        while left > 0 {
            let count = left.min(command.call);
            let one = || RawJobSpec { identifier: "noop".into(), payload: payload.clone(), spec: JobSpec::default() };
            let jobs: Vec<_> = (0..count).map(|_| one()).collect();
            utils.add_raw_jobs(&jobs).await?;
            left -= count;
        }
        Ok(())
    }

    async fn enqueue(&self, command: &Command) -> Result<()> {
        let utils = Arc::new(self.options(false).init().await?.create_utils());
        let mut all = Vec::new();
        for _ in 0..command.connections {
            let (utils, bytes, count) = (utils.clone(), command.bytes, command.jobs / command.connections);
            all.push(tokio::spawn(async move {
                for _ in 0..count {
                    utils.add_job(Noop { p: filler(bytes), n: None }, JobSpec::default()).await?;
                }
                anyhow::Ok(())
            }));
        }
        for one in all {
            one.await??;
        }
        Ok(())
    }

    async fn pickup(&mut self, command: &Command) -> Result<Value> {
        STARTED.lock().expect("nobody panics").clear();
        HANDLED.store(0, Ordering::Relaxed);
        self.work(false).await?;
        let (worker, _) = self.running.as_ref().context("the worker runs")?;
        let utils = worker.create_utils();
        let mut clock = tokio::time::interval(Duration::from_millis(command.every_ms));
        let mut times = Vec::new();
        for n in 0..command.jobs {
            clock.tick().await;
            let called = Instant::now();
            utils.add_job(Noop { p: filler(command.bytes), n: Some(n) }, JobSpec::default()).await?;
            times.push((called, Instant::now()));
        }
        while HANDLED.load(Ordering::Relaxed) < command.jobs as u64 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.rest().await?;
        let (mut from_call, mut from_ack) = (Vec::new(), Vec::new());
        for (n, started) in STARTED.lock().expect("nobody panics").iter() {
            from_call.push(milliseconds(times[*n].0, *started));
            from_ack.push(milliseconds(times[*n].1, *started));
        }
        Ok(json!({ "ok": true, "from_call_ms": from_call, "from_ack_ms": from_ack }))
    }
}

/// Whoever is quicker than the acknowledgement has less than nothing.
fn milliseconds(from: Instant, to: Instant) -> f64 {
    match to.checked_duration_since(from) {
        Some(after) => after.as_secs_f64() * 1e3,
        None => -from.duration_since(to).as_secs_f64() * 1e3,
    }
}

/// As much text as makes `{"p":"…"}` so many bytes long.
fn filler(bytes: usize) -> String {
    "x".repeat(bytes.saturating_sub(8))
}
