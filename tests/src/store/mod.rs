//! The stores: one conformance suite over PostgreSQL and SQLite, in a file and in memory.

mod conformance;
mod fixture;
