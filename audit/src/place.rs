//! Where an archive is to be looked at: a directory, or with the feature `s3` a place in an object store.

#[cfg(feature = "s3")]
use crate::bucket::Bucket;
use crate::error::{AuditError, disk};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Where an archive is.
#[derive(Debug, Clone)]
pub enum Place {
    /// A directory.
    Dir(PathBuf),
    /// A place in an object store. What is read of it is waited for: not from within a task of the runtime.
    #[cfg(feature = "s3")]
    Bucket(Bucket),
}

impl From<PathBuf> for Place {
    fn from(dir: PathBuf) -> Place {
        Place::Dir(dir)
    }
}

impl From<&Path> for Place {
    fn from(dir: &Path) -> Place {
        Place::Dir(dir.to_owned())
    }
}

impl From<&PathBuf> for Place {
    fn from(dir: &PathBuf) -> Place {
        Place::Dir(dir.clone())
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Dir(dir) => dir.display().fmt(f),
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => bucket.fmt(f),
        }
    }
}

impl Place {
    /// Where a file of it is: for a directory the path, else words for people.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        match self {
            Place::Dir(dir) => dir.join(name),
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => PathBuf::from(bucket.to_string()).join(name),
        }
    }

    /// The directory, if it is one: only there a recorder may be writing.
    pub(crate) fn dir(&self) -> Option<&Path> {
        match self {
            Place::Dir(dir) => Some(dir),
            #[cfg(feature = "s3")]
            Place::Bucket(_) => None,
        }
    }

    /// The names of all files, and how long each is: by one question, however many there are.
    pub(crate) fn files(&self) -> Result<Vec<(String, u64)>, AuditError> {
        match self {
            Place::Dir(dir) => {
                let mut files = Vec::new();
                for entry in fs::read_dir(dir).map_err(disk("list", dir))? {
                    let entry = entry.map_err(disk("list", dir))?;
                    let Ok(name) = entry.file_name().into_string() else { continue };
                    // one that has just gone is none
                    if let Some(length) = self.length(&name)? {
                        files.push((name, length));
                    }
                }
                Ok(files)
            }
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => bucket.files(),
        }
    }

    /// How long a file is; nothing where there is none.
    pub(crate) fn length(&self, name: &str) -> Result<Option<u64>, AuditError> {
        match self {
            Place::Dir(dir) => {
                let path = dir.join(name);
                match fs::metadata(&path) {
                    Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                    found => found.map(|found| Some(found.len())).map_err(disk("read", &path)),
                }
            }
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => bucket.length(name),
        }
    }

    /// Opens a file; nothing where there is none.
    pub(crate) fn open(&self, name: &str) -> Result<Option<Box<dyn Read>>, AuditError> {
        match self {
            Place::Dir(dir) => {
                let path = dir.join(name);
                match File::open(&path) {
                    Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                    opened => opened.map(|file| Some(Box::new(file) as _)).map_err(disk("open", &path)),
                }
            }
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => bucket.open_object(name),
        }
    }

    /// The contents of a small file; nothing where there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, AuditError> {
        let Some(mut file) = self.open(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(disk("read", &self.path(name)))?;
        Ok(Some(bytes))
    }
}
