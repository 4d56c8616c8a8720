//! A disk that is small: a file system in memory with a bound, that can be made larger while it is in use.

use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Mounted until it is dropped.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// With room for so many KiB. Everybody may write there.
    pub(crate) fn mount(kib: u32) -> SmallDisk {
        let dir = tempfile::Builder::new().prefix("minium-disk-").tempdir_in("/tmp").unwrap();
        run(&["-t", "tmpfs", "-o", &format!("size={kib}k,mode=777"), "tmpfs"], dir.path());
        SmallDisk { dir }
    }

    /// Gives it room for so many KiB.
    pub(crate) fn grow(&self, kib: u32) {
        run(&["-o", &format!("remount,size={kib}k")], self.dir.path());
    }

    /// A path on it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes until nothing more fits.
    pub(crate) fn fill(&self, name: &str) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.path(name)).unwrap();
        while file.write_all(&[0; 1024]).is_ok() {}
    }
}

fn run(args: &[&str], place: &Path) {
    let output = Command::new("mount").args(args).arg(place).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "a small disk cannot be mounted (that takes root and CAP_SYS_ADMIN): {said}"
    );
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // who still has a file open there does not hold up the test
        Command::new("umount").arg("--lazy").arg(self.dir.path()).status().ok();
    }
}
