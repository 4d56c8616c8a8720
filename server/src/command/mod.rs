//! The commands that are a node or look after one.

pub(crate) mod attach;
pub(crate) mod config;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod migrate;
pub(crate) mod schema;
pub(crate) mod serve;
pub(crate) mod token;
