//! The database: does it answer, which schema has it, how is it set, what may we do there, and which time has it?
//!
//! The queue asks (SQL is its affair); what an answer means is judged here, by pure functions.

use super::clock;
use super::finding::{Finding, Level};
use super::machine::room;
use crate::config::Config;
use crate::node::{causes, open_backend};
use minium_queue::postgres::{Between, Checkup, DatabaseRole, PgStore, VERSION_MIN};
use minium_queue::{Backend, DatabaseUrl, QueueError, SqlitePlace};
use rustix::fs::{Access, access};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// A database that does not answer within this is not there.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections of a node besides its pool: one listens, one looks whether the server is there, one is the journal's.
const CONNECTIONS_OWN: i64 = 3;
/// A transaction that is open for longer keeps dead rows, and holds up whoever waits for its locks.
const TRANSACTION_MAX: Duration = Duration::from_secs(300);
/// Fewer dead rows are no matter.
const DEAD_ROWS_MIN: i64 = 100_000;

/// Looks at the database as `role` will use it.
pub(super) async fn look(config: &Config, role: DatabaseRole) -> Vec<Finding> {
    const NAME: &str = "database";
    let url: DatabaseUrl = match config.database.url.parse() {
        Ok(url) => url,
        Err(error) => return vec![Finding::fail(NAME, causes(&error), "set database.url")],
    };
    match &url {
        DatabaseUrl::Sqlite(SqlitePlace::Memory) => {
            let hint = "fine for a look; nothing outlives the process";
            return vec![Finding::warn(NAME, format!("{url} keeps everything in memory"), hint)];
        }
        DatabaseUrl::Sqlite(SqlitePlace::File(path)) if !path.exists() => return vec![new_file(path)],
        DatabaseUrl::Sqlite(SqlitePlace::File(_)) | DatabaseUrl::Postgres(_) => {}
    }
    let hint = "is it running, does it let this user in? `minium serve` starts without it and waits";
    let opened = tokio::time::timeout(PATIENCE, async {
        let backend = open_backend(config, &url).await?;
        backend.store().ping().await?;
        Ok::<_, QueueError>(backend)
    });
    let backend = match opened.await {
        Err(_) => return vec![Finding::fail(NAME, format!("{url} does not answer within 10 s"), hint)],
        Ok(Err(error)) => return vec![Finding::fail(NAME, format!("{url}: {}", causes(&error)), hint)],
        Ok(Ok(backend)) => backend,
    };
    let mut findings = vec![Finding::ok(NAME, format!("{url} answers"))];
    match (&backend, &url) {
        (Backend::Postgres(store), _) => {
            let asked = Box::pin(postgres(&backend, store, config, role));
            match tokio::time::timeout(PATIENCE * 3, asked).await {
                Ok(more) => findings.extend(more),
                Err(_) => findings.push(Finding::fail(NAME, format!("{url} stopped to answer"), hint)),
            }
        }
        (Backend::Sqlite(_), DatabaseUrl::Sqlite(SqlitePlace::File(path))) => {
            findings.push(schema(&backend).await.finding);
            findings.extend(file(path));
        }
        (Backend::Sqlite(_), _) => {}
    }
    findings
}

async fn postgres(backend: &Backend, store: &PgStore, config: &Config, role: DatabaseRole) -> Vec<Finding> {
    let mut findings = Vec::new();
    // first, since one that nobody told of is why all else may fail
    match store.between().await {
        Ok(between) => findings.push(pooler(between)),
        Err(error) => return vec![Finding::fail("database.server", causes(&error), "is it going down?")],
    }
    match store.checkup().await {
        Ok(checkup) => findings.extend(judged(&checkup, i64::from(config.database.pool), role)),
        Err(error) => {
            let hint = "let this role connect and read pg_settings; what does database.pooler say?";
            findings.push(Finding::fail("database.server", causes(&error), hint));
        }
    }
    findings.push(clock::database(store.clock().await.as_ref()));
    // others need not know what was migrated, and may not look
    let (mut there, mut whole) = (true, true);
    if matches!(role, DatabaseRole::Node | DatabaseRole::Worker) {
        let schema = schema(backend).await;
        whole = schema.finding.level == Level::Ok;
        there = schema.there;
        findings.push(schema.finding);
    }
    if there || role == DatabaseRole::Node {
        findings.extend(permissions(store, role).await);
    }
    if whole && matches!(role, DatabaseRole::Node | DatabaseRole::Enqueuer) {
        findings.push(trial(store).await);
    }
    findings
}

