//! A node: what is started in which order, and stopped in reverse.
//!
//! Up: listener bound, schemas, bus, HTTP; then the database as soon as it is there, and on it the relay, upkeep,
//! schedules and the worker. Down: nothing new is taken, running jobs get time to end, the relay ends, sessions are
//! closed with 1001, connections end. Each step is bounded; together they take at most a few times
//! `server.shutdown_grace`.

mod asked;
mod opening;
mod parts;
mod reload;
mod rounds;
mod signals;
mod supervised;
mod trust;

use crate::auth::Auth;
use crate::config::Config;
use crate::exit::{Exit, fault};
use crate::http::connection;
use crate::http::{App, router};
use crate::listener::{self, Service};
use crate::logging;
use crate::schema_files::SchemaDir;
use crate::sinks::{Sinks, open_sinks};
use crate::tls::Tls;
use anyhow::Context;
use asked::Asked;
use minium_bus::{Bus, Schemas};
use minium_notifier::TaskWork;
use minium_protocol::format_duration;
pub(crate) use minium_queue::causes;
use minium_worker::Worker;
use opening::Opener;
pub(crate) use opening::{TaskSchemas, open_backend};
use parts::Parts;
pub(crate) use parts::load_schemas;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use supervised::Supervised;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
pub(crate) use trust::Reread;

/// `source` of all events. Names of installations come with a later version.
pub(crate) const SOURCE: &str = "/minium/default";
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
    /// Sockets that listen already, in place of the configured address.
    pub(crate) sockets: Vec<std::net::TcpListener>,
    /// Called once with the URL when the node listens.
    pub(crate) greeting: Option<Greeting>,
}

/// Runs a node until a signal ends it.
pub(crate) async fn run(config: Config, mut extras: Extras) -> anyhow::Result<()> {
    let greeting = extras.greeting.take();
    let mut up = start(config, extras)?;
    logging::announce(&up.base_url);
    if let Some(greet) = greeting {
        greet(&up.base_url);
    }
    let early = up.until_end().await;
    up.go_down(early).await
}

/// Starts everything; what needs the database waits for it by itself.
fn start(config: Config, extras: Extras) -> anyhow::Result<Up> {
    let handed = listener::adopt(extras.sockets)?;
    let address = listener::most_open(&handed).unwrap_or(config.server.listen.0);
    let place = trust::Place { address, insecure: extras.insecure };
    let auth = Arc::new(Auth::new(trust::rules(&config, place, None)?));
    let tls = Tls::of(&config.server.tls).map_err(|why| fault(Exit::Usage, why))?.map(Arc::new);
    trust::mind_tokens(&config, place, tls.is_some());
    opening::check_place(&config)?;
    let sinks = Sinks::make(&config).map_err(|wrong| fault(Exit::Usage, wrong.join("\n")))?;
    for open in open_sinks(&config) {
        warn!(%open, "What a sink says can be read on its way.");
    }
    parts::raise_open_files();
    let metrics = crate::http::start_metrics()?;
    let listeners = match handed.is_empty() {
        true => vec![listener::bind(place.address)?],
        false => handed,
    };
    let address = listeners[0].local_addr().context("Asking for the address of the listener")?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let base_url = format!("{scheme}://{}", parts::reachable(address));
    let (door, parts) = Parts::make(&config)?;
    let signals = signals::Signals::listen()?;

    let node = Node::new(&config, &parts);
    let app = parts::app(&config, &node, &auth, &parts, metrics.clone(), &base_url);
    node.serve(listeners, app, &config, tls.clone());
    node.background.spawn(rounds::sweep(metrics, METRICS_SWEEP, node.closing.clone()));
    let again = Again {
        asked: [
            node.look_after_trust(auth, extras.reread.clone(), place),
            node.look_after_schemas(parts.dir, &parts.schemas),
            node.look_after_channels(
                extras.reread,
                reload::InForce {
                    channels: parts.channels,
                    retentions: parts.retentions.clone(),
                    hooks: parts.hooks,
                },
            ),
        ],
        tls,
    };
    let migrating = Arc::new(AtomicBool::new(false));
    let supervised = Arc::new(Supervised::new(&base_url, parts.database, &node.bus, migrating.clone()));
    let opener = Opener {
        config: Arc::new(config),
        base_url: base_url.clone(),
        bus: parts.bus,
        schemas: parts.schemas,
        work: parts.work,
        retentions: parts.retentions,
        door,
        tasks: extras.tasks,
        sinks,
        closing: node.closing.clone(),
        supervisor: supervised.supervisor().clone(),
        migrating,
    };
    let engine = node.background.spawn(opener.run());
    node.background.spawn(supervised.clone().run(node.closing.clone()));
    Ok(Up { node, base_url, signals, again, engine, supervised })
}

