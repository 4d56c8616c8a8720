//! Attaching a Minion of Perl's: every transition of its jobs becomes an event of our journal, in the same statement.
//!
//! Four statement triggers on `minion_jobs`, and functions in schema `minium`; nothing else of Minion's is touched, and
//! nothing of it needs a change. What the events say is told in docs/minion-attach.md.
//!
//! **Invariants.** `mojo_migrations` is read and never written. Attaching, and taking it off again, is one transaction:
//! there is no moment at which some transitions are told and others are not. Everything may be done twice.

mod install;
mod look;

use crate::error::NotifierError;
use jiff::Timestamp;
use minium_protocol::ErrorCode;
use minium_queue::QueueError;
use minium_queue::postgres::PgStore;
use serde::Serialize;
use std::sync::Arc;

/// Of the functions and triggers, kept in `minium.attached`. Goes up with every change of them that those who are
/// attached should have.
const VERSION: i32 = 1;

/// What to attach, and under which name.
#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    /// The schema of Minion's tables; the one on the search path when nothing is said.
    pub schema: Option<String>,
    /// Last part of the events' `source`, `/minion/<name>`; the database's name when nothing is said.
    pub name: Option<String>,
}

/// Why a Minion cannot be attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// No table of jobs where one was looked for.
    #[error("there is no Minion in {place}: no table minion_jobs{hint}")]
    NoMinion {
        /// Where was looked.
        place: String,
        /// Where there is one.
        hint: String,
    },
    /// The tables are not those that the functions were written for.
    #[error("the tables of Minion in {place} are not understood: {}", missing.join(", "))]
    NotUnderstood {
        /// Where they are.
        place: String,
        /// What is missing or otherwise.
        missing: Vec<String>,
    },
    /// The role may not do it.
    #[error("the role {role} may not: it needs {}", missing.join(", "))]
    NotAllowed {
        /// Who we are.
        role: String,
        /// What it needs.
        missing: Vec<String>,
    },
    /// There can be one.
    #[error("another Minion is attached in this database, that of {jobs}: detach it first")]
    AnotherAttached {
        /// Its table of jobs.
        jobs: String,
    },
    /// The name cannot be a part of a `source`.
    #[error("{0:?} cannot be a name: it has 1 to 128 of A-Z a-z 0-9 _ . ~ : @ -")]
    Name(String),
    /// Somebody holds Minion's table.
    #[error("the table {jobs} is held by another transaction, tried {tries} times")]
    Busy {
        /// The table.
        jobs: String,
        /// So often.
        tries: u32,
    },
    /// The database failed.
    #[error(transparent)]
    Journal(#[from] NotifierError),
}

impl AttachError {
    /// The stable code that tells what happened.
    pub fn code(&self) -> ErrorCode {
        match self {
            AttachError::NoMinion { .. } => ErrorCode::NotFound,
            AttachError::NotUnderstood { .. }
            | AttachError::AnotherAttached { .. }
            // our own schema is newer than this program
            | AttachError::Journal(NotifierError::Schema(_)) => ErrorCode::Conflict,
            AttachError::NotAllowed { .. } => ErrorCode::Forbidden,
            AttachError::Name(_) => ErrorCode::InvalidRequest,
            AttachError::Busy { .. } => ErrorCode::Timeout,
            AttachError::Journal(error) => error.code(),
        }
    }
}

impl From<QueueError> for AttachError {
    fn from(error: QueueError) -> AttachError {
        AttachError::Journal(error.into())
    }
}

/// What there is, and whether it is right.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Minion's table of jobs, with its schema.
    pub jobs: String,
    /// Of Minion's schema, as `mojo_migrations` has it, if it can be read.
    pub minion_version: Option<i64>,
    /// PostgreSQL's.
    pub server_version: String,
    /// So many migrations of ours are to be applied.
    pub migrations_pending: usize,
    /// What is attached.
    pub attached: Option<Attached>,
    /// What is not wrong, but should be otherwise.
    pub warnings: Vec<String>,
}

/// What is attached.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Attached {
    /// Minion's table of jobs, with its schema.
    pub jobs: String,
    /// `source` of its events.
    pub source: String,
    /// Of the functions and triggers.
    pub version: i32,
    /// When it was attached.
    pub since: Timestamp,
    /// What is not as it was made: attaching again mends it.
    pub faults: Vec<String>,
}

/// A database of Minion's.
#[derive(Debug)]
pub struct MinionDatabase {
    store: Arc<PgStore>,
    options: AttachOptions,
}

impl MinionDatabase {
    /// In the database of a store. Nothing is asked yet.
    ///
    /// # Errors
    /// [`AttachError::Name`] for a name that cannot be part of a `source`.
    pub fn new(store: Arc<PgStore>, options: AttachOptions) -> Result<MinionDatabase, AttachError> {
        if let Some(name) = options.name.as_ref().filter(|name| !is_name(name)) {
            return Err(AttachError::Name(name.clone()));
        }
        Ok(MinionDatabase { store, options })
    }

    /// Says what is there, and changes nothing.
    ///
    /// # Errors
    /// Whatever would be in the way of attaching.
    pub async fn check(&self) -> Result<Report, AttachError> {
        let pending = self.store.migration_status().await?;
        let pending = pending.iter().filter(|m| m.applied.is_none()).count();
        let client = self.client("look for Minion").await?;
        let found = look::find(&client, &self.options).await?;
        found.refuse_strangers()?;
        Ok(Report {
            jobs: found.place.jobs,
            minion_version: found.minion_version,
            server_version: found.server_version,
            migrations_pending: pending,
            attached: found.attached,
            warnings: found.warnings,
        })
    }

    /// Brings our schema up to date and attaches Minion, or does it anew.
    ///
    /// # Errors
    /// As the variants say. Then nothing is attached that was not before.
    pub async fn attach(&self) -> Result<Report, AttachError> {
        // first: nothing of ours is made where there is no Minion
        self.check().await?;
        self.store.migrate().await?;
        let mut client = self.client("attach Minion").await?;
        let found = look::find(&client, &self.options).await?;
        found.refuse_strangers()?;
        let name = self.options.name.clone();
        let known = found.attached.as_ref().map(|attached| attached.source.clone());
        let source = name.map(|name| format!("/minion/{name}")).or(known);
        let source = source.unwrap_or_else(|| format!("/minion/{}", plain(&found.database)));
        install::install(&mut client, &found.place, &source).await?;
        drop(client);
        self.check().await
    }

    /// Takes off what was attached, and says whether there was anything. The journal stays.
    ///
    /// # Errors
    /// When the database fails, or Minion's table is held by another.
    pub async fn detach(&self) -> Result<bool, AttachError> {
        let mut client = self.client("detach Minion").await?;
        install::remove(&mut client).await
    }

    async fn client(&self, what: &'static str) -> Result<deadpool_postgres::Object, AttachError> {
        let client = self.store.pool().get().await;
        client.map_err(|e| AttachError::Journal(NotifierError::unavailable(what, e)))
    }
}

fn is_of_names(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.~:@-".contains(c)
}

fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.chars().all(is_of_names)
}

/// A database's name as part of a `source`.
fn plain(database: &str) -> String {
    database.chars().map(|c| if is_of_names(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_database_gives_a_name() {
        assert_eq!(plain("app-2.db"), "app-2.db");
        assert!(is_name(&plain("Größe \"1\"/'x'")));
        assert!(!is_name("") && !is_name("a/b") && !is_name("a'b") && !is_name(&"a".repeat(129)));
    }
}
