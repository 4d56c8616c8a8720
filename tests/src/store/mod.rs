//! The stores: one conformance suite over PostgreSQL and SQLite in a file and in memory, a plain model that both are
//! held against, and the comparison of the two with each other.

mod conformance;
mod crash;
pub(crate) mod fixture;
mod locking;
mod model;
mod postgres_copy;
mod postgres_demands;
mod postgres_only;
mod postgres_pressure;
mod postgres_races;
mod postgres_shortcuts;
mod postgres_sql;
mod postgres_traces;
mod property;
mod sequence;
mod sqlite;
mod subject;
