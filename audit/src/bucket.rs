//! A place in an object store that speaks S3: objects are put once, in whole, and only where none stands yet.

use crate::error::{AuditError, disk};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectStore, PutMode, PutOptions, PutPayload, RetryConfig, UpdateVersion};
use std::fmt;
use std::future::Future;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// A request is tried again so many times, and no longer than this. Who uploads tries again by itself.
const RETRIES: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);
/// A store that sends nothing for so long has gone.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Objects that hold one file each and are no segments: archive.json and the manifest of 999,999 lines.
const SMALL_BYTES_MAX: u64 = 1 << 30;

/// A place that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BucketError {
    /// No such address.
    #[error("{0} is no place in an object store: s3://BUCKET/PREFIX")]
    Address(String),
    /// What it was set up with.
    #[error("the object store cannot be used: {0}")]
    Setup(#[from] object_store::Error),
}

/// Somewhere in a bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    store: Arc<AmazonS3>,
    prefix: Key,
    url: String,
    runtime: Handle,
}

/// What became of an object that was to be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Put {
    /// It stands there now, under this ETag.
    Done(Option<String>),
    /// Another one stands there.
    Other,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Bucket {
    /// The place of `s3://BUCKET/PREFIX`. `variables` are those of the environment, of which the standard `AWS_*` are
    /// understood; `endpoint` is where the store is if it is not Amazon's. Within a Tokio runtime, which does the work.
    ///
    /// # Errors
    /// [`BucketError`] when there is something wrong with any of it. Nothing is asked of the store yet.
    pub fn open(
        url: &str,
        endpoint: Option<&str>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Bucket, BucketError> {
        let wrong = || BucketError::Address(url.to_owned());
        let (bucket, prefix) = match url.strip_prefix("s3://").ok_or_else(wrong)?.split_once('/') {
            Some((bucket, prefix)) => (bucket, prefix),
            None => (&url["s3://".len()..], ""),
        };
        if bucket.is_empty() {
            return Err(wrong());
        }
        let prefix = Key::parse(prefix.trim_end_matches('/')).map_err(|_| wrong())?;
        // the client has none of its own; that another part has one by now is as good
        rustls::crypto::ring::default_provider().install_default().ok();
        // a segment may take long on a slow line, and a reader may pause: what must not stand still is each read
        let client = ClientOptions::new().with_timeout_disabled().with_read_timeout(READ_TIMEOUT);
        let mut builder = AmazonS3Builder::new().with_client_options(client);
        for (name, value) in variables.into_iter().filter(|(name, _)| name.starts_with("AWS_")) {
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        let retry =
            RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let store = builder.with_bucket_name(bucket).with_retry(retry).build()?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Bucket { store: Arc::new(store), prefix, url, runtime: Handle::current() })
    }

    fn key(&self, name: &str) -> Key {
        self.prefix.clone().join(name)
    }

    fn failed(&self, attempted: &'static str, name: &str) -> impl FnOnce(object_store::Error) -> AuditError {
        let path = format!("{self}/{name}");
        move |error| disk(attempted, Path::new(&path))(io::Error::other(error))
    }

    fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    pub(crate) fn files(&self) -> Result<Vec<(String, u64)>, AuditError> {
        let listed = self.wait(self.store.list_with_delimiter(Some(&self.prefix)));
        let objects = listed.map_err(self.failed("list", ""))?.objects;
        let file = |object: &object_store::ObjectMeta| {
            object.location.filename().map(|name| (name.to_owned(), object.size))
        };
        Ok(objects.iter().filter_map(file).collect())
    }

    pub(crate) fn length(&self, name: &str) -> Result<Option<u64>, AuditError> {
        let options = object_store::GetOptions { head: true, ..Default::default() };
        match self.wait(self.store.get_opts(&self.key(name), options)) {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            found => found.map(|found| Some(found.meta.size)).map_err(self.failed("read", name)),
        }
    }

    pub(crate) fn open_object(&self, name: &str) -> Result<Option<Box<dyn Read>>, AuditError> {
        match self.wait(self.store.get_opts(&self.key(name), object_store::GetOptions::default())) {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            found => {
                let stream = found.map_err(self.failed("read", name))?.into_stream();
                Ok(Some(Box::new(Flow { runtime: self.runtime.clone(), stream, chunk: Bytes::new() })))
            }
        }
    }

    /// An object's bytes and its ETag.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<(Vec<u8>, Option<String>)>, AuditError> {
        let found = match self.store.get_opts(&self.key(name), object_store::GetOptions::default()).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(self.failed("read", name))?,
        };
        if found.meta.size > SMALL_BYTES_MAX {
            return Err(disk("read", Path::new(&format!("{self}/{name}")))(
                io::ErrorKind::FileTooLarge.into(),
            ));
        }
        let e_tag = found.meta.e_tag.clone();
        let bytes = found.bytes().await.map_err(self.failed("read", name))?;
        Ok(Some((bytes.to_vec(), e_tag)))
    }

    /// Puts an object where none stands, or in the place of the one with this ETag.
    pub(crate) async fn put(
        &self,
        name: &str,
        bytes: Vec<u8>,
        in_place_of: Option<String>,
    ) -> Result<Put, AuditError> {
        let mode = match in_place_of {
            None => PutMode::Create,
            e_tag => PutMode::Update(UpdateVersion { e_tag, version: None }),
        };
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.store.put_opts(&self.key(name), PutPayload::from(bytes), options).await {
            Ok(put) => Ok(Put::Done(put.e_tag)),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. }
                | object_store::Error::NotModified { .. },
            ) => Ok(Put::Other),
            Err(error) => Err(self.failed("write", name)(error)),
        }
    }
}

/// An object as it comes.
struct Flow {
    runtime: Handle,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    chunk: Bytes,
}

impl Read for Flow {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.stream.next()) {
                None => return Ok(0),
                Some(chunk) => self.chunk = chunk.map_err(io::Error::other)?,
            }
        }
        let count = self.chunk.len().min(to.len());
        to[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}
