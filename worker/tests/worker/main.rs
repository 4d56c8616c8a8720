//! The worker over a real store and with real processes.

mod commands;
mod harness;
mod source;
mod tasks;
