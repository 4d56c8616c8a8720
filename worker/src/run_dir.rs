//! A directory that a command has to itself: made for one run (of a long-lived one: for one process), removed afterwards.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::warn;

/// What is killed may take a moment to be gone, and write meanwhile.
const AGAIN: Duration = Duration::from_millis(50);
const TRIES: usize = 5;

/// The directory; removed when it is let go, whatever happens.
#[derive(Debug)]
pub(crate) struct RunDir(Option<PathBuf>);

impl RunDir {
    /// Makes one in `place`, if there shall be one.
    pub(crate) async fn make(place: Option<&Path>) -> Result<Option<RunDir>, String> {
        let Some(place) = place else { return Ok(None) };
        let path = place.join(format!("minium-run-{}-{:016x}", std::process::id(), fastrand::u64(..)));
        let made = {
            let path = path.clone();
            // fails if it is there, also as a link that somebody put there
            tokio::task::spawn_blocking(move || std::fs::DirBuilder::new().mode(0o700).create(path)).await
        };
        match made.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Ok(()) => Ok(Some(RunDir(Some(path)))),
            Err(e) => Err(format!("cannot make a directory in {}: {e}", place.display())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.as_deref().expect("it is there until it is removed")
    }

    /// Removes it with all that is in it.
    pub(crate) async fn remove(mut self) {
        let Some(path) = self.0.take() else { return };
        let mut result = Ok(());
        for _ in 0..TRIES {
            result = tokio::fs::remove_dir_all(&path).await;
            match &result {
                Err(e) if e.kind() != io::ErrorKind::NotFound => tokio::time::sleep(AGAIN).await,
                _ => return,
            }
        }
        if let Err(error) = result {
            warn!(path = %path.display(), %error, "A run's directory cannot be removed.");
        }
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // only when a run is dropped half way: there is nobody to wait for it
            std::fs::remove_dir_all(path).ok();
        }
    }
}
