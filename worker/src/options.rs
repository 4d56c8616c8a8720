//! Every bound and every pace of a worker.

use crate::command::check_sandbox;
use crate::error::WorkerError;
use crate::retries::TaskBackoff;
use crate::sandbox::Sandbox;
use minium_queue::UpkeepRules;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// From which queues it takes jobs.
    pub queues: Vec<String>,
    /// How many jobs it runs at once.
    pub concurrency: usize,
    /// So many more slots, for jobs of high priority when all others are full. None by default: `concurrency` is then a
    /// promise, and a busy worker is not woken in vain.
    pub spare: usize,
    /// From this priority on a job may take a spare slot.
    pub spare_min_priority: i32,
    /// At most so many jobs of a task at once.
    pub limits: BTreeMap<String, u32>,
    /// How long a claimed job is its own unless the lease is extended, which happens at a third of this.
    pub lease: Duration,
    /// Leases are extended at least so often even if they are long: that is also how a worker hears that a job was
    /// cancelled.
    pub renew_max: Duration,
    /// How often it looks for work when nothing wakes it; jittered by a quarter either way.
    pub poll: Duration,
    /// How often it says that it is alive.
    pub heartbeat: Duration,
    /// When what it runs has changed it says so earlier, but not more often than this.
    pub status_interval: Duration,
    /// It ends by itself once nothing is ready and nothing runs. Only with a source that says at once what there is: a
    /// [`ClientSource`](crate::ClientSource) does not.
    pub until_empty: bool,
    /// Looks after the queue besides working. The server does so itself; a worker on its own must.
    pub upkeep: Option<UpkeepOptions>,
    /// At most so many outcomes and so many claims in one exchange.
    pub batch_max: usize,
    /// Outcomes in one exchange take no more than this, but for a single larger one.
    pub batch_bytes_max: usize,
    /// While so many outcomes wait for the source, nothing more is claimed.
    pub outcomes_max: usize,
    /// While waiting outcomes take so much memory, nothing more is claimed.
    pub outcomes_bytes_max: usize,
    /// Notes, progress and log lines of one job are written at most once in this time; what comes between goes together.
    pub annotation_interval: Duration,
    /// A run without a time-out of its own or of its task's ends after this.
    pub timeout: Option<Duration>,
    /// At shutdown, running jobs may take so long to end by themselves.
    pub grace: Duration,
    /// A run that is told to stop may take so long; then it is dropped, or killed if it is a command.
    pub stop_grace: Duration,
    /// At shutdown, the last outcomes are offered for so long.
    pub handover_grace: Duration,
    /// A larger result is a failure.
    pub result_bytes_max: usize,
    /// Errors are cut to this.
    pub error_bytes_max: usize,
    /// Backtraces are cut to this.
    pub backtrace_bytes_max: usize,
    /// How long jobs of these tasks wait for their automatic retry, unless they say so themselves.
    pub backoffs: BTreeMap<String, TaskBackoff>,
    /// One claim in sixteen lets those go first, whatever their priority, that have been ready for so long: urgent work
    /// never starves the rest. `None` lets it.
    pub aged: Option<Duration>,
    /// Pause after the first failed call to the source; it doubles up to `retry_max`, each time jittered.
    pub retry_min: Duration,
    /// The longest pause between calls that fail.
    pub retry_max: Duration,
    /// A call to the source that takes longer has failed.
    pub call_timeout: Duration,
    /// Put before every command: a program that makes it die with the worker and holds it back
    /// ([`become_command`](crate::become_command)). It is given `--sandbox` and a [`Launch`](crate::Launch) as JSON, if there is a
    /// sandbox, then `--` and the command.
    pub launcher: Vec<String>,
    /// What holds commands back that do not say so themselves. It takes a launcher.
    pub sandbox: Option<Sandbox>,
    /// Name of this machine; asked of the system when left out.
    pub host: Option<String>,
    /// What a command writes to stderr stands in the log of its job, line by line.
    pub log_stderr: bool,
    /// Gets each line that a command writes to stderr, besides what becomes of it.
    pub output: Option<Output>,
}

/// Where lines go that commands write.
#[derive(Clone)]
pub struct Output(Arc<dyn Fn(&str) + Send + Sync>);

impl Output {
    /// To this function, which must not wait.
    pub fn new(line: impl Fn(&str) + Send + Sync + 'static) -> Output {
        Output(Arc::new(line))
    }

    pub(crate) fn line(&self, text: &str) {
        (self.0)(text);
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Output")
    }
}

impl Default for WorkerOptions {
    fn default() -> WorkerOptions {
        WorkerOptions {
            queues: vec!["default".into()],
            concurrency: 4,
            spare: 0,
            spare_min_priority: 1,
            limits: BTreeMap::new(),
            lease: Duration::from_secs(30),
            renew_max: Duration::from_secs(5),
            poll: Duration::from_secs(1),
            heartbeat: Duration::from_secs(15),
            status_interval: Duration::from_secs(1),
            until_empty: false,
            upkeep: None,
            batch_max: 500,
            batch_bytes_max: 8 * 1024 * 1024,
            outcomes_max: 1_000,
            outcomes_bytes_max: 64 * 1024 * 1024,
            annotation_interval: Duration::from_millis(200),
            timeout: None,
            grace: Duration::from_secs(30),
            stop_grace: Duration::from_secs(5),
            handover_grace: Duration::from_secs(10),
            result_bytes_max: 1024 * 1024,
            error_bytes_max: 8 * 1024,
            backtrace_bytes_max: 32 * 1024,
            backoffs: BTreeMap::new(),
            aged: Some(Duration::from_secs(30)),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
            call_timeout: Duration::from_secs(60),
            launcher: Vec::new(),
            sandbox: None,
            host: None,
            log_stderr: true,
            output: None,
        }
    }
}

/// How a worker looks after the queue.
#[derive(Debug, Clone)]
pub struct UpkeepOptions {
    /// What a round does.
    pub rules: UpkeepRules,
    /// At least so often; earlier when a delayed job falls due.
    pub every: Duration,
}

impl Default for UpkeepOptions {
    fn default() -> UpkeepOptions {
        UpkeepOptions { rules: UpkeepRules::default(), every: Duration::from_secs(5) }
    }
}

impl WorkerOptions {
    /// Refuses what could not work at all.
    pub(crate) fn check(&self) -> Result<(), WorkerError> {
        let spans =
            [self.lease, self.renew_max, self.poll, self.heartbeat, self.retry_min, self.call_timeout];
        if self.concurrency == 0 {
            Err(WorkerError::Option("a worker needs a concurrency of at least 1"))
        } else if self.limits.values().any(|limit| *limit == 0) {
            Err(WorkerError::Option("a worker's limit for a task is at least 1; leave the task out instead"))
        } else if self.queues.is_empty() {
            Err(WorkerError::Option("a worker needs at least one queue"))
        } else if self.batch_max == 0 || self.outcomes_max == 0 {
            Err(WorkerError::Option("a worker's batches hold at least 1 job"))
        } else if spans.iter().any(Duration::is_zero) {
            Err(WorkerError::Option(
                "lease, renewal, poll, heartbeat, retry and call times of a worker are above zero",
            ))
        } else {
            self.sandbox.iter().try_for_each(check_sandbox)
        }
    }
}