/// How the part on the database ended.
type EngineEnd = Result<anyhow::Result<()>, JoinError>;

/// A node that is up.
struct Up {
    node: Node,
    base_url: String,
    signals: signals::Signals,
    again: Again,
    /// What works on the database.
    engine: JoinHandle<anyhow::Result<()>>,
    supervised: Arc<Supervised>,
}

/// Who reads again what may change while the node runs.
struct Again {
    asked: [Arc<Asked>; 3],
    tls: Option<Arc<Tls>>,
}

impl Again {
    /// What this gives ends when all have read.
    fn ask(&self, node: &Node) -> impl Future<Output = ()> + use<> {
        let readings = self.asked.each_ref().map(|asked| asked.ask());
        let tls = self.tls.clone().map(|tls| node.background.spawn_blocking(move || tls.reload()));
        async move {
            futures::future::join_all(readings).await;
            if let Some(tls) = tls {
                // one that panicked has been told of
                tls.await.ok();
            }
        }
    }
}

impl Up {
    /// Until a signal says so, or the engine has ended by itself.
    async fn until_end(&mut self) -> Option<EngineEnd> {
        loop {
            tokio::select! {
                ended = &mut self.engine => return Some(ended),
                signal = self.signals.next() => match signal {
                    signals::Signal::Reload => {
                        self.supervised.reloading();
                        let done = self.again.ask(&self.node);
                        self.node.background.spawn(self.supervised.clone().reload(done, self.node.closing.clone()));
                    }
                    signals::Signal::End => return None,
                },
            }
        }
    }

    /// In order, unless somebody insists.
    async fn go_down(mut self, early: Option<EngineEnd>) -> anyhow::Result<()> {
        info!("Going down.");
        let supervisor = self.supervised.supervisor().clone();
        supervisor.stopping("Going down: jobs and sessions get time to end");
        self.node.closing.cancel();
        let (node, engine) = (self.node, self.engine);
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
            // each step is bounded, and how long all of them may take is for the configuration to say
            outcome = supervisor.patiently(end) => outcome,
            // some supervisors go on asking whether it is alive; while it goes down parts of it stand still one by one
            never = supervisor.keep_alive_for_ever() => match never {},
            () = self.signals.insist() => Err(fault(Exit::Failed, "Asked twice to end: ended at once")),
        }
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
    fn new(config: &Config, parts: &Parts) -> Node {
        Node {
            closing: parts.closing.clone(),
            background: TaskTracker::new(),
            http: TaskTracker::new(),
            bus: parts.bus.clone(),
            work: parts.work.clone(),
            grace: config.server.shutdown_grace,
            patience: config.server.limits.handshake_timeout,
        }
    }

    fn serve(&self, listeners: Vec<TcpListener>, app: Arc<App>, config: &Config, tls: Option<Arc<Tls>>) {
        let limits = &config.server.limits;
        let service = Service {
            router: router(app),
            bus: self.bus.clone(),
            options: connection::Options {
                header_timeout: limits.handshake_timeout,
                header_bytes: limits.header_bytes.bytes(),
            },
            tls,
            room: Arc::new(Semaphore::new(limits.connections as usize)),
            closing: self.closing.clone(),
        };
        self.http.spawn(listener::run(listeners, service, self.grace));
    }

    /// Keeps the rules up to date; they are read again when what this gives is notified.
    fn look_after_trust(&self, auth: Arc<Auth>, reread: Option<Reread>, place: trust::Place) -> Arc<Asked> {
        let again = Arc::<Asked>::default();
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

    /// The same for the schemas.
    fn look_after_schemas(&self, dir: Option<SchemaDir>, schemas: &Arc<Schemas>) -> Arc<Asked> {
        let again = Arc::<Asked>::default();
        if let Some(dir) = dir {
            let closing = self.closing.clone();
            self.background.spawn(rounds::watch_schemas(
                dir,
                schemas.clone(),
                again.clone(),
                SCHEMA_LOOK,
                closing,
            ));
        }
        again
    }

    /// The same for channels and hooks.
    fn look_after_channels(&self, reread: Option<Reread>, in_force: reload::InForce) -> Arc<Asked> {
        let again = Arc::<Asked>::default();
        if let Some(read) = reread {
            let closing = self.closing.clone();
            self.background.spawn(reload::watch(read, in_force, again.clone(), closing));
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

/// Puts changed schemas in force, for who has no node.
pub(crate) async fn watch_schemas(dir: SchemaDir, schemas: Arc<Schemas>) {
    rounds::watch_schemas(dir, schemas, Arc::default(), SCHEMA_LOOK, CancellationToken::new()).await;
}
