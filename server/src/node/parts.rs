//! What a node is made of, and how each part is set up from the configuration.

use super::{Node, SOURCE, opening};
use crate::auth::Auth;
use crate::config::Config;
use crate::database::{self, Database, Door};
use crate::exit::{Exit, fault};
use crate::hooks::{self, Hooks};
use crate::http::limit::Limiter;
use crate::http::{self, App, Limits};
use crate::schema_files::{self, SchemaDir};
use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use minium_bus::{Bus, Channels, Schemas};
use minium_notifier::{Retentions, TaskWork};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Everything between the listener and the database.
pub(super) struct Parts {
    pub(super) schemas: Arc<Schemas>,
    /// Where the schemas come from, if from anywhere.
    pub(super) dir: Option<SchemaDir>,
    pub(super) database: Database,
    pub(super) channels: Arc<Channels>,
    pub(super) retentions: Retentions,
    pub(super) hooks: Arc<Hooks>,
    pub(super) closing: CancellationToken,
    pub(super) work: TaskWork,
    pub(super) bus: Bus,
}

impl Parts {
    /// All of them, and the door by which the database comes in.
    pub(super) fn make(config: &Config) -> anyhow::Result<(Door, Parts)> {
        let schemas = Arc::new(Schemas::built_in());
        let dir = load_schemas(config.schemas.dir.as_deref(), &schemas)?;
        opening::check_schedules(config, &schemas)?;
        let (door, database) = database::awaited();
        let channels = Arc::new(Channels::new(config.bus_channels()).context("Setting up the channels")?);
        let hooks = hooks::build(config).map_err(|wrong| fault(Exit::Usage, wrong.join("\n")))?;
        let hooks = Arc::new(Hooks::new(hooks));
        let retentions = Retentions::new(config.retention_policy());
        let closing = CancellationToken::new();
        let work = opening::start_work(&database, &schemas, &closing);
        let bus = start_bus(config, (&schemas, &channels), &database, &work)?;
        Ok((door, Parts { schemas, dir, database, channels, retentions, hooks, closing, work, bus }))
    }
}

/// What handlers hold.
pub(super) fn app(
    config: &Config,
    node: &Node,
    auth: &Arc<Auth>,
    parts: &Parts,
    metrics: PrometheusHandle,
    base_url: &str,
) -> Arc<App> {
    let limits = &config.server.limits;
    Arc::new(App {
        bus: node.bus.clone(),
        schemas: parts.schemas.clone(),
        channels: parts.channels.clone(),
        database: parts.database.clone(),
        auth: auth.clone(),
        limiter: Limiter::new(config),
        limits: Limits {
            message_bytes: limits.message_bytes.bytes(),
            request_bytes: limits.request_bytes.bytes(),
            patience: limits.handshake_timeout,
        },
        public_url: config.server.public_url.as_ref().map_or(base_url, |url| url.0.as_str()).to_owned(),
        minion_topic: config.notifier.minion_topic.clone(),
        started: tokio::time::Instant::now(),
        metrics,
        figures: http::Figures::new(),
        waits: Semaphore::new(limits.waits as usize),
        histories: Arc::new(Semaphore::new(http::HISTORIES_MAX)),
        hooks: parts.hooks.clone(),
        hook_bodies: http::BodyRoom::new(limits.hook_bodies_per_address as usize),
        bulks: http::Bulks::new(node.background.clone()),
        closing: node.closing.clone(),
    })
}

/// As many open files as the system allows: each session is one.
pub(super) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // What is refused here is told by `minium doctor`, and by sessions that are.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok();
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

/// Reads the schema directory for the first time: the one that was named, which must be there, or `schemas`, if it is.
pub(crate) fn load_schemas(named: Option<&Path>, schemas: &Schemas) -> anyhow::Result<Option<SchemaDir>> {
    let Some(path) = schema_files::place(named) else { return Ok(None) };
    let mut dir = SchemaDir::new(path.to_owned());
    let report = dir.load(schemas).map_err(|error| {
        fault(Exit::Usage, format!("The schema directory {} cannot be read: {error}", path.display()))
    })?;
    // nothing stands before it that could stay in force: messages would pass unchecked, and secrets unhidden
    match schema_files::refused(&report, path) {
        Some(why) => Err(fault(Exit::Usage, format!("Schemas: {why}"))),
        None => Ok(Some(dir)),
    }
}

/// An address that a client on this machine can use.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
