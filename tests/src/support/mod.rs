//! What tests stand on: databases, processes and waiting. Nothing in here asserts anything about Minium.

pub(crate) mod foreign;
pub(crate) mod node;
pub(crate) mod postgres;
pub(crate) mod wait;