/// What is to be said of the schema, and whether there is any.
struct Schema {
    finding: Finding,
    there: bool,
}

async fn schema(backend: &Backend) -> Schema {
    const NAME: &str = "database.schema";
    let status = match backend.migration_status().await {
        Ok(status) => status,
        Err(error @ QueueError::Schema(_)) => {
            let finding = Finding::fail(NAME, causes(&error), "run the program that made this schema");
            return Schema { finding, there: true };
        }
        Err(error) => {
            let hint = "this role may not even look: database.permissions says what it lacks";
            return Schema { finding: Finding::fail(NAME, causes(&error), hint), there: true };
        }
    };
    let pending = status.iter().filter(|migration| migration.applied.is_none()).count();
    let finding = match pending {
        0 => Finding::ok(NAME, format!("up to date at {}", status.len())),
        n => {
            let words = format!("{n} of {} migrations are pending", status.len());
            Finding::warn(NAME, words, "`minium migrate` applies them; `minium serve` does so by itself")
        }
    };
    Schema { finding, there: pending < status.len() }
}

/// What the role lacks, each with what mends it.
async fn permissions(store: &PgStore, role: DatabaseRole) -> Vec<Finding> {
    const NAME: &str = "database.permissions";
    match store.missing_grants(role).await {
        Err(error) => {
            vec![Finding::fail(NAME, causes(&error), "the catalogue of the database cannot be read")]
        }
        Ok(missing) if missing.is_empty() => vec![Finding::ok(NAME, format!("all that a {role} needs"))],
        Ok(missing) => {
            missing.into_iter().map(|grant| Finding::fail(NAME, grant.words, grant.remedy)).collect()
        }
    }
}

/// A job is enqueued, in a transaction that is rolled back.
async fn trial(store: &PgStore) -> Finding {
    const NAME: &str = "database.round_trip";
    let begun = Instant::now();
    match store.try_enqueue().await {
        Ok(()) => {
            let took = begun.elapsed().as_secs_f64() * 1e3;
            Finding::ok(NAME, format!("a job enqueued and taken back in {took:.1} ms"))
        }
        Err(error) => Finding::fail(NAME, causes(&error), "`minium migrate`, then see database.permissions"),
    }
}

/// What the server's answers mean for whoever is `role` and opens `pool` connections.
fn judged(checkup: &Checkup, pool: i64, role: DatabaseRole) -> Vec<Finding> {
    let mut findings = vec![version(checkup)];
    if checkup.standby {
        let hint = "name all servers in the URL, with target_session_attrs=read-write";
        findings.push(Finding::fail("database.standby", "it is a standby, and takes no writes", hint));
    }
    if role == DatabaseRole::Node && checkup.superuser {
        let words =
            format!("{} is a superuser; a node needs to own its schema and nothing more", checkup.user);
        let hint = "docs/security.md, Roles in PostgreSQL";
        findings.push(Finding::warn("database.superuser", words, hint));
    }
    findings.push(durability(checkup));
    findings.push(connections(checkup, pool));
    findings.push(transactions(checkup));
    findings.push(dead_rows(checkup));
    findings
}

fn version(checkup: &Checkup) -> Finding {
    const NAME: &str = "database.version";
    let words = format!("PostgreSQL {}", checkup.version);
    if checkup.major < VERSION_MIN {
        return Finding::fail(
            NAME,
            words,
            format!("{VERSION_MIN} is the oldest that is supported: upgrade it"),
        );
    }
    Finding::ok(NAME, words)
}

