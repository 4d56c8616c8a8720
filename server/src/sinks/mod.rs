//! Sinks: those outside who are told of events, by webhooks or as statuses of commits.
//!
//! The notifier follows the journal and makes each event a job; here is what the configuration means by a sink, and the task
//! that does these jobs. So retries, their pauses, history and figures are those of every job, and a receiver that is slow
//! stops nobody. What must hold: a secret stands in no job; nothing is connected to but what was judged; what a receiver
//! answers is read to a bound and decides nothing but this delivery.

mod address;
mod github;
mod left;
mod open;
pub(crate) mod outbound;
mod told;
mod verdict;
mod webhook;

pub(crate) use left::finish_left;
pub(crate) use open::open_sinks;
pub(crate) use outbound::parse_url;

use crate::auth::read_secret;
use crate::config::{Config, Sink as SinkConfig, SinkKind};
use crate::node::SOURCE;
use crate::webhook_signature::Secret;
use github::{Place, StatusRule, Statuses};
use http::HeaderValue;
use jiff::Timestamp;
use minium_notifier::{
    Begin, FollowOptions, Journal, RelayState, Rule, Sink, follow, forget_strangers, is_registered,
};
use minium_queue::Store;
use minium_worker::{Failure, JobContext, StoreSource, Worker, WorkerOptions};
use outbound::{Road, trust};
use secrecy::ExposeSecret;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use told::{Delivery, TASK, Terms, Told};
pub(crate) use told::{QUEUE, TASK_NAMESPACE};
use tracing::{debug, warn};
use verdict::Verdict;
use webhook::{Webhook, WebhookRule};

/// A delivery to a sink that this node does not have waits so long for one that has it, and the longer it has waited, the
/// longer: each time is a run, with its events.
const STRANGE_PAUSE_MIN: Duration = Duration::from_secs(5);
const STRANGE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Where a delivery goes.
enum Outlet {
    Webhook(Webhook),
    Statuses(Statuses),
}

/// All sinks of a node.
#[derive(Clone)]
pub(crate) struct Sinks {
    follow: Vec<Sink>,
    outlets: Arc<BTreeMap<String, Outlet>>,
    concurrency: usize,
    forget_after: Duration,
    remember: Duration,
}

