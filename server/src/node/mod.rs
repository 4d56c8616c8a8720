//! A node: what is started in which order, and stopped in reverse.
//!
//! Up: listener bound, schemas, bus, HTTP; then the database as soon as it is there, and on it the relay, upkeep,
//! schedules and the worker. Down: nothing new is taken, running jobs get time to end, the relay ends, sessions are
//! closed with 1001, connections end. Each step is bounded; together they take at most a few times
//! `server.shutdown_grace`.

mod opening;
mod reload;
mod rounds;
mod signals;
mod trust;

use crate::auth::Auth;
use crate::config::Config;
use crate::database::{self, Database};
use crate::exit::{Exit, fault};
use crate::http::connection;
use crate::http::limit::Limiter;
use crate::http::{App, Limits, router};
use crate::listener::{self, Service};
use crate::schema_files::SchemaDir;
use crate::tls::Tls;
use crate::{http, logging};
use anyhow::Context;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use minium_bus::{Bus, Channels, Schemas};
use minium_notifier::{Retentions, TaskWork};
use minium_protocol::format_duration;
use minium_worker::Worker;
use opening::Opener;
pub(crate) use opening::{causes, open_backend};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
pub(crate) use trust::Reread;

/// `source` of all events. Names of installations come with a later version.
const SOURCE: &str = "/minium/default";
/// Between looks at the schema directory.
const SCHEMA_LOOK: Duration = Duration::from_secs(2);
/// Between sweeps of the metrics' histograms.
const METRICS_SWEEP: Duration = Duration::from_secs(5);

/// Adds tasks in Rust to the node's worker.
pub(crate) type AddTasks = Box<dyn FnOnce(Worker, Bus) -> Worker + Send + Sync>;

/// Is told where the node listens.
pub(crate) type Greeting = Box<dyn FnOnce(&str) + Send>;

/// What a node is started with besides its configuration.
#[derive(Default)]
pub(crate) struct Extras {
    /// Whoever reaches the port may do everything, wherever it listens.
    pub(crate) insecure: bool,
    /// Tasks in Rust; without any, and without `[tasks]`, the node has no worker.
    pub(crate) tasks: Option<AddTasks>,
    /// Reads the configuration again, on SIGHUP.
    pub(crate) reread: Option<Reread>,
    /// Called once with the URL when the node listens.
    pub(crate) greeting: Option<Greeting>,
}

/// Runs a node until a signal ends it.
pub(crate) async fn run(config: Config, extras: Extras) -> anyhow::Result<()> {
    let address = config.server.listen.0;
    let place = trust::Place { address, insecure: extras.insecure };
    let auth = Arc::new(Auth::new(trust::rules(&config, place, None)?));
    let tls = Tls::of(&config.server.tls).map_err(|why| fault(Exit::Usage, why))?.map(Arc::new);
    raise_open_files();
    let metrics = start_metrics()?;
    let listener = listener::bind(address)?;
    let address = listener.local_addr().context("Asking for the address of the listener")?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let base_url = format!("{scheme}://{}", reachable(address));
    let schemas = Arc::new(Schemas::built_in());
    let dir = load_schemas(&config, &schemas)?;
    let (door, database) = database::awaited();
    let channels = Arc::new(Channels::new(config.bus_channels()).context("Setting up the channels")?);
    let retentions = Retentions::new(config.retention_policy());
    let closing = CancellationToken::new();
    let work = opening::start_work(&database, &schemas, &closing);
    let bus = start_bus(&config, (&schemas, &channels), &database, &work)?;
    let mut signals = signals::Signals::listen()?;

    let node = Node {
        closing,
        background: TaskTracker::new(),
        http: TaskTracker::new(),
        bus: bus.clone(),
        work: work.clone(),
        grace: config.server.shutdown_grace,
        patience: config.server.limits.handshake_timeout,
    };
    node.serve(
        listener,
        app(&config, &node, &auth, (&schemas, &channels, &database), metrics.clone()),
        &config,
        tls.clone(),
    );
    node.background.spawn(rounds::sweep(metrics, METRICS_SWEEP, node.closing.clone()));
    let (reload, reread) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let again = node.look_after(auth, extras.reread.clone(), place);
    if let Some(dir) = dir {
        let watching =
            rounds::watch_schemas(dir, schemas.clone(), reload.clone(), SCHEMA_LOOK, node.closing.clone());
        node.background.spawn(watching);
    }
    if let Some(read) = extras.reread {
        let reading =
            reload::channels(read, channels, retentions.clone(), reread.clone(), node.closing.clone());
        node.background.spawn(reading);
    }
    let opener = Opener {
        config: Arc::new(config),
        base_url: base_url.clone(),
        bus: bus.clone(),
        schemas,
        work,
        retentions,
        door,
        tasks: extras.tasks,
        closing: node.closing.clone(),
    };
    let mut engine = node.background.spawn(opener.run());
    logging::announce(&base_url);
    if let Some(greet) = extras.greeting {
        greet(&base_url);
    }

    let early = loop {
        tokio::select! {
            ended = &mut engine => break Some(ended),
            signal = signals.next() => match signal {
                signals::Signal::Reload => {
                    [&reload, &reread, &again].iter().for_each(|asked| asked.notify_one());
                    if let Some(tls) = tls.clone() {
                        node.background.spawn_blocking(move || tls.reload());
                    }
                }
                signals::Signal::End => break None,
            },
        }
    };
    info!("Going down.");
    node.closing.cancel();
    let end = async {
        // First what works on jobs: while they end, their events still go out.
        let outcome = match early {
            Some(ended) => ended,
            None => engine.await,
        };
        node.end().await;
        outcome.context("The node's engine panicked")?
    };
    tokio::select! {
        outcome = end => outcome,
        () = signals.insist() => Err(fault(Exit::Failed, "Asked twice to end: ended at once")),
    }
}

