//! A node, workers as processes of their own, and the commands that they run.

use super::audit::{Books, Event, Run, runs_in};
use crate::support::node::Node;
use crate::support::postgres::connect;
use crate::support::wait;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::process::Child;

/// The task, below a channel that pullers may have too.
pub(super) const TASK: &str = "effects/1";

/// Leases are short, and what nobody extends is taken away as soon as they end.
pub(super) const CONFIG: &str =
    "[queue]\nlease_grace = \"0s\"\n[channels.\"effects\"]\ndurable = true\nlease = \"2s\"\n";

/// Writes down that it was run, and by whom: one line, on the disk before anything else is done. Then does as it is told:
/// fails every other time, takes longer than a lease, or waits, the first time, for a file. Nothing ends it early, so that what it did is told.
const PROGRAM: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
trap '' TERM
args=$(cat)
printf '%s %s %s\n' "$MINIUM_JOB_ID" "$MINIUM_ATTEMPT" "$PPID" >> effects
sync effects
own="\"run:$MINIUM_JOB_ID:$MINIUM_ATTEMPT;\""
case "$args" in
*fail*) if [ $((MINIUM_ATTEMPT % 2)) = 1 ]; then echo "$own" >&2; exit 3; fi;;
*long*) sleep 3;;
*hold*) while [ "$MINIUM_ATTEMPT" = 1 ] && [ ! -e go ]; do sleep 0.05; done;;
esac
echo "$own"
"#;

/// How workers get at jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Database,
    Socket,
}

/// The scene of a test.
pub(super) struct Stage {
    pub(super) node: Node,
    way: Way,
    workers: Vec<Option<Child>>,
    books: Books,
}

impl Stage {
    /// With so many workers, none of which is there yet.
    pub(super) fn new(node: Node, way: Way, workers: usize) -> Stage {
        let path = node.dir().join("effect.sh");
        std::fs::write(&path, PROGRAM).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Stage { node, way, workers: (0..workers).map(|_| None).collect(), books: Books::default() }
    }

    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    fn spool(&self, worker: usize) -> PathBuf {
        self.node.dir().join(format!("spool-{worker}"))
    }

    /// Starts a worker, in the place of the one that was there before.
    pub(super) fn start(&mut self, worker: usize) {
        let log = self.node.log_file();
        let mut command = self.node.tokio_command();
        match self.way {
            Way::Database => command.args(["worker", "--database", &self.node.database(), "--lease", "2s"]),
            Way::Socket => command.args(["worker", "--url", &self.node.ws(""), "--lease", "2s"]),
        };
        command.args([
            "-j",
            "2",
            "--task",
            &format!("{TASK}={}", self.node.dir().join("effect.sh").display()),
        ]);
        command.arg("--spool").arg(self.spool(worker));
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.workers[worker] = Some(child);
    }

    pub(super) fn pid(&self, worker: usize) -> Pid {
        let id = self.workers[worker].as_ref().and_then(Child::id).expect("the worker is running");
        Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
    }

    fn signal(&self, worker: usize, signal: Signal) {
        kill_process(self.pid(worker), signal).unwrap();
    }

    /// Stops a worker where it is, but not where it holds a file's one lock: nobody could take anything away from it then.
    pub(super) fn stop(&self, worker: usize) {
        self.signal(worker, Signal::STOP);
        while self.node.database().strip_prefix("sqlite:").is_some_and(is_locked) {
            self.signal(worker, Signal::CONT);
            self.signal(worker, Signal::STOP);
        }
    }

    pub(super) fn go_on(&self, worker: usize) {
        self.signal(worker, Signal::CONT);
    }

    /// kill -9. What is on its disk then must not be lost.
    pub(super) async fn kill(&mut self, worker: usize) {
        self.workers[worker].take().expect("the worker is running").kill().await.unwrap();
        self.note_what_is_spooled(worker);
    }

