//! The migrations: embedded, forward-only, checksummed.
//!
//! What is to be done is decided here, by what was applied; each store applies it under a lock of its own, in one
//! transaction. A migration that has been released is never edited: a database that has it would differ from a new
//! one, which is why its checksum is kept and compared.

use crate::error::QueueError;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// A step from one schema to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Its place, from 1, without gaps; the same on every database.
    pub number: i32,
    /// What it makes.
    pub name: &'static str,
    /// What it runs.
    pub sql: &'static str,
}

/// A migration that this program knows, and what the database knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its place.
    pub number: i32,
    /// What it makes.
    pub name: &'static str,
    /// When it was applied, if it was.
    pub applied: Option<Timestamp>,
}

/// A row of the table of applied migrations.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    pub(crate) number: i32,
    pub(crate) checksum: String,
    pub(crate) at: Timestamp,
}

macro_rules! migrations {
    ($($zeros:literal { $($number:literal $title:literal,)* })*) => {
        migrations! { POSTGRES "postgres" $($($zeros $number $title,)*)* }
        migrations! { SQLITE "sqlite" $($($zeros $number $title,)*)* }
    };
    ($name:ident $folder:literal $($zeros:literal $number:literal $title:literal,)*) => {
        pub(crate) const $name: &[Migration] = &[$(
            Migration {
                number: $number,
                name: $title,
                sql: include_str!(concat!("../../migrations/", $folder, "/", $zeros, $number, "_", $title, ".sql")),
            },
        )*];
    };
}

// those of both databases, by how many zeros the names of their files begin with
migrations! {
    "000" {
        1 "queue",
        2 "journal",
        3 "channels",
        4 "pull",
        5 "masks",
        6 "repairs",
        7 "demands",
        8 "attached",
        9 "workers",
    }
    "00" {
        10 "locks_and_schedules",
        11 "log",
        12 "bulk",
        13 "pressure",
        14 "plans",
        15 "speed",
        16 "recorders",
        17 "traces",
    }
}

impl Migration {
    /// Its fingerprint, kept with the row that says that it was applied.
    pub fn checksum(&self) -> String {
        let digest = Sha256::digest(self.sql.as_bytes());
        digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes every byte");
            hex
        })
    }
}

/// Which migrations are still to be applied.
///
/// # Errors
/// [`QueueError::Schema`] when the database has one that this program does not know, or another text under a number
/// that it knows.
pub(crate) fn pending(known: &[Migration], applied: &[Applied]) -> Result<Vec<Migration>, QueueError> {
    for row in applied {
        let Some(migration) = known.iter().find(|m| m.number == row.number) else {
            return Err(QueueError::Schema(format!(
                "the database has migration {}, this program knows none after {}: it needs a newer program",
                row.number,
                known.last().map_or(0, |m| m.number)
            )));
        };
        if migration.checksum() != row.checksum {
            return Err(QueueError::Schema(format!(
                "migration {} ({}) was applied to the database with another text than this program has: one of \
                 them was changed after its release",
                migration.number, migration.name
            )));
        }
    }
    Ok(known.iter().filter(|m| applied.iter().all(|row| row.number != m.number)).copied().collect())
}

/// What the database knows of each migration.
///
/// # Errors
/// As [`pending`].
pub(crate) fn status(known: &[Migration], applied: &[Applied]) -> Result<Vec<MigrationStatus>, QueueError> {
    pending(known, applied)?;
    let at = |m: &Migration| applied.iter().find(|row| row.number == m.number).map(|row| row.at);
    Ok(known.iter().map(|m| MigrationStatus { number: m.number, name: m.name, applied: at(m) }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Migration] = &[
        Migration { number: 1, name: "one", sql: "create table a ()" },
        Migration { number: 2, name: "two", sql: "create table b ()" },
    ];

    fn applied(number: i32, checksum: &str) -> Applied {
        Applied { number, checksum: checksum.into(), at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn what_was_not_applied_is_pending_in_order() {
        assert_eq!(pending(KNOWN, &[]).unwrap(), KNOWN);
        let first = applied(1, &KNOWN[0].checksum());
        assert_eq!(pending(KNOWN, std::slice::from_ref(&first)).unwrap(), KNOWN[1..]);
        let status = status(KNOWN, &[first]).unwrap();
        assert_eq!(status[0].applied, Some(Timestamp::UNIX_EPOCH));
        assert_eq!(status[1].applied, None);
    }

    #[test]
    fn a_schema_that_is_newer_than_the_program_is_refused() {
        let error = pending(KNOWN, &[applied(3, "x")]).unwrap_err();
        assert!(matches!(&error, QueueError::Schema(words) if words.contains("newer program")), "{error}");
    }

    #[test]
    fn a_migration_that_was_changed_after_it_was_applied_is_refused() {
        let error = pending(KNOWN, &[applied(1, "x")]).unwrap_err();
        assert!(matches!(&error, QueueError::Schema(words) if words.contains("changed")), "{error}");
    }

    #[test]
    fn both_databases_have_the_same_numbers_without_gaps() {
        let numbers = |list: &[Migration]| list.iter().map(|m| m.number).collect::<Vec<_>>();
        assert_eq!(numbers(POSTGRES), numbers(SQLITE));
        assert_eq!(numbers(POSTGRES), (1..=POSTGRES.len() as i32).collect::<Vec<_>>());
    }

    #[test]
    fn a_checksum_is_sha256_in_hex() {
        let empty = Migration { number: 1, name: "empty", sql: "" };
        assert_eq!(empty.checksum(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