impl Sinks {
    /// Out of the configuration and the files that it names. Blocks a little. All that is wrong is told at once.
    pub(crate) fn make(config: &Config) -> Result<Sinks, Vec<String>> {
        let (mut follow, mut outlets, mut wrong) = (Vec::new(), BTreeMap::new(), Vec::new());
        let system =
            if config.sinks.values().any(|sink| sink.ca_file.is_none()) { Some(trust(None)) } else { None };
        for (name, sink) in &config.sinks {
            let trusted = match (&sink.ca_file, &system) {
                (None, Some(trusted)) => trusted.clone(),
                (file, _) => trust(file.as_deref()),
            };
            let made = trusted.map_err(|why| format!("ca_file: {why}")).and_then(|tls| {
                let road = Road { allow_private: sink.allow_private, timeout: sink.timeout, tls };
                make(name, sink, road)
            });
            match made {
                Ok((rule, outlet)) => {
                    let begin = if sink.from == "earliest" { Begin::Earliest } else { Begin::Now };
                    follow.push(Sink { name: name.as_str().into(), topics: sink.filters(), begin, rule });
                    outlets.insert(name.clone(), outlet);
                }
                Err(why) => wrong.push(format!("sinks.{name}.{why}")),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Sinks {
            follow,
            outlets: Arc::new(outlets),
            concurrency: config.deliveries.concurrency as usize,
            forget_after: config.deliveries.forget_after,
            remember: config.deliveries.remember,
        })
    }

    /// Has this node none?
    pub(crate) fn is_empty(&self) -> bool {
        self.outlets.is_empty()
    }

    /// Follows the journal for all of them, and lets go of those that are nobody's any more.
    pub(crate) fn start(
        &self,
        journal: &Journal,
        states: &watch::Receiver<RelayState>,
        tasks: &TaskTracker,
        closing: &CancellationToken,
    ) {
        let options = FollowOptions {
            owner: format!("node {}", std::process::id()),
            remember: self.remember,
            ..FollowOptions::default()
        };
        for sink in &self.follow {
            let following =
                follow(journal.clone(), states.clone(), sink.clone(), options.clone(), closing.clone());
            tasks.spawn(following);
        }
        let own = self.outlets.keys().cloned().collect();
        tasks.spawn(forget_strangers(journal.clone(), own, self.forget_after, closing.clone()));
    }

    /// What does the deliveries: for ever, or until there is none that can be done now.
    pub(crate) fn worker(
        &self,
        store: &Arc<dyn Store>,
        journal: &Journal,
        config: &Config,
        until_empty: bool,
    ) -> Worker {
        let options = WorkerOptions {
            queues: vec![QUEUE.into()],
            concurrency: self.concurrency,
            lease: config.worker.lease,
            grace: config.server.shutdown_grace,
            until_empty,
            ..WorkerOptions::default()
        };
        let desk = Desk { outlets: self.outlets.clone(), store: store.clone(), journal: journal.clone() };
        let run = move |context, args| deliver(desk.clone(), context, args);
        Worker::new(StoreSource::new(store.clone()), options).task(TASK, run)
    }
}

fn make(name: &str, sink: &SinkConfig, road: Road) -> Result<(Arc<dyn Rule>, Outlet), String> {
    let terms = Terms {
        sink: name.to_owned(),
        attempts: i32::try_from(sink.attempts).unwrap_or(i32::MAX),
        backoff: sink.backoff,
        timeout: sink.timeout,
    };
    match sink.kind() {
        Some(SinkKind::Webhook) => {
            let states = sink.states.iter().flatten().filter_map(|state| state.parse().ok()).collect();
            let bearer =
                sink.bearer_file.as_deref().map(|path| bearer("bearer_file", &file("bearer_file", path)?));
            let webhook = Webhook {
                target: parse_url(sink.url.as_deref().unwrap_or_default())
                    .map_err(|why| format!("url: {why}"))?,
                secrets: secrets(sink)?,
                bearer: bearer.transpose()?,
                road,
            };
            Ok((Arc::new(WebhookRule { terms, states }), Outlet::Webhook(webhook)))
        }
        Some(SinkKind::GithubStatus) => {
            let place = Place {
                repository: sink.repository.clone().unwrap_or_default(),
                sha: sink.sha.clone().unwrap_or_default(),
            };
            let token = match (&sink.token, &sink.token_file) {
                (Some(token), _) => token.0.expose_secret().to_owned(),
                (None, path) => file("token_file", path.as_deref().unwrap_or(Path::new("")))?,
            };
            let base = sink.base_url.as_ref().map_or("https://api.github.com", |url| url.0.as_str());
            let statuses = Statuses {
                place: place.clone(),
                base: base.to_owned(),
                authorization: bearer("token", &token)?,
                context: sink.context.clone(),
                target_url: sink.target_url.clone(),
                road,
            };
            Ok((Arc::new(StatusRule { terms, place }), Outlet::Statuses(statuses)))
        }
        None => Err("kind: is missing".into()),
    }
}

/// A file's text, without the whitespace around it.
fn file(key: &str, path: &Path) -> Result<String, String> {
    let bytes = read_secret(path).map_err(|e| format!("{key}: {} cannot be read: {e}", path.display()))?;
    let text = std::str::from_utf8(bytes.expose_secret())
        .map_err(|_| format!("{key}: {} is no text", path.display()))?;
    Ok(text.to_owned())
}

fn bearer(key: &str, token: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| format!("{key}: has characters that no header can have"))?;
    value.set_sensitive(true);
    if token.is_empty() { Err(format!("{key}: is empty")) } else { Ok(value) }
}