    pub(super) fn note_what_is_spooled(&mut self, worker: usize) {
        let Ok(files) = std::fs::read_dir(self.spool(worker)) else { return };
        let spools = files.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "spool"));
        let text = |path: PathBuf| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        self.books.brought.extend(spools.flat_map(|path| runs_in(&text(path))));
    }

    /// Enqueues a job, over outages; answers the one that was acknowledged.
    pub(super) async fn enqueue(&mut self, what: &str, attempts: i32) -> i64 {
        let body =
            json!({"task": TASK, "args": [what], "attempts": attempts, "backoff": "100ms"}).to_string();
        let http = reqwest::Client::new();
        let id = wait::until("a job to be taken", async || {
            let answer = http.post(self.node.http("/api/v1/jobs")).body(body.clone()).send().await.ok()?;
            if answer.status() != 201 {
                assert_eq!(answer.status(), 503, "{:?}", answer.text().await);
                return None;
            }
            answer.json::<Value>().await.ok()?["id"].as_i64()
        })
        .await;
        self.books.enqueued.push(id);
        id
    }

    /// What commands wrote down, and for which process.
    pub(super) fn effects(&self) -> Vec<(Run, i32)> {
        let text = std::fs::read_to_string(self.node.dir().join("effects")).unwrap_or_default();
        let line = |line: &str| {
            let mut numbers = line.split(' ').map(|n| n.parse::<i64>().unwrap());
            let mut next = || numbers.next().unwrap();
            let (job, attempt, process) = (next(), next(), next());
            ((job, i32::try_from(attempt).unwrap()), i32::try_from(process).unwrap())
        };
        text.lines().map(line).collect()
    }

    /// The journal; `None` while the database is away.
    pub(super) async fn events(&self) -> Option<Vec<Event>> {
        let read = |job: String, kind: String, data: String, late: Option<String>| Event {
            job: job.parse().unwrap(),
            kind,
            data: serde_json::from_str(&data).unwrap(),
            late: late.map(|late| serde_json::from_str(&late).unwrap()),
        };
        const WHAT: &str = "where topic like 'task/effects/%' order by seq";
        let database = self.node.database();
        if let Some(path) = database.strip_prefix("sqlite:") {
            let conn = rusqlite::Connection::open(path).unwrap();
            let sql = format!("select subject, type, data, late from entry {WHAT}");
            let mut statement = conn.prepare(&sql).unwrap();
            let rows =
                statement.query_map([], |row| Ok(read(row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
            return Some(rows.unwrap().map(Result::unwrap).collect());
        }
        let sql = format!("select subject, type, data::text, late::text from minium.entry {WHAT}");
        let rows = connect(&database).await.ok()?.query(&sql, &[]).await.ok()?;
        Some(rows.iter().map(|row| read(row.get(0), row.get(1), row.get(2), row.get(3))).collect())
    }

    /// Whether others than those that were stopped can write: a file has one writer at a time, and waits for it.
    pub(super) fn can_write(&self) -> bool {
        let database = self.node.database();
        let Some(path) = database.strip_prefix("sqlite:") else { return true };
        let conn = rusqlite::Connection::open(path).unwrap();
        conn.busy_timeout(Duration::from_secs(2)).unwrap();
        conn.execute_batch("begin immediate; rollback").is_ok()
    }

    /// Waits until the journal shows something.
    pub(super) async fn until<T>(&self, what: &str, look: impl Fn(&[Event]) -> Option<T>) -> T {
        wait::until(what, async || look(&self.events().await?)).await
    }

    /// Runs that have an outcome by now.
    pub(super) fn over(events: &[Event]) -> BTreeSet<Run> {
        let ends = ["task.finished", "task.failed", "task.lost"];
        events.iter().filter(|e| ends.contains(&e.kind.as_str())).map(|e| (e.job, e.attempt())).collect()
    }

    /// Lets everything end, and gives out the books.
    pub(super) async fn close(mut self) -> Books {
        let all = self.books.enqueued.clone();
        self.until("every job to end", |events| {
            // a failure and its retry come in one commit
            let last: BTreeMap<i64, &Event> = events.iter().map(|event| (event.job, event)).collect();
            all.iter().all(|job| last.get(job).is_some_and(|event| event.has_ended())).then_some(())
        })
        .await;
        for worker in 0..self.workers.len() {
            // an orderly end: what it still holds is handed in first
            if let Some(mut child) = self.workers[worker].take() {
                let pid = Pid::from_raw(i32::try_from(child.id().expect("it runs")).unwrap()).unwrap();
                kill_process(pid, Signal::TERM).unwrap();
                wait::within("a worker to end", child.wait()).await.unwrap();
            }
            self.note_what_is_spooled(worker);
        }
        self.books.effects = self.effects().into_iter().map(|(run, _)| run).collect();
        self.books.events = self.events().await.expect("the database is there");
        self.books
    }
}

/// For longer than those who go on hold it.
fn is_locked(path: &str) -> bool {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.busy_timeout(Duration::from_secs(1)).unwrap();
    conn.execute_batch("begin immediate; rollback").is_err()
}
