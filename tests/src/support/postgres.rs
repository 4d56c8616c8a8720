//! PostgreSQL for tests: a database of its own for each test, or a private cluster for those who break it.
//!
//! `scripts/test` starts one throwaway cluster for the whole run and names it in `MINIUM_TEST_POSTGRES`; a
//! [`Database`] there costs some milliseconds and is dropped with its value. A [`Cluster`] costs about two seconds
//! and may be killed, stopped and started again; its programs come from `MINIUM_TEST_PG_BIN`.

use super::pooler::Pooler;
use super::wait;
use rustix::process::{Pid, Signal, getuid, kill_process};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls, config::Host};

/// Who PostgreSQL runs as when the tests run as root, which it refuses to be: nobody.
pub(crate) const UNPRIVILEGED_ID: u32 = 65_534;

fn environment(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run ./scripts/test, it starts PostgreSQL"))
}

/// A URL that libpq and tokio-postgres read alike, over a unix socket.
fn url(socket_dir: &Path, user: &str, database: &str) -> String {
    format!("postgres:///{database}?host={}&user={user}", socket_dir.display())
}

/// Connects, and keeps the connection going on the current runtime until the client is dropped.
pub(crate) async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // the connection ends with its client; what it fails of reaches the client's next query
    drop(tokio::spawn(connection));
    Ok(client)
}

/// A database that nobody else uses, dropped with this value.
#[derive(Debug)]
pub(crate) struct Database {
    admin: String,
    name: String,
    url: String,
}

impl Database {
    /// A new, empty database on the cluster of this run.
    pub(crate) async fn create() -> Database {
        let admin = environment("MINIUM_TEST_POSTGRES");
        let config: Config = admin.parse().unwrap_or_else(|e| panic!("MINIUM_TEST_POSTGRES is no URL: {e}"));
        let [Host::Unix(socket_dir)] = config.get_hosts() else {
            panic!("MINIUM_TEST_POSTGRES must name one unix socket directory: run ./scripts/test")
        };
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let client = connect(&admin).await.unwrap_or_else(|e| panic!("no PostgreSQL at {admin}: {e}"));
        // template0, since nobody can be connected to it: tests create databases at the same time
        let create = format!("create database {name} template template0");
        client.batch_execute(&create).await.unwrap();
        let url = url(socket_dir, config.get_user().unwrap_or("postgres"), &name);
        Database { admin, name, url }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A pooler before it.
    pub(crate) async fn pooler(&self) -> Pooler {
        let config: Config = self.url.parse().unwrap();
        let [Host::Unix(socket_dir)] = config.get_hosts() else { panic!("it was made with one unix socket") };
        Pooler::start(socket_dir, &self.name, 3).await
    }

    /// A connection of the test's own.
    pub(crate) async fn connect(&self) -> Client {
        connect(&self.url).await.unwrap()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (admin, drop_it) =
            (self.admin.clone(), format!("drop database if exists {} with (force)", self.name));
        // a thread, since drop may run inside of a runtime, which cannot be blocked on
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let client = connect(&admin).await.map_err(std::io::Error::other)?;
                client.batch_execute(&drop_it).await.map_err(std::io::Error::other)
            })
        });
        match dropping.join() {
            Ok(Ok(())) => {}
            // the cluster is thrown away after the run: a database that stays harms nobody
            Ok(Err(e)) => eprintln!("database {} was not dropped: {e}", self.name),
            Err(_) => eprintln!("database {} was not dropped: the thread panicked", self.name),
        }
    }
}

/// How a private cluster is made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ClusterOptions {
    /// Flush to disk as in production; without it a power cut would lose data, but a kill would not.
    pub(crate) fsync: bool,
    /// Listens on this port of 127.0.0.1 too, and speaks TLS there by `server.crt` and `server.key` of its data.
    pub(crate) tls_port: Option<u16>,
    /// Further settings, each `name=value`.
    pub(crate) settings: &'static [&'static str],
}

/// A cluster of a test's own, killed and deleted with this value.
#[derive(Debug)]
pub(crate) struct Cluster {
    dir: TempDir,
    bin: PathBuf,
    options: ClusterOptions,
    server: Option<Child>,
}

impl Cluster {
    /// Makes a cluster and starts it.
    pub(crate) async fn start(options: ClusterOptions) -> Cluster {
        let mut cluster = Cluster::prepare(options);
        cluster.restart().await;
        cluster
    }

