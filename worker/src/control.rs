//! What the worker is told while it works: commands, and that a job which it runs was cancelled.
//!
//! The source wakes it, and each heartbeat makes it look besides, so that nothing depends on being woken. One look takes
//! what waits in the inbox and obeys, then asks which of its leases still hold and stops the runs whose do not. However many
//! words come at once, there is one look for all of them.

use crate::metrics::COMMANDS_TOTAL;
use crate::notes::call;
use crate::options::WorkerOptions;
use crate::pace::Pace;
use crate::report::Report;
use crate::running::{Running, Stopped};
use crate::side::{self, Identity};
use crate::source::JobSource;
use futures::FutureExt;
use futures::future::BoxFuture;
use minium_queue::{Command, JobSignal};
use serde_json::Value;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between two looks: what comes meanwhile goes along with the next.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// So many of the program's own commands may be under way.
const OWN_MAX: usize = 64;

/// What the program itself does when it is told to.
pub(crate) type Handler = Arc<dyn Fn(Vec<Value>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Everything that commands reach.
pub(crate) struct Control {
    pub(crate) source: Arc<dyn JobSource>,
    pub(crate) me: Arc<Identity>,
    pub(crate) running: Arc<Running>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) report: Arc<Report>,
    pub(crate) options: Arc<WorkerOptions>,
    /// The program's own commands, by name.
    pub(crate) own: BTreeMap<String, Handler>,
    /// Ends the worker.
    pub(crate) shutdown: CancellationToken,
}

impl Control {
    /// Listens until it is dropped.
    pub(crate) async fn run(self) {
        let mut controls = Some(self.source.controls());
        // aborted when dropped, as the worker ends
        let mut under_way = JoinSet::new();
        // what was said before anybody listened
        self.obey(&mut under_way).await;
        loop {
            tokio::select! {
                awake = side::changed(&mut controls) => {
                    if awake {
                        self.pace.hear();
                        self.obey(&mut under_way).await;
                        self.look_at_leases().await;
                    }
                }
                () = self.pace.look.notified() => self.look_at_leases().await,
                () = self.me.beaten.notified() => self.obey(&mut under_way).await,
            }
            while under_way.try_join_next().is_some() {}
            sleep(LOOK_PAUSE).await;
        }
    }

    /// Takes what waits in the inbox and does it.
    async fn obey(&self, under_way: &mut JoinSet<()>) {
        let told = call(self.source.commands(self.me.current().id), self.options.call_timeout).await;
        match told {
            Ok(commands) if commands.is_empty() => {}
            Ok(commands) => {
                for command in commands {
                    self.execute(command, under_way);
                }
                self.report.news.notify_one();
            }
            Err(error) => side::failed_call("commands", &error),
        }
    }

    fn execute(&self, command: Command, under_way: &mut JoinSet<()>) {
        // what a program's own commands bring is its affair alone, and not the log's
        let is_own = matches!(command, Command::Own { .. });
        let label = if is_own { "own" } else { command.name() };
        metrics::counter!(COMMANDS_TOTAL, "command" => label.to_owned()).increment(1);
        let args = (!is_own).then(|| Value::from(command.args()).to_string());
        info!(command = command.name(), args, "The worker is told something.");
        match command {
            Command::Pause => self.pace.change(|settings| settings.paused = true),
            Command::Resume => {
                let usual = self.options.concurrency;
                self.pace.change(|settings| settings.resume(usual));
            }
            Command::Concurrency(n) => self.pace.change(|settings| settings.concurrency = n as usize),
            Command::Spare(n) => self.pace.change(|settings| settings.spare = n as usize),
            Command::Stop(job) => self.running.of(job).iter().for_each(|run| run.stop(Stopped::Operator)),
            Command::Signal(job, signal) => self.signal(job, signal),
            Command::Shutdown => self.shutdown.cancel(),
            Command::Own { name, args } => self.execute_own(&name, args, under_way),
        }
    }

    /// A process gets the signal itself. A function has no process of its own: what ends a program stops it, and the rest
    /// would reach the whole worker.
    fn signal(&self, job: i64, signal: JobSignal) {
        for run in self.running.of(job) {
            if run.signals.send(signal) {
                continue;
            }
            if signal.ends() {
                run.stop(Stopped::Operator);
            } else {
                info!(
                    job_id = job,
                    signal = signal.as_str(),
                    "The job is no process; the signal is ignored."
                );
            }
        }
    }

    fn execute_own(&self, name: &str, args: Vec<Value>, under_way: &mut JoinSet<()>) {
        let Some(handler) = self.own.get(name) else {
            warn!(command = name, "The worker does not know this command.");
            return;
        };
        if under_way.len() >= OWN_MAX {
            warn!(command = name, "Too many commands are under way; this one is passed over.");
            return;
        }
        let (done, name) = (handler(args), name.to_owned());
        under_way.spawn(async move {
            if AssertUnwindSafe(done).catch_unwind().await.is_err() {
                warn!(command = name, "A command has panicked.");
            }
        });
    }

    /// Stops the runs whose leases are gone.
    async fn look_at_leases(&self) {
        let held: Vec<_> = self.running.all();
        for batch in held.chunks(side::EXTEND_BATCH_MAX) {
            if let Err(error) = side::extend(self.source.as_ref(), batch, &self.options).await {
                side::failed_call("extend", &error);
            }
        }
    }
}
