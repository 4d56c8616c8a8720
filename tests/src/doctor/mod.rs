//! `minium doctor`, against what is really wrong: broken databases, missing grants, nodes that lack something.

mod outside;
mod roles;

use crate::support::node::{Node, Options, free_port};
use crate::support::pooler::Pooler;
use crate::support::postgres::{Cluster, ClusterOptions, Database, connect};
use crate::support::wait;
use serde_json::Value;
use std::net::TcpListener;

/// What it found, as `level name: words`, and its exit code.
struct Found {
    lines: Vec<String>,
    code: Option<i32>,
}

impl Found {
    /// Of a node's machine, with `--json`.
    async fn of(node: &Node, args: &[&str], env: &[(&str, &str)]) -> Found {
        let mut command = node.tokio_command();
        command.args(["doctor", "--json"]).args(args).envs(env.iter().copied());
        let output = wait::within("minium doctor", command.output()).await.unwrap();
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        let line = |finding: &Value| {
            let [level, name, words] = ["level", "name", "words"].map(|m| finding[m].as_str().unwrap());
            assert_eq!(level == "ok", finding["remedy"].is_null(), "each finding has its remedy: {finding}");
            let remedy = finding["remedy"].as_str().map_or(String::new(), |remedy| format!(" → {remedy}"));
            format!("{level} {name}: {words}{remedy}")
        };
        let lines: Vec<String> = report["findings"].as_array().unwrap().iter().map(line).collect();
        let failed = lines.iter().filter(|line| line.starts_with("fail ")).count();
        assert_eq!(report["failed"], failed, "{report}");
        assert_eq!(output.status.code(), Some(i32::from(failed > 0)), "{output:?}");
        Found { lines, code: output.status.code() }
    }

    /// The lines that begin so.
    fn with(&self, begin: &str) -> Vec<&str> {
        self.lines.iter().map(String::as_str).filter(|line| line.starts_with(begin)).collect()
    }

    /// One line that begins so and holds all of this.
    fn has(&self, begin: &str, words: &[&str]) {
        let found = self.with(begin).iter().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "{begin} with {words:?} is not in {:#?}", self.lines);
    }

    /// Nothing failed.
    fn is_well(&self) {
        assert!(self.code == Some(0) && self.with("fail ").is_empty(), "{:#?}", self.lines);
    }
}

/// A machine on which nothing runs.
async fn machine() -> Node {
    Node::memory().await
}

/// Looks at a database as a role will use it.
async fn database(node: &Node, url: &str, role: &str) -> Found {
    Found::of(node, &["--database", url, "--role", role, "--listen", "127.0.0.1:0"], &[]).await
}

/// The port of a node that runs is no fault, whatever it speaks; anything else there is one.
#[tokio::test]
async fn a_port_is_free_or_a_minium_s_or_taken() {
    let node = machine().await;
    let port = async |address: &str| {
        Found::of(&node, &["--database", "sqlite:x.db", "--listen", address], &[]).await
    };
    port("127.0.0.1:0").await.has("ok port: ", &["is free"]);
    let own = port(&node.address().to_string()).await;
    own.is_well();
    own.has("ok port: ", &["is taken by a Minium"]);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    // it takes connections, says what no node says, and ends
    let ending = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = other.accept().unwrap();
        assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello").unwrap();
        other
    });
    let found = port(&taken).await;
    assert_eq!(found.code, Some(1));
    found.has("fail port: ", &["no Minium", "→"]);
    drop(ending.join().unwrap());
    let free = free_port();
    port(&format!("127.0.0.1:{free}")).await.has("ok port: ", &["is free"]);
}

/// A node that is not whole, or asks for tokens, is a Minium all the same.
#[tokio::test]
async fn a_node_without_its_database_is_a_minium_too() {
    let away = "postgres://x@127.0.0.1:1/x";
    let node = Node::start(Options { await_ready: false, ..Options::on(away) }).await;
    let address = node.address().to_string();
    let found = Found::of(&node, &["--database", "sqlite:x.db", "--listen", &address], &[]).await;
    found.has("ok port: ", &["is taken by a Minium"]);
    let found = Found::of(&node, &["--database", away, "--listen", &address], &[]).await;
    found.has("fail database: ", &[away, "is it running"]);
}

