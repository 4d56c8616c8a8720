//! Which database keeps the queue, and the store on it.
//!
//! Opening a backend never waits for a database: on PostgreSQL nothing is connected until something is asked, so that
//! a server starts without its database and comes whole when it appears.

use crate::error::QueueError;
use crate::migrations::{Migration, MigrationStatus};
use crate::postgres::{PgOptions, PgStore};
use crate::sqlite::SqliteStore;
use crate::store::Store;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// Where the queue is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// `sqlite:PATH` or `sqlite::memory:`.
    Sqlite(SqlitePlace),
    /// `postgres://…` or `postgresql://…`, as libpq reads it; a unix socket by `?host=/dir`.
    Postgres(String),
}

/// Where a SQLite database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlitePlace {
    /// In a file.
    File(PathBuf),
    /// In memory, gone with the process.
    Memory,
}

impl FromStr for DatabaseUrl {
    type Err = QueueError;

    fn from_str(text: &str) -> Result<DatabaseUrl, QueueError> {
        if let Some(place) = text.strip_prefix("sqlite:") {
            return match place {
                "" => Err(QueueError::Invalid("the database URL sqlite: names no file".into())),
                ":memory:" => Ok(DatabaseUrl::Sqlite(SqlitePlace::Memory)),
                // `sqlite:///var/lib/x.db` is `/var/lib/x.db`, `sqlite://x.db` and `sqlite:x.db` are `x.db`
                path => {
                    Ok(DatabaseUrl::Sqlite(SqlitePlace::File(path.strip_prefix("//").unwrap_or(path).into())))
                }
            };
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            crate::postgres::tls::read(text)?;
            return Ok(DatabaseUrl::Postgres(text.into()));
        }
        Err(QueueError::Invalid(
            "a database URL is sqlite:PATH, sqlite::memory: or postgres://USER@HOST/DATABASE".into(),
        ))
    }
}

/// Without its password, so that it may be logged.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseUrl::Sqlite(SqlitePlace::Memory) => f.write_str("sqlite::memory:"),
            DatabaseUrl::Sqlite(SqlitePlace::File(path)) => write!(f, "sqlite:{}", path.display()),
            DatabaseUrl::Postgres(url) => f.write_str(&without_password(url)),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

fn without_password(url: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let mut shown = base.to_owned();
    if let Some(start) = base.find("://").map(|i| i + 3)
        && let Some(at) = base[start..].rfind('@').map(|i| i + start)
        && let Some(colon) = base[start..at].find(':').map(|i| i + start)
    {
        shown.replace_range(colon..at, "");
    }
    let kept = query.into_iter().flat_map(|q| q.split('&')).filter(|pair| !pair.starts_with("password="));
    for (i, pair) in kept.enumerate() {
        shown.push(if i == 0 { '?' } else { '&' });
        shown.push_str(pair);
    }
    shown
}

/// The store on one of the databases.
#[derive(Clone)]
pub enum Backend {
    /// On PostgreSQL.
    Postgres(Arc<PgStore>),
    /// On SQLite.
    Sqlite(Arc<SqliteStore>),
}

impl Backend {
    /// Opens the database with the usual options. The schema is not touched: see [`Backend::migrate`].
    ///
    /// # Errors
    /// On SQLite when the file cannot be opened. PostgreSQL is not connected yet.
    pub async fn open(url: &DatabaseUrl) -> Result<Backend, QueueError> {
        match url {
            DatabaseUrl::Postgres(url) => Backend::open_postgres(url, PgOptions::default()),
            DatabaseUrl::Sqlite(place) => Ok(Backend::Sqlite(Arc::new(SqliteStore::open(place).await?))),
        }
    }

    /// As [`Backend::open`] for PostgreSQL, with options. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for a URL that cannot be read.
    pub fn open_postgres(url: &str, options: PgOptions) -> Result<Backend, QueueError> {
        Ok(Backend::Postgres(Arc::new(PgStore::open(url, options)?)))
    }

    /// The store, whichever database keeps it.
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Backend::Postgres(store) => store.clone(),
            Backend::Sqlite(store) => store.clone(),
        }
    }

    /// Brings the schema up to date, and says how many migrations that took. Any number of processes may do so at
    /// once: one does it, the others wait for it.
    ///
    /// # Errors
    /// [`QueueError::Schema`] when the schema is newer than this program, or not what it was made by.
    pub async fn migrate(&self) -> Result<usize, QueueError> {
        match self {
            Backend::Postgres(store) => store.migrate().await,
            Backend::Sqlite(store) => store.migrate().await,
        }
    }

    /// Every migration that this program knows, and when it was applied.
    ///
    /// # Errors
    /// As [`Backend::migrate`].
    pub async fn migration_status(&self) -> Result<Vec<MigrationStatus>, QueueError> {
        match self {
            Backend::Postgres(store) => store.migration_status().await,
            Backend::Sqlite(store) => store.migration_status().await,
        }
    }

    /// What [`Backend::migrate`] would run.
    ///
    /// # Errors
    /// As [`Backend::migrate`].
    pub async fn pending_sql(&self) -> Result<Vec<Migration>, QueueError> {
        match self {
            Backend::Postgres(store) => store.pending_sql().await,
            Backend::Sqlite(store) => store.pending_sql().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> DatabaseUrl {
        DatabaseUrl::Sqlite(SqlitePlace::File(path.into()))
    }

    #[test]
    fn urls_name_the_database() {
        let read = |text: &str| text.parse::<DatabaseUrl>().unwrap();
        assert_eq!(read("sqlite::memory:"), DatabaseUrl::Sqlite(SqlitePlace::Memory));
        assert_eq!(read("sqlite:minium.db"), file("minium.db"));
        assert_eq!(read("sqlite:/var/lib/minium.db"), file("/var/lib/minium.db"));
        assert_eq!(read("sqlite:///var/lib/minium.db"), file("/var/lib/minium.db"));
        for url in ["postgres://u@h/db", "postgresql:///db?host=/run/postgresql&user=u"] {
            assert_eq!(read(url), DatabaseUrl::Postgres(url.into()));
        }
    }

    #[test]
    fn what_is_no_database_url_is_refused() {
        for text in
            ["", "minium.db", "mysql://x", "sqlite:", "postgres://h/db?nonsense=1", "postgres://h:port/"]
        {
            assert!(matches!(text.parse::<DatabaseUrl>(), Err(QueueError::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let shown = |text: &str| format!("{:?}", text.parse::<DatabaseUrl>().unwrap());
        for url in [
            "postgres://u:secret@h:5432/db",
            "postgres://h/db?password=secret&user=u",
            "postgres://u:se:cret@h/",
        ] {
            assert!(!shown(url).contains("cret"), "{}", shown(url));
        }
        assert_eq!(shown("postgres://u:secret@h:5432/db"), "DatabaseUrl(postgres://u@h:5432/db)");
        assert_eq!(shown("postgres://h/db?password=s&user=u"), "DatabaseUrl(postgres://h/db?user=u)");
    }
}
