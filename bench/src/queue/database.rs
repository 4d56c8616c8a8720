//! The PostgreSQL under test: databases of our own on the server that `--database` names, one for each contender and
//! round, and what is asked of it from outside.
//!
//! Whoever is measured begins on an empty database, and every load begins after VACUUM ANALYZE and a checkpoint, so that
//! nobody falls into the trap of stale statistics and nobody pays for the one before.

use crate::machine;
use crate::report::{Figures, rounded};
use anyhow::{Context, bail, ensure};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

/// How a driver of another language connects.
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: Option<String>,
}

/// The server.
pub(super) struct Server {
    url: String,
    client: Connection,
    /// The process above all of its processes, when it runs on this machine.
    postmaster: Option<u32>,
}

/// A connection, and what drives it; both end together.
pub(super) struct Connection {
    pub(super) client: Client,
    _drive: JoinSet<()>,
}

/// A database that is ours.
pub(super) struct Database {
    pub(super) name: String,
    pub(super) url: String,
    /// For looks from outside.
    pub(super) look: Connection,
    postmaster: Option<u32>,
}

impl Server {
    pub(super) async fn open(url: &str) -> anyhow::Result<Server> {
        ensure!(
            url.starts_with("postgres://") || url.starts_with("postgresql://"),
            "this is measured on PostgreSQL: --database postgres://…"
        );
        let client = connect(url).await?;
        // that a database to be dropped is not there is no news
        client.client.batch_execute("set client_min_messages = warning").await?;
        let pid: i32 = client.client.query_one("select pg_backend_pid()", &[]).await?.get(0);
        let postmaster = u32::try_from(pid).ok().and_then(machine::parent_of);
        Ok(Server { url: url.to_owned(), client, postmaster })
    }

    pub(super) async fn version(&self) -> anyhow::Result<String> {
        let shown = self.client.client.query_one("show server_version", &[]).await?;
        Ok(format!("PostgreSQL {}", shown.get::<_, String>(0)))
    }

    /// What decides what a commit costs; for the report.
    pub(super) async fn settings(&self) -> anyhow::Result<Vec<(String, String)>> {
        let names = ["fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size"];
        let sql = "select name, current_setting(name) from pg_settings where name = any ($1) order by name";
        let rows = self.client.client.query(sql, &[&names.as_slice()]).await?;
        Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
    }

    /// A database of this name, empty whatever was there before.
    pub(super) async fn create(&self, name: &str) -> anyhow::Result<Database> {
        let name = format!("minium_bench_{}", name.replace('-', "_"));
        self.drop_named(&name).await?;
        // template0, since nobody can be connected to it
        let create = format!("create database {name} template template0");
        self.client.client.batch_execute(&create).await.with_context(|| format!("making database {name}"))?;
        let url = with_database(&self.url, &name)?;
        let look = connect(&url).await?;
        Ok(Database { look, url, name, postmaster: self.postmaster })
    }

    pub(super) async fn remove(&self, database: Database) -> anyhow::Result<()> {
        self.drop_named(&database.name).await
    }

    async fn drop_named(&self, name: &str) -> anyhow::Result<()> {
        let drop = format!("drop database if exists {name} with (force)");
        self.client.client.batch_execute(&drop).await.with_context(|| format!("dropping database {name}"))
    }
}

impl Database {
    /// How a driver of another language connects.
    pub(super) fn place(&self) -> anyhow::Result<Place> {
        let config: Config = self.url.parse()?;
        let host = match config.get_hosts().first().context("the URL of the database names no host")? {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        };
        let password = config.get_password().map(|p| String::from_utf8_lossy(p).into_owned());
        Ok(Place {
            host,
            port: config.get_ports().first().copied().unwrap_or(5432),
            user: config.get_user().context("the URL of the database names no user")?.to_owned(),
            password,
        })
    }

    pub(super) async fn connect(&self) -> anyhow::Result<Connection> {
        connect(&self.url).await
    }

    /// Fresh statistics, and a checkpoint behind us.
    pub(super) async fn settle(&self) -> anyhow::Result<()> {
        // one by one: several in one call would be a transaction, which VACUUM refuses
        for statement in ["vacuum analyze", "checkpoint"] {
            self.look.client.batch_execute(statement).await.context(statement)?;
        }
        Ok(())
    }