/// SQLite: a file that is there, one that can be made, one that cannot.
#[tokio::test]
async fn a_sqlite_file_is_there_or_can_be_made() {
    let node = Node::start(Options::file()).await;
    let found = database(&node, &node.database(), "node").await;
    found.is_well();
    found.has("ok database: ", &["minium.db answers"]);
    found.has("ok database.schema: ", &["up to date"]);
    found.has("ok database.file: ", &["writable"]);
    found.has("ok spool: ", &[]);
    found.has("ok clock: ", &[]);
    database(&node, "sqlite:new.db", "node").await.has("ok database: ", &["will be made"]);
    database(&node, "sqlite:/proc/nowhere/x.db", "node").await.has("fail database: ", &["cannot be made"]);
    database(&node, "sqlite::memory:", "node").await.has("warn database: ", &["in memory"]);
}

/// A schema that is older, newer, or not there.
#[tokio::test]
async fn a_schema_is_held_against_the_program_s() {
    let (node, database_) = (machine().await, Database::create().await);
    let look = async || database(&node, database_.url(), "node").await;
    let found = look().await;
    found.is_well();
    found.has("warn database.schema: ", &["migrations are pending", "minium migrate"]);
    assert!(found.with("ok database.round_trip").is_empty(), "there is nothing to try yet");
    let mut migrate = node.tokio_command();
    migrate.args(["migrate", "--database", database_.url()]);
    assert!(wait::within("minium migrate", migrate.output()).await.unwrap().status.success());
    let found = look().await;
    found.is_well();
    found.has("ok database.schema: ", &["up to date"]);
    found.has("ok database.permissions: ", &["node"]);
    found.has("ok database.round_trip: ", &["ms"]);
    found.has("ok database.version: ", &["PostgreSQL"]);
    found.has("ok database.connections: ", &["in use"]);
    found.has("ok clock.database: ", &["this machine's"]);
    // the cluster of the tests has a superuser, and does not flush
    found.has("warn database.superuser: ", &["needs to own its schema", "→"]);
    let client = database_.connect().await;
    assert_eq!(client.query_one("select count(*) from minium.job", &[]).await.unwrap().get::<_, i64>(0), 0);
    client
        .batch_execute(
            "delete from minium.migration where number = (select max(number) from minium.migration)",
        )
        .await
        .unwrap();
    look().await.has("warn database.schema: ", &["1 of ", "pending"]);
    let newer = "insert into minium.migration (number, name, checksum) values (9999, 'x', 'y')";
    client.batch_execute(newer).await.unwrap();
    let found = look().await;
    assert_eq!(found.code, Some(1));
    found.has("fail database.schema: ", &["newer program"]);
}

/// A server that is set badly, and somebody who holds everything up.
#[tokio::test]
async fn a_server_that_is_set_badly_is_told() {
    const SETTINGS: &[&str] = &["synchronous_commit=off", "full_page_writes=off", "autovacuum=off"];
    let cluster = Cluster::start(ClusterOptions { settings: SETTINGS, ..ClusterOptions::default() }).await;
    let url = cluster.create_database("jobs").await;
    let node = machine().await;
    let found = database(&node, &url, "node").await;
    let off = ["fsync is off", "full_page_writes is off", "synchronous_commit is off"];
    found.has("warn database.durability: ", &off);
    found.has("warn database.dead_rows: ", &["autovacuum is off"]);
    // 50 connections are all that it has
    let config = "[database]\npool = 90\n";
    std::fs::write(node.dir().join("large.toml"), config).unwrap();
    let args = ["--config", "large.toml", "--database", &url, "--listen", "127.0.0.1:0"];
    Found::of(&node, &args, &[]).await.has("fail database.connections: ", &["may open 93", "pool"]);
    // a well-set one is the other half
    const GOOD: &[&str] = &["synchronous_commit=on"];
    let cluster =
        Cluster::start(ClusterOptions { fsync: true, settings: GOOD, ..ClusterOptions::default() }).await;
    let url = cluster.create_database("jobs").await;
    database(&node, &url, "node").await.has("ok database.durability: ", &["on its disk"]);
    let standby = cluster.standby(ClusterOptions::default()).await;
    let url = standby.url("jobs");
    wait::until("the standby to have the database", async || connect(&url).await.ok()).await;
    database(&node, &url, "node").await.has("fail database.standby: ", &["takes no writes"]);
}

/// What stands between is noticed, and what was said of it believed.
#[tokio::test]
async fn a_pooler_in_between_is_noticed() {
    let (node, behind) = (machine().await, Database::create().await);
    let pooler: Pooler = behind.pooler().await;
    let unsaid = pooler.url().replace("&pgbouncer=true", "");
    database(&node, &pooler.url(), "node").await.has("ok database.pooler: ", &["transaction mode"]);
    database(&node, &unsaid, "node").await.has("warn database.pooler: ", &["6432", "pgbouncer=true"]);
    database(&node, behind.url(), "node").await.has("ok database.pooler: ", &["none"]);
}