    /// Makes a cluster that is not running.
    pub(crate) fn prepare(options: ClusterOptions) -> Cluster {
        let cluster = Cluster::nothing(options);
        let mut initdb = cluster.command("initdb");
        initdb.args(["--auth=trust", "--username=minium", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        cluster.make(&mut initdb);
        cluster
    }

    /// Makes a standby that follows this one, and starts it.
    pub(crate) async fn standby(&self, options: ClusterOptions) -> Cluster {
        let mut standby = Cluster::nothing(options);
        let mut basebackup = standby.command("pg_basebackup");
        basebackup.args(["--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream", "--no-sync"]);
        basebackup.arg("--dbname").arg(self.url("postgres"));
        standby.make(&mut basebackup);
        standby.restart().await;
        standby
    }

    /// Makes a standby the one that takes writes.
    pub(crate) async fn promote(&self) {
        let client = connect(&self.url("postgres")).await.unwrap();
        let promoted = client.query_one("select pg_promote()", &[]).await.unwrap();
        assert!(promoted.get::<_, bool>(0), "the standby was not promoted");
    }

    /// The directory of its socket.
    pub(crate) fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    /// A URL that names both, for a node that is to find whichever takes writes.
    pub(crate) fn url_with(&self, other: &Cluster, name: &str) -> String {
        let (one, other) = (self.dir.path().display(), other.dir.path().display());
        format!("postgres:///{name}?host={one}&host={other}&user=minium&target_session_attrs=read-write")
    }

    /// Stops every process of it where it is: the kernel goes on taking connections, and nobody answers.
    pub(crate) fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        let server = Pid::from_child(self.server.as_ref().expect("the cluster is running"));
        kill_process(server, signal).unwrap();
        for entry in std::fs::read_dir("/proc").unwrap() {
            let Ok(stat) = std::fs::read_to_string(entry.unwrap().path().join("stat")) else { continue };
            // pid (name) state parent …
            let Some((head, tail)) = stat.rsplit_once(')') else { continue };
            let parent = tail.split_whitespace().nth(1).and_then(|p| p.parse::<i32>().ok());
            let child =
                head.split_whitespace().next().and_then(|p| p.parse::<i32>().ok()).and_then(Pid::from_raw);
            if parent == Some(server.as_raw_nonzero().get())
                && let Some(child) = child
            {
                // it may have ended meanwhile
                kill_process(child, signal).ok();
            }
        }
    }

    fn nothing(options: ClusterOptions) -> Cluster {
        let bin = PathBuf::from(environment("MINIUM_TEST_PG_BIN"));
        // not under $TMPDIR: a socket's path has 107 bytes at most, and nobody must be able to reach it
        let dir = tempfile::Builder::new().prefix("minium-pg-").tempdir_in("/tmp").unwrap();
        if getuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(UNPRIVILEGED_ID), Some(UNPRIVILEGED_ID)).unwrap();
        }
        Cluster { dir, bin, options, server: None }
    }

    /// Runs what makes its data.
    fn make(&self, command: &mut Command) {
        let made = command.arg("--pgdata").arg(self.data()).output().unwrap();
        assert!(made.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&made.stderr));
    }

    /// Where the database `name` is; `postgres` is always there.
    pub(crate) fn url(&self, name: &str) -> String {
        let url = url(self.dir.path(), "minium", name);
        self.options.tls_port.map_or_else(|| url.clone(), |port| format!("{url}&port={port}"))
    }

    /// Creates a database there and tells where it is.
    pub(crate) async fn create_database(&self, name: &str) -> String {
        let client = connect(&self.url("postgres")).await.unwrap();
        client.batch_execute(&format!("create database {name}")).await.unwrap();
        self.url(name)
    }

    /// Kills the postmaster with SIGKILL, as the kernel does when memory is out. Its children end by themselves.
    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.end(Signal::KILL)
    }

    /// Immediate stop: no checkpoint, no goodbye; the next start recovers from the log.
    pub(crate) fn stop_immediately(&mut self) -> ExitStatus {
        self.end(Signal::QUIT)
    }

    /// Fast stop: sessions are ended, a checkpoint is written.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.end(Signal::INT)
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        let mut server = self.server.take().expect("the cluster is running");
        kill_process(Pid::from_child(&server), signal).unwrap();
        server.wait().unwrap()
    }

    /// Starts it on the same data and socket, and waits until it answers.
    pub(crate) async fn restart(&mut self) {
        assert!(self.server.is_none(), "the cluster is running already");
        wait::until("PostgreSQL to start", async || {
            let mut server = self.server.take().unwrap_or_else(|| self.spawn());
            if server.try_wait().unwrap().is_some() {
                // after a kill the children of the old one may still hold its memory for a moment
                return None;
            }
            self.server = Some(server);
            connect(&self.url("postgres")).await.ok()?.simple_query("select 1").await.ok()
        })
        .await;
    }

    fn spawn(&self) -> Child {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let fsync = if self.options.fsync { "fsync=on" } else { "fsync=off" };
        self.command("postgres")
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.dir.path())
            .args(["-c", "listen_addresses=", "-c", fsync, "-c", "max_connections=50"])
            .args(self.options.settings.iter().flat_map(|setting| ["-c", setting]))
            .args(self.options.tls_port.map_or(vec![], |port| {
                let port = port.to_string();
                ["-c", "listen_addresses=127.0.0.1", "-c", "ssl=on", "-p", &port].map(str::to_owned).to_vec()
            }))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir("/").stdin(Stdio::null());
        if getuid().is_root() {
            command.uid(UNPRIVILEGED_ID).gid(UNPRIVILEGED_ID);
        }
        command
    }

    /// Puts a file there that the server alone may read.
    pub(crate) fn put(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        if getuid().is_root() {
            std::os::unix::fs::chown(&path, Some(UNPRIVILEGED_ID), Some(UNPRIVILEGED_ID)).unwrap();
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What the server has said, for a failing test.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.server.is_some() {
            // it may have been stopped in the middle of a test
            self.thaw();
            self.stop_immediately();
        }
        if std::thread::panicking() {
            eprintln!("--- log of PostgreSQL\n{}", self.log());
        }
    }
}
