//! What a recorder does to its disk, behind one seam, so that a test sees in which order, and a disk may refuse.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A file that grows at its end.
pub(crate) trait Medium: Write + fmt::Debug + Send {
    /// What was written is on the disk when this returns.
    fn sync(&self) -> io::Result<()>;

    /// Cuts it, and goes on there.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

/// Where files are.
pub(crate) trait Disk: fmt::Debug + Send {
    /// Opens a file at its end; makes it if it is not there. It and its name are on the disk when this returns.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Medium>> {
        let file = self.open_or_make(path)?;
        // one that an attempt before made and left empty may have a name in memory only
        if fs::metadata(path)?.len() == 0 {
            self.keep_name(path)?;
        }
        Ok(file)
    }

    /// Opens a file at its end; makes it if it is not there.
    fn open_or_make(&self, path: &Path) -> io::Result<Box<dyn Medium>>;

    /// The name of a file is on the disk when this returns.
    fn keep_name(&self, path: &Path) -> io::Result<()>;

    /// Puts a file in another's place, as a whole or not at all.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
}

/// The real one.
#[derive(Debug)]
pub(crate) struct Real;

impl Medium for File {
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.seek(SeekFrom::Start(length)).map(drop)
    }
}

impl Disk for Real {
    fn open_or_make(&self, path: &Path) -> io::Result<Box<dyn Medium>> {
        let mut file = options().truncate(false).open(path)?;
        if file.seek(SeekFrom::End(0))? == 0 {
            file.sync_all()?;
        }
        Ok(Box::new(file))
    }

    fn keep_name(&self, path: &Path) -> io::Result<()> {
        sync_name(path)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let fresh = path.with_extension("new");
        let mut file = options().truncate(true).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        sync_name(path)
    }
}

/// What is archived may be anybody's business data.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

/// A file that is there has a name that is not, until its directory is written.
pub(crate) fn sync_name(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all())
}
