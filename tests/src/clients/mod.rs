//! Our own clients against the real server: the Rust crate, and `console/sdk.js` in Node.

/// The commands that stand on the Rust client.
mod commands;

/// Two hundred cuts of the TCP connection at random bytes, in both directions.
mod cuts;

/// A proxy that cuts.
mod proxy;

/// What sdk.js does, one after the other, and its types.
pub(crate) mod sdk;

/// What the Rust client does with more than one subscription.
mod rust;
