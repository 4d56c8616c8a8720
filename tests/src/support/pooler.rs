//! pgbouncer in transaction mode before a cluster: a real one, with few connections, so that sessions do change.

use super::postgres::UNPRIVILEGED_ID;
use super::wait;
use rustix::process::{Pid, Signal, getuid, kill_process};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A running pgbouncer.
#[derive(Debug)]
pub(crate) struct Pooler {
    dir: TempDir,
    process: Child,
    database: String,
}

impl Pooler {
    /// Before the server whose unix socket is in `server`, for `database`, with so many connections to it.
    pub(crate) async fn start(server: &Path, database: &str, connections: u32) -> Pooler {
        let dir = tempfile::Builder::new().prefix("minium-pool-").tempdir_in("/tmp").unwrap();
        let (place, config) = (dir.path().display().to_string(), dir.path().join("pgbouncer.ini"));
        let text = format!(
            "[databases]\n* = host={server} port=5432 user=minium\n[pgbouncer]\npool_mode = transaction\n\
             unix_socket_dir = {place}\nlisten_port = 6432\nauth_type = any\nlogfile = {place}/log\n\
             default_pool_size = {connections}\nmax_client_conn = 200\n",
            server = server.display()
        );
        std::fs::write(&config, text).unwrap();
        if getuid().is_root() {
            for path in [dir.path(), &config] {
                std::os::unix::fs::chown(path, Some(UNPRIVILEGED_ID), Some(UNPRIVILEGED_ID)).unwrap();
            }
        }
        let process =
            program(&config).unwrap_or_else(|e| panic!("pgbouncer is missing: run ./scripts/test: {e}"));
        let pooler = Pooler { dir, process, database: database.to_owned() };
        let url = pooler.url().replace("&pgbouncer=true", "");
        wait::until("pgbouncer to start", async || {
            super::postgres::connect(&url).await.ok()?.simple_query("select 1").await.ok()
        })
        .await;
        pooler
    }

    /// Where the database is through it, as Minium wants to be told.
    pub(crate) fn url(&self) -> String {
        let (database, place) = (&self.database, self.dir.path().display());
        format!("postgres:///{database}?host={place}&port=6432&user=minium&pgbouncer=true")
    }
}

fn program(config: &PathBuf) -> std::io::Result<Child> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("pgbouncer");
    command
        .env("PATH", format!("{path}:/usr/sbin"))
        .arg(config)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if getuid().is_root() {
        command.uid(UNPRIVILEGED_ID).gid(UNPRIVILEGED_ID);
    }
    command.spawn()
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // it may have ended by itself, which is what the test then fails of
        kill_process(Pid::from_child(&self.process), Signal::KILL).ok();
        self.process.wait().ok();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            eprintln!("--- log of pgbouncer\n{log}");
        }
    }
}