fn durability(checkup: &Checkup) -> Finding {
    const NAME: &str = "database.durability";
    let settings = &checkup.settings;
    let off: Vec<String> = [
        (!settings.fsync).then(|| "fsync is off".to_owned()),
        (!settings.full_page_writes).then(|| "full_page_writes is off".to_owned()),
        (settings.synchronous_commit == "off").then(|| "synchronous_commit is off".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if off.is_empty() {
        return Finding::ok(NAME, "what is acknowledged is on its disk");
    }
    let words = format!("{}: a power cut loses what was acknowledged", off.join(", "));
    Finding::warn(NAME, words, "switch it on in postgresql.conf, unless this database is for tests")
}

fn connections(checkup: &Checkup, pool: i64) -> Finding {
    const NAME: &str = "database.connections";
    let (max, used, needed) = (checkup.settings.connections_max, checkup.connections, pool + CONNECTIONS_OWN);
    let words = format!("{used} of {max} are in use, and a node may open {needed}");
    let hint = "raise max_connections, or lower [database] pool";
    if needed > max {
        Finding::fail(NAME, words, hint)
    } else if used + needed > max {
        Finding::warn(NAME, words, hint)
    } else {
        Finding::ok(NAME, words)
    }
}

fn pooler(between: Between) -> Finding {
    const NAME: &str = "database.pooler";
    let Between { pooled, said, listens } = between;
    if pooled {
        let words = "in transaction mode, as the URL says: nobody is notified, workers look once a second";
        return Finding::ok(NAME, words);
    }
    if said != listens {
        let words =
            format!("the URL says port {said}, the server listens on {listens}: something stands between");
        let hint = "if it is pgbouncer in transaction mode, put pgbouncer=true into the URL";
        return Finding::warn(NAME, words, hint);
    }
    Finding::ok(NAME, "none")
}

fn transactions(checkup: &Checkup) -> Finding {
    const NAME: &str = "database.transactions";
    match &checkup.oldest_transaction {
        Some((age, whose)) if *age > TRANSACTION_MAX => {
            let never = if checkup.settings.idle_in_transaction.is_none() {
                "; idle_in_transaction_session_timeout would have"
            } else {
                ""
            };
            let words = format!(
                "one is open for {} min ({whose}): dead rows stay, and locks with it",
                age.as_secs() / 60
            );
            Finding::warn(NAME, words, format!("find out whose it is; pg_terminate_backend() ends it{never}"))
        }
        _ => Finding::ok(NAME, "none is open for long"),
    }
}

fn dead_rows(checkup: &Checkup) -> Finding {
    const NAME: &str = "database.dead_rows";
    if !checkup.settings.autovacuum {
        let words = "autovacuum is off: dead rows are never cleared away, and claims get slower";
        return Finding::warn(NAME, words, "switch it on in postgresql.conf");
    }
    let many =
        checkup.dead_rows.iter().find(|(_, living, dead)| *dead > DEAD_ROWS_MIN && *dead / 2 > *living);
    match many {
        Some((table, living, dead)) => {
            let words = format!("minium.{table} has {dead} dead rows beside {living} living ones");
            let hint =
                format!("what keeps them? An old transaction, or a slow vacuum: vacuum minium.{table};");
            Finding::warn(NAME, words, hint)
        }
        None => Finding::ok(NAME, "few"),
    }
}

/// A file that is there: SQLite writes beside it, too.
fn file(path: &Path) -> Vec<Finding> {
    const NAME: &str = "database.file";
    let dir = parent(path);
    let wrong = [path, &dir].into_iter().find(|place| access(*place, Access::WRITE_OK).is_err());
    let finding = match wrong {
        Some(place) => {
            let words = format!("{} is not writable", place.display());
            Finding::fail(NAME, words, "let this user write there: SQLite keeps its log beside the file")
        }
        None => Finding::ok(NAME, format!("{} and its directory are writable", path.display())),
    };
    [finding].into_iter().chain(room("database.room", path)).collect()
}

/// A file that is to be made: can it be?
fn new_file(path: &Path) -> Finding {
    let parent = parent(path);
    let writable = rustix::fs::access(&parent, rustix::fs::Access::WRITE_OK).is_ok();
    if writable {
        Finding::ok("database", format!("{} will be made", path.display()))
    } else {
        let words =
            format!("{} cannot be made: {} is not there or not writable", path.display(), parent.display());
        Finding::fail("database", words, "set database.url to a place that this user can write")
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().filter(|p| !p.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level::{Fail, Ok, Warn};
    use super::*;
    use minium_queue::postgres::Settings;

    fn well() -> Checkup {
        Checkup {
            version: "15.4".into(),
            major: 15,
            user: "minium".into(),
            superuser: false,
            standby: false,
            settings: Settings {
                fsync: true,
                synchronous_commit: "on".into(),
                full_page_writes: true,
                connections_max: 97,
                idle_in_transaction: None,
                autovacuum: true,
            },
            connections: 5,
            oldest_transaction: None,
            dead_rows: vec![("job".into(), 10, 99)],
        }
    }

    fn level(checkup: &Checkup, pool: i64, name: &str) -> Option<Level> {
        let findings = judged(checkup, pool, DatabaseRole::Node);
        findings.iter().find(|finding| finding.name == name).map(|finding| finding.level)
    }

    #[test]
    fn a_server_that_is_well_has_no_remedy() {
        let findings = judged(&well(), 8, DatabaseRole::Node);
        assert!(findings.iter().all(|finding| finding.remedy.is_none()), "{findings:?}");
    }

    #[test]
    fn what_is_wrong_with_a_server_is_judged() {
        let settings = |change: fn(&mut Settings)| {
            let mut checkup = well();
            change(&mut checkup.settings);
            checkup
        };
        let warned = |checkup: &Checkup, name| assert_eq!(level(checkup, 8, name), Some(Warn), "{name}");
        warned(&settings(|s| s.fsync = false), "database.durability");
        warned(&settings(|s| s.full_page_writes = false), "database.durability");
        warned(&settings(|s| s.synchronous_commit = "off".into()), "database.durability");
        warned(&settings(|s| s.autovacuum = false), "database.dead_rows");
        warned(&Checkup { superuser: true, ..well() }, "database.superuser");
        warned(&Checkup { connections: 90, ..well() }, "database.connections");
        let old = Some((Duration::from_secs(400), "process 7".to_owned()));
        warned(&Checkup { oldest_transaction: old, ..well() }, "database.transactions");
        warned(&Checkup { dead_rows: vec![("job".into(), 10, 200_000)], ..well() }, "database.dead_rows");
        assert_eq!(level(&Checkup { major: 13, ..well() }, 8, "database.version"), Some(Fail));
        assert_eq!(level(&Checkup { standby: true, ..well() }, 8, "database.standby"), Some(Fail));
        assert_eq!(level(&well(), 200, "database.connections"), Some(Fail));
        // and what is not wrong
        let young = Some((Duration::from_secs(40), String::new()));
        assert_eq!(
            level(&Checkup { oldest_transaction: young, ..well() }, 8, "database.transactions"),
            Some(Ok)
        );
        let busy = vec![("job".into(), 1_000_000, 200_000)];
        assert_eq!(level(&Checkup { dead_rows: busy, ..well() }, 8, "database.dead_rows"), Some(Ok));
    }

    #[test]
    fn what_stands_between_is_judged_by_the_ports() {
        let level = |pooled, said| pooler(Between { pooled, said, listens: 5432 }).level;
        assert_eq!((level(false, 5432), level(false, 6432), level(true, 6432)), (Ok, Warn, Ok));
    }
}
