//! Where an archive is: a directory, or `s3://BUCKET/PREFIX` where minium was built with the feature `s3`.

use crate::exit::{Exit, fault};
use clap::Args;
use minium_audit::Place;
use std::path::{Path, PathBuf};

/// What an address in an object store begins with.
const SCHEME: &str = "s3://";

/// How an object store is reached.
#[derive(Debug, Args)]
pub(super) struct Store {
    /// Where the object store is, if it is not Amazon's (http://127.0.0.1:9000); keys and region come from AWS_* as elsewhere
    #[cfg(feature = "s3")]
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL")]
    s3_endpoint: Option<String>,
}

/// An archive to be looked at.
#[derive(Debug, Args)]
pub(super) struct Whence {
    /// Directory of the archive, or s3://BUCKET/PREFIX
    pub(super) dir: PathBuf,
    #[command(flatten)]
    store: Store,
}

impl Whence {
    /// Where that is. Within the runtime.
    pub(super) fn place(&self) -> anyhow::Result<Place> {
        match address(&self.dir) {
            Some(url) => self.store.place(url),
            None => Ok(Place::Dir(self.dir.clone())),
        }
    }
}

/// The address in an object store, if it is one.
pub(super) fn address(place: &Path) -> Option<&str> {
    place.to_str().filter(|place| place.starts_with(SCHEME))
}

#[cfg(feature = "s3")]
impl Store {
    pub(super) fn bucket(&self, url: &str) -> anyhow::Result<minium_audit::Bucket> {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        minium_audit::Bucket::open(url, self.s3_endpoint.as_deref(), variables)
            .map_err(|error| fault(Exit::Usage, error.to_string()))
    }

    fn place(&self, url: &str) -> anyhow::Result<Place> {
        self.bucket(url).map(Place::Bucket)
    }
}

#[cfg(not(feature = "s3"))]
impl Store {
    fn place(&self, url: &str) -> anyhow::Result<Place> {
        Err(without(url))
    }
}

/// What is said where the feature is missing.
#[cfg(not(feature = "s3"))]
pub(super) fn without(url: &str) -> anyhow::Error {
    fault(
        Exit::Usage,
        format!("{url}: this minium was built without object stores (cargo build --features s3)"),
    )
}