fn secrets(sink: &SinkConfig) -> Result<Vec<Secret>, String> {
    let mut secrets = Vec::new();
    for text in sink.secrets.iter() {
        secrets.push(Secret::parse(text).map_err(|why| format!("secrets: {why}"))?);
    }
    for path in sink.secret_files.iter().flatten() {
        let text = file("secret_files", Path::new(path))?;
        secrets.push(Secret::parse(&text).map_err(|why| format!("secret_files: {path}: {why}"))?);
    }
    Ok(secrets)
}

/// What deliveries are done with.
#[derive(Clone)]
struct Desk {
    outlets: Arc<BTreeMap<String, Outlet>>,
    store: Arc<dyn Store>,
    journal: Journal,
}

/// The task: one attempt to tell of one event.
async fn deliver(desk: Desk, context: JobContext, args: Vec<Delivery>) -> Result<Value, Failure> {
    let [delivery] = &args[..] else {
        return Err(Failure::permanent("a delivery has one argument, the sink and the event"));
    };
    let event = delivery.event();
    let Some(told) = Told::read(&event) else {
        return Err(Failure::permanent("what is to be told is no event"));
    };
    let now = Timestamp::now();
    let Some(outlet) = desk.outlets.get(&delivery.sink) else {
        return Err(desk.strange(&delivery.sink, &context, now).await);
    };
    let store = &*desk.store;
    let verdict = match outlet {
        Outlet::Webhook(webhook) => webhook.deliver(&told, event, now).await,
        Outlet::Statuses(statuses) => statuses.deliver(&told, told.source == SOURCE, store, now).await,
    };
    verdict.count(&delivery.sink);
    let (sink, job, attempt) = (delivery.sink.as_str(), context.id(), context.attempt());
    match &verdict {
        Verdict::Delivered(_) | Verdict::Skipped(_) => debug!(sink, job, attempt, "An event was told."),
        Verdict::Refused(why) => {
            context.log(minium_protocol::LogLevel::Error, why);
            warn!(sink, job, attempt, error = %why, "A receiver does not want an event; it is not sent again.");
        }
        Verdict::Failed(why) | Verdict::Later(_, why) => {
            context.log(minium_protocol::LogLevel::Warn, why);
            debug!(sink, job, attempt, error = %why, "An event could not be told yet.");
        }
    }
    let waited = match verdict {
        Verdict::Later(..) => waited(store, &context, now).await,
        _ => Duration::ZERO,
    };
    verdict.of_job(waited)
}

impl Desk {
    /// What becomes of a delivery to a sink that this node does not have. As long as that is registered another node may have
    /// it, or will when it has been started anew; then it is nobody's any more.
    async fn strange(&self, sink: &str, context: &JobContext, now: Timestamp) -> Failure {
        // whoever cannot be asked is asked at the next attempt
        if is_registered(&self.journal, sink).await.unwrap_or(true) {
            let pause = waited(&*self.store, context, now).await / 8;
            return Failure::postpone(pause.clamp(STRANGE_PAUSE_MIN, STRANGE_PAUSE_MAX));
        }
        let sink = sink.chars().take(64).collect::<String>();
        let job = context.id();
        warn!(sink, job, "No node has the sink any more: an event that waited for it is not told.");
        Failure::permanent(format!("no node has a sink named {sink:?} any more"))
    }
}

/// How long a delivery has been waiting to be done: its event may be much older, of a time when nobody followed.
async fn waited(store: &dyn Store, context: &JobContext, now: Timestamp) -> Duration {
    let view = store.get(context.id()).await.ok().flatten();
    // whoever cannot be asked is asked at the next attempt
    let created = view.and_then(|view| view.job().ok()).map_or(now, |job| job.created);
    Duration::try_from(now.duration_since(created)).unwrap_or_default()
}

/// Says what the metrics mean. Once, at start.
pub(crate) fn describe_metrics() {
    metrics::describe_counter!(verdict::DELIVERIES, "Deliveries to sinks, by how an attempt ended.");
}
