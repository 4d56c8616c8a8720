//! Where workers keep results on disk until they are reported: `--spool`, else the user's state directory.

use crate::exit::{Exit, fault};
use minium_worker::{Spool, SpoolError, SpoolOptions};
use std::path::{Path, PathBuf};
use tracing::info;

/// For results that go to a node, under any of its URLs.
pub(crate) fn of_nodes(named: Option<&Path>, urls: &[String]) -> anyhow::Result<Spool> {
    let none = || fault(Exit::Usage, "--spool: neither XDG_STATE_HOME nor HOME is set: say where");
    let dir = named.map(Path::to_owned).or_else(state_dir).ok_or_else(none)?;
    let addresses: Vec<String> = urls.iter().map(|url| node_address(url)).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let spool = Spool::open(&dir, &addresses, SpoolOptions::default()).map_err(unusable)?;
    info!(spool = %spool.path().display(), "Results are kept here until the node has them.");
    Ok(spool)
}

#[allow(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn unusable(error: SpoolError) -> anyhow::Error {
    fault(Exit::Failed, format!("--spool: {error}"))
}

/// A node is the same one however it is reached: by HTTP or WebSocket, by TLS or without.
fn node_address(url: &str) -> String {
    match url.split_once("://") {
        Some((_, place)) => format!("http://{place}"),
        None => url.to_owned(),
    }
}

/// Where programs keep what must survive them.
fn state_dir() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || set("HOME").map(|home| home.join(".local/state"));
    let state = set("XDG_STATE_HOME").filter(|dir| dir.is_absolute()).or_else(home)?;
    Some(state.join("minium"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_has_one_address() {
        for url in ["ws://hub:3000", "wss://hub:3000", "https://hub:3000", "http://hub:3000"] {
            assert_eq!(node_address(url), "http://hub:3000", "{url}");
        }
    }
}