    /// A single number.
    pub(super) async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        let row = self.look.client.query_one(sql, &[]).await.with_context(|| format!("asking: {sql}"))?;
        Ok(row.get(0))
    }

    /// Waits until a look says that it is so.
    pub(super) async fn until(&self, what: &str, sql: &str, patience: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        while !self
            .look
            .client
            .query_one(sql, &[])
            .await
            .with_context(|| format!("asking: {sql}"))?
            .get::<_, bool>(0)
        {
            ensure!(began.elapsed() < patience, "{what} did not come within {} s", patience.as_secs());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Where the write-ahead log stands, in bytes.
    pub(super) async fn wal_position(&self) -> anyhow::Result<i64> {
        self.number("select (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint").await
    }
}

/// What a load costs, from its beginning on.
pub(super) struct Meter {
    postmaster: Option<u32>,
    drivers: Vec<u32>,
    node: Option<u32>,
    began: Instant,
    before: Costs,
}

#[derive(Clone, Copy, Default)]
struct Costs {
    database: Duration,
    client: Duration,
    node: Duration,
    machine: Duration,
}

impl Meter {
    /// `drivers` are the processes of a peer, beside this one.
    pub(super) fn begin(database: &Database, drivers: Vec<u32>, node: Option<u32>) -> Meter {
        let mut meter = Meter {
            postmaster: database.postmaster,
            drivers,
            node,
            began: Instant::now(),
            before: Costs::default(),
        };
        meter.before = meter.costs();
        meter.began = Instant::now();
        meter
    }

    fn costs(&self) -> Costs {
        let own = machine::cpu_of(std::process::id()).unwrap_or_default();
        Costs {
            database: self.postmaster.map(machine::cpu_of_tree).unwrap_or_default(),
            client: own + self.drivers.iter().map(|pid| machine::cpu_of_tree(*pid)).sum::<Duration>(),
            node: self.node.map(machine::cpu_of_tree).unwrap_or_default(),
            machine: machine::cpu_of_machine(),
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Tells time and costs of so many jobs.
    pub(super) fn end(&self, jobs: u64, figures: &mut Figures) {
        let (seconds, now) = (self.seconds(), self.costs());
        let database = now.database.saturating_sub(self.before.database);
        let client = now.client.saturating_sub(self.before.client);
        let node = now.node.saturating_sub(self.before.node);
        let foreign =
            now.machine.saturating_sub(self.before.machine).saturating_sub(database + client + node);
        let each = |cost: Duration| rounded(cost.as_secs_f64() * 1e6 / jobs as f64);
        figures.insert("jobs".into(), rounded(jobs as f64));
        figures.insert("seconds".into(), rounded(seconds));
        figures.insert(super::rows::PER_SECOND.into(), rounded((jobs as f64 / seconds).round()));
        figures.insert(super::rows::DATABASE_CPU.into(), each(database));
        figures.insert(super::rows::CLIENT_CPU.into(), each(client));
        if self.node.is_some() {
            figures.insert(super::rows::NODE_CPU.into(), each(node));
        }
        figures.insert(super::rows::FOREIGN_CPU.into(), rounded(foreign.as_secs_f64()));
    }
}

pub(super) async fn connect(url: &str) -> anyhow::Result<Connection> {
    let config: Config = url.parse().context("reading the URL of the database")?;
    let (client, connection) = config.connect(NoTls).await.context("connecting to the database")?;
    let mut drive = JoinSet::new();
    drive.spawn(async move {
        // whoever uses the client hears of it
        let _ended = connection.await;
    });
    Ok(Connection { client, _drive: drive })
}

/// The same server, another database.
fn with_database(url: &str, name: &str) -> anyhow::Result<String> {
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let Some((scheme, rest)) = base.split_once("://") else { bail!("the URL of the database has no ://") };
    let authority = rest.split('/').next().unwrap_or("");
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    Ok(format!("{scheme}://{authority}/{name}{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_of_the_same_server() {
        let other = |url| with_database(url, "b").unwrap();
        assert_eq!(other("postgres:///a?host=/tmp&user=u"), "postgres:///b?host=/tmp&user=u");
        assert_eq!(other("postgres://u:p@h:1/a"), "postgres://u:p@h:1/b");
        assert_eq!(other("postgres://h"), "postgres://h/b");
    }
}
