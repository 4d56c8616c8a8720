//! A database with a real Minion in it, the orders that it takes, and what of it has come into the journal.

use crate::support::node::{binary, checkout};
use crate::support::postgres::Database;
use crate::support::wait;
use serde_json::{Value, json};
use std::process::{Output, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_postgres::Client;

/// One entry of the journal.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) topic: String,
    pub(super) kind: String,
    pub(super) source: Option<String>,
    /// As it was written.
    pub(super) text: String,
    pub(super) data: Value,
}

impl Entry {
    pub(super) fn job(&self) -> i64 {
        self.data["id"].as_i64().unwrap()
    }
}

/// A process of Perl's that does what it is told with Minion.
pub(super) struct Minion {
    pub(super) database: Database,
    /// A connection of somebody who may look at everything.
    pub(super) admin: Client,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// The last entry that was looked at.
    seen: i64,
    // killed with this value
    _process: Child,
}

impl Minion {
    /// A Minion in a database of its own, as a role that owns nothing else. Its tables are made.
    pub(super) async fn start() -> Minion {
        let database = Database::create().await;
        let admin = database.connect().await;
        // a role is one of the whole cluster, and other tests want it at the same time
        let sql = "do $$ begin create role minion login; exception when duplicate_object or unique_violation then null; end $$;
                   grant create on schema public to minion";
        admin.batch_execute(sql).await.unwrap();
        Minion::on(database, admin, 0).await
    }

    async fn on(database: Database, admin: Client, seen: i64) -> Minion {
        let mut process = perl(&database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("perl cannot be started: {e}"));
        let stdin = process.stdin.take().expect("stdin is piped");
        let answers = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        let mut minion = Minion { database, admin, stdin, answers, seen, _process: process };
        // the first question makes the tables
        minion.order(json!({ "do": "stats" })).await;
        minion
    }

    /// The same database with a new process, as after a restart of the application.
    pub(super) async fn start_again(minion: Minion) -> Minion {
        let Minion { database, admin, seen, .. } = minion;
        Minion::on(database, admin, seen).await
    }

    /// The same, attached.
    pub(super) async fn attached() -> Minion {
        let minion = Minion::start().await;
        let output = minion.attach(&["--name", "app"]).await;
        assert!(output.status.success(), "{output:?}");
        minion
    }

    /// Runs `minium attach minion` on its database.
    pub(super) async fn attach(&self, args: &[&str]) -> Output {
        attach(self.database.url(), args).await
    }

    /// Lets it do something; a failure fails the test.
    pub(super) async fn order(&mut self, order: Value) -> Value {
        let answer = self.try_order(&order).await;
        assert!(answer.get("error").is_none(), "{order}: {answer}");
        answer["ok"].clone()
    }

    async fn try_order(&mut self, order: &Value) -> Value {
        self.stdin.write_all(format!("{order}\n").as_bytes()).await.unwrap();
        let line = wait::within("Minion's answer", self.answers.next_line()).await.unwrap();
        serde_json::from_str(&line.unwrap_or_else(|| panic!("Minion has ended at {order}"))).unwrap()
    }

    /// Enqueues a job.
    pub(super) async fn enqueue(&mut self, task: &str, options: Value) -> i64 {
        let order = json!({ "do": "enqueue", "task": task, "args": [1, "é"], "options": options });
        self.order(order).await.as_i64().unwrap()
    }

    /// Takes the job that must be the next.
    pub(super) async fn dequeue(&mut self, id: i64) {
        assert_eq!(self.order(json!({ "do": "dequeue" })).await, id);
    }

    /// Runs SQL as somebody who may do everything.
    pub(super) async fn sql(&self, sql: &str) {
        self.admin.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// What has come into the journal since the last look, in the order of the writers.
    pub(super) async fn entries(&mut self) -> Vec<Entry> {
        let sql = "select seq, topic, type, source, data::text from minium.entry where seq > $1 order by seq";
        let rows = self.admin.query(sql, &[&self.seen]).await.unwrap();
        self.seen = rows.last().map_or(self.seen, |row| row.get(0));
        let entry = |row: &tokio_postgres::Row| {
            let text: String = row.get(4);
            let data = serde_json::from_str(&text).unwrap();
            Entry { topic: row.get(1), kind: row.get(2), source: row.get(3), text, data }
        };
        rows.iter().map(entry).collect()
    }

    /// Asserts what has come since the last look, and gives it.
    pub(super) async fn expect(&mut self, expected: &[(&str, i64)]) -> Vec<Entry> {
        let entries = self.entries().await;
        let found: Vec<_> = entries.iter().map(|e| (e.kind.as_str(), e.job())).collect();
        assert_eq!(found, expected);
        entries
    }

    /// A worker of its own process, that forks for each job. It ends with the value.
    pub(super) fn worker(&self) -> Child {
        perl(&self.database).arg("work").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    }
}

/// Runs `minium attach minion` anywhere.
pub(super) async fn attach(url: &str, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(["attach", "minion", "--database", url]).args(args).stdin(Stdio::null()).kill_on_drop(true);
    wait::within("minium attach", command.output()).await.unwrap()
}

fn perl(database: &Database) -> Command {
    let mut command = Command::new("perl");
    command.arg(checkout().join("tests/clients/minion.pl")).arg(perl_url(database.url()));
    command.kill_on_drop(true);
    command
}

/// The URL as Mojo::Pg wants it: the socket's directory stands where others have a host.
fn perl_url(url: &str) -> String {
    let (before, query) = url.split_once('?').unwrap();
    let name = before.rsplit('/').next().unwrap();
    let host = query.split('&').find_map(|pair| pair.strip_prefix("host=")).unwrap();
    format!("postgresql://minion@{}/{name}", host.replace('/', "%2F"))
}
