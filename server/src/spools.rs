//! Where workers keep results on disk until they are reported: `--spool`, else the user's state directory.

use crate::exit::{Exit, fault};
use minium_queue::{DatabaseUrl, SqlitePlace};
use minium_worker::{Spool, SpoolError, SpoolOptions};
use std::path::{Path, PathBuf};
use tracing::{info, warn};

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

/// For results that go to a database. Without a directory that was named, or one that can be used, they wait in memory,
/// and the log says so; one in memory ends with this process, and its jobs too.
pub(crate) fn of_database(named: Option<&Path>, url: &DatabaseUrl) -> anyhow::Result<Option<Spool>> {
    if matches!(url, DatabaseUrl::Sqlite(SqlitePlace::Memory)) {
        return Ok(None);
    }
    let Some(dir) = named.map(Path::to_owned).or_else(state_dir) else {
        warn!("Results wait in memory when the database is away: neither XDG_STATE_HOME nor HOME is set.");
        return Ok(None);
    };
    match Spool::open(&dir, &[&database_address(url)], SpoolOptions::default()) {
        Ok(spool) => {
            info!(spool = %spool.path().display(), "Results are kept here until the database has them.");
            Ok(Some(spool))
        }
        Err(error) if named.is_some() => Err(unusable(error)),
        Err(error) => {
            warn!(%error, "Results wait in memory when the database is away: there is no place for a spool.");
            Ok(None)
        }
    }
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

/// A file is the same one from wherever it is named; a URL has no password here.
fn database_address(url: &DatabaseUrl) -> String {
    let DatabaseUrl::Sqlite(SqlitePlace::File(path)) = url else { return url.to_string() };
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
    // the file itself may not be there yet
    let place = match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
        (Some(Ok(dir)), Some(name)) => dir.join(name),
        _ => absolute,
    };
    format!("sqlite:{}", place.display())
}

/// Where programs keep what must survive them.
pub(crate) fn state_dir() -> Option<PathBuf> {
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
        let dir = tempfile::tempdir().unwrap();
        let address = |path: String| database_address(&format!("sqlite:{path}").parse().unwrap());
        let plain = address(dir.path().join("m.db").display().to_string());
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        assert_eq!(address(format!("{}/sub/../m.db", dir.path().display())), plain);
        assert!(address("m.db".into()).starts_with("sqlite:/"));
        let url: DatabaseUrl = "postgres://minium:secret@db/minium".parse().unwrap();
        assert!(!database_address(&url).contains("secret"));
    }

    #[test]
    fn a_place_that_was_named_must_be_usable_and_another_need_not() {
        let url: DatabaseUrl = "sqlite:x.db".parse().unwrap();
        let error = of_database(Some(Path::new("/proc/none")), &url).unwrap_err().to_string();
        assert!(error.contains("--spool"), "{error}");
        assert!(
            of_database(Some(Path::new("/proc/none")), &"sqlite::memory:".parse().unwrap())
                .unwrap()
                .is_none()
        );
    }
}