/// What of a node has to be ended.
struct Node {
    closing: CancellationToken,
    background: TaskTracker,
    http: TaskTracker,
    bus: Bus,
    work: TaskWork,
    grace: Duration,
    patience: Duration,
}

impl Node {
    fn serve(&self, listener: TcpListener, app: Arc<App>, config: &Config, tls: Option<Arc<Tls>>) {
        let limits = &config.server.limits;
        let service = Service {
            router: router(app),
            bus: self.bus.clone(),
            options: connection::Options {
                header_timeout: limits.handshake_timeout,
                header_bytes: limits.header_bytes.bytes(),
            },
            tls,
            connections_max: limits.connections,
            closing: self.closing.clone(),
        };
        self.http.spawn(listener::run(listener, service, self.grace));
    }

    /// Keeps the rules up to date; they are read again when what this gives is notified.
    fn look_after(&self, auth: Arc<Auth>, reread: Option<Reread>, place: trust::Place) -> Arc<Notify> {
        let again = Arc::new(Notify::new());
        auth.now().table.keep_sets(&self.background, &self.closing);
        if let Some(reread) = reread {
            let watch = trust::Watch {
                auth,
                bus: self.bus.clone(),
                place,
                tasks: self.background.clone(),
                closing: self.closing.clone(),
                patience: self.patience,
            };
            self.background.spawn(trust::watch(watch, reread, again.clone()));
        }
        again
    }

    async fn end(self) {
        self.bus.shutdown(self.grace).await;
        // what sessions said last is still written
        if tokio::time::timeout(self.grace, self.work.close()).await.is_err() {
            warn!("Words of pullers were not written in time; their leases will run out.");
        }
        self.background.close();
        self.http.close();
        let rest = async {
            self.http.wait().await;
            self.background.wait().await;
        };
        if tokio::time::timeout(self.grace * 2, rest).await.is_err() {
            warn!(grace = format_duration(self.grace), "Some tasks did not end in time.");
        }
        info!("Down.");
    }
}

fn app(
    config: &Config,
    node: &Node,
    auth: &Arc<Auth>,
    (schemas, channels, database): (&Arc<Schemas>, &Arc<Channels>, &Database),
    metrics: PrometheusHandle,
) -> Arc<App> {
    let limits = &config.server.limits;
    Arc::new(App {
        bus: node.bus.clone(),
        schemas: schemas.clone(),
        channels: channels.clone(),
        database: database.clone(),
        auth: auth.clone(),
        limiter: Limiter::new(config),
        limits: Limits {
            message_bytes: limits.message_bytes.bytes(),
            request_bytes: limits.request_bytes.bytes(),
            patience: limits.handshake_timeout,
        },
        metrics,
        waits: Semaphore::new(limits.waits as usize),
        histories: Arc::new(Semaphore::new(http::HISTORIES_MAX)),
        closing: node.closing.clone(),
    })
}

/// As many open files as the system allows: each session is one.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // What is refused here is told by `minium doctor`, and by sessions that are.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok();
}

fn start_metrics() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new().install_recorder().context("Starting the metrics")?;
    http::describe_metrics();
    Ok(handle)
}

fn start_bus(
    config: &Config,
    (schemas, channels): (&Arc<Schemas>, &Arc<Channels>),
    database: &Database,
    work: &TaskWork,
) -> anyhow::Result<Bus> {
    let limits = &config.server.limits;
    let usual = minium_bus::Options::default();
    let options = minium_bus::Options {
        sessions_max: limits.sessions as usize,
        message_bytes_max: limits.message_bytes.bytes(),
        source: SOURCE.into(),
        shards: config.server.shards.map_or(usual.shards, |n| n as usize),
        session_rate: crate::config::rate(limits.session_messages_per_second, limits.session_messages_burst),
        ..usual
    };
    let backing = minium_bus::Backing {
        schemas: schemas.clone(),
        channels: channels.clone(),
        history: Some(Arc::new(database.clone())),
        work: Some(Arc::new(work.clone())),
    };
    Bus::start(options, backing).context("Starting the bus")
}

/// Reads the schema directory for the first time. One that was named must be there.
fn load_schemas(config: &Config, schemas: &Schemas) -> anyhow::Result<Option<SchemaDir>> {
    let named = config.schemas.dir.clone();
    let path = named.clone().unwrap_or_else(|| PathBuf::from("schemas"));
    if named.is_none() && !Path::new(&path).is_dir() {
        return Ok(None);
    }
    let mut dir = SchemaDir::new(path.clone());
    dir.load(schemas).map_err(|error| {
        fault(Exit::Usage, format!("The schema directory {} cannot be read: {error}", path.display()))
    })?;
    Ok(Some(dir))
}

/// An address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
