//! The client against scripted servers on real sockets: what it does when connections are cut, refused, closed, or
//! fall silent. The server that these scripts imitate is tested with the same client in the workspace's `tests`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands, helpers included")]

mod script;

mod connection;
mod http;
mod links;
mod subscriptions;
mod tls;
