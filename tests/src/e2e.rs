//! Every test that needs more than one crate, in one binary: real sockets, real PostgreSQL, real processes.
//!
//! Run them by `./scripts/test`, which starts the throwaway databases and builds the server first. A test that finds
//! its database, its server or a foreign client missing fails and says so; nothing here is ever skipped. Tests wait
//! for conditions with generous deadlines ([`support::wait`]) and never assert how long something took.

#![allow(clippy::unwrap_used, reason = "in tests an unwrap is an assertion")]
#![allow(clippy::print_stderr, reason = "a failing test shows the log of its server")]

/// Databases, servers, clients and waiting, for all other modules.
mod support;

/// What the support itself promises to the tests.
mod harness;

/// The stores: one conformance suite over all of them, a plain model, and both against each other.
mod store;

/// The main job, as a newcomer sees it.
mod demands;
mod dev;

/// What is wrong with a machine, a database, a role or a node, and what mends it; and the roles themselves.
mod doctor;

/// A node watched in a terminal.
mod top;

/// Mercury's rules in plain mode: what is kept, what is mended.
mod mercury;

/// Work over WebSocket: pushes, claims and words behind durable channels, remote workers, and the images.
mod remote;

/// From an enqueued job to every kind of reader.
mod road;

/// Modes and positions.
mod streams;

/// `minium.v1`, durable channels, and work over WebSocket.
mod v1;

/// The journal: numbered, relayed in order, read back, let go.
mod journal;

/// What is kept, by the page, and channels that are read again.
mod history;

/// The queue over HTTP, and by SQL.
mod jobs;

/// Named locks, over HTTP and by the command line.
mod locks;

/// Webhooks that come in.
mod hooks;

/// Logs of jobs, over HTTP, in events and by the command line.
mod logs;

/// Figures, alerts, and spans of log lines: what an operator is told.
mod figures;

/// Trace contexts, by every road.
mod traces;

/// Who archives the journal, over HTTP.
mod recorders;

/// Work that repeats, over HTTP, by the command line and from the configuration.
mod schedules;

/// Schemas: found by place, judged once, read again while the node runs.
mod schemas;

/// What the bus can tell: sessions, topics, schemas, AsyncAPI.
mod lists;

/// Secrets in arguments: who sees them, and who does not.
mod masks;

/// What the statements that are run all day read, by PostgreSQL's own plans.
mod plans;

/// A Minion of Perl's, attached.
mod attach;

/// Parents, what they brought, and jobs that jobs enqueue.
mod kin;

/// Many jobs at once, and what else an operator does to them.
mod many;

/// Lists that are narrowed, tags of jobs, and actions behind their requests.
mod narrowed;

/// What pages of other origins may ask.
mod origins;

/// The HTTP API as its document has it, tried by schemathesis.
mod openapi;

/// Programs as tasks: what holds them back, and those that live longer than a job.
mod commands;

/// The command line as a script sees it.
mod cli;

/// The recorder: archives that have everything once and show changes.
mod audit;

/// The benches, with loads that say nothing.
mod benches;

/// Our own clients: cut, restarted, and looked at.
mod clients;

/// The console, in a real browser.
mod console;

/// Those outside who are told of events.
mod sinks;

/// Tokens, scopes, rates: who may do what.
mod trust;

/// TLS: towards clients, by their certificates, and towards PostgreSQL.
mod tls;

/// Bad input, each with its documented answer.
mod abuse;

/// RFC 6455 by Autobahn's cases.
mod autobahn;

/// Attacks: the answer to each, and what they cost the node and everybody else.
mod hostile;

/// Processes killed: the node, a worker, the database.
mod faults;

/// The database away, full, promoted, or behind a pooler; a relay that cannot follow.
mod outages;

/// Workers as processes: the list, remote control, signals.
mod workers;

/// What whoever installs and supervises a node meets: systemd's protocol, sockets handed over, pages, units, the package.
mod packaging;

/// What was sent and acknowledged held against what came, whatever is killed, stopped or cut.
mod ledger;

/// Side effects of jobs held against the journal, whatever is done to those who run them.
mod effects;

/// Every command that the documents show, run as it stands there.
mod documents;

/// The source held against the documents.
mod tidy;
