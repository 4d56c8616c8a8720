//! The schema directory: read at start, on SIGHUP and when something in it changes.

use minium_bus::{Report, SchemaFile, Schemas};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tracing::{info, warn};

/// Deeper than any topic goes.
const DEPTH_MAX: usize = 20;
/// Files beyond this are not even looked at.
const FILES_MAX: usize = 20_000;

/// The directory that was named, or `schemas`, if it is there.
pub(crate) fn place(named: Option<&Path>) -> Option<&Path> {
    let usual = Path::new("schemas");
    named.or_else(|| usual.is_dir().then_some(usual))
}

/// What is wrong with files of a directory, if anything is: how many, and the first.
pub(crate) fn refused(report: &Report, dir: &Path) -> Option<String> {
    let first = report.refused.first()?;
    let (count, dir) = (report.refused.len(), dir.display());
    Some(format!("{count} of {dir} cannot be used: {}: {}", first.path, first.reason))
}

/// A directory and what was last seen in it.
#[derive(Debug)]
pub(crate) struct SchemaDir {
    path: PathBuf,
    seen: Vec<(PathBuf, u64, Option<SystemTime>)>,
}

impl SchemaDir {
    /// Nothing is read yet.
    pub(crate) fn new(path: PathBuf) -> SchemaDir {
        SchemaDir { path, seen: Vec::new() }
    }

    /// Every file in it.
    pub(crate) fn read(&mut self) -> io::Result<Vec<SchemaFile>> {
        self.seen = look(&self.path)?;
        Ok(self.seen.iter().map(|(path, _, _)| self.file(path)).collect())
    }

    /// Puts in force what stands in the directory, and says in the log what became of it. A directory that cannot be
    /// read changes nothing.
    pub(crate) fn load(&mut self, schemas: &Schemas) -> io::Result<Report> {
        let report = schemas.replace(self.read()?);
        for refused in &report.refused {
            let kept =
                if refused.kept { "the one before stays in force" } else { "nothing governs in its place" };
            warn!(path = refused.path, reason = refused.reason, kept, "Schema file refused.");
        }
        let (added, changed, removed, in_force) =
            (report.added, report.changed, report.removed, report.in_force);
        info!(added, changed, removed, in_force, dir = %self.path.display(), "Schemas loaded.");
        Ok(report)
    }

    /// As [`SchemaDir::load`], if something changed since.
    pub(crate) fn load_if_changed(&mut self, schemas: &Schemas) -> io::Result<()> {
        if look(&self.path)? != self.seen {
            self.load(schemas)?;
        }
        Ok(())
    }

    fn file(&self, path: &Path) -> SchemaFile {
        let inside = path.strip_prefix(&self.path).unwrap_or(path);
        let name: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
        match fs::read_to_string(path) {
            Ok(text) => SchemaFile::new(name.join("/"), text),
            Err(error) => SchemaFile::unreadable(name.join("/"), error.to_string()),
        }
    }
}

/// Every `.json` file below, with what changes when it is written.
fn look(root: &Path) -> io::Result<Vec<(PathBuf, u64, Option<SystemTime>)>> {
    let mut found = Vec::new();
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if depth == 0 => return Err(error),
            // It went away in between; the next look will see.
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(meta) = fs::metadata(&path) else { continue };
            if meta.is_dir() && depth < DEPTH_MAX {
                folders.push((path, depth + 1));
            } else if meta.is_file()
                && path.extension().is_some_and(|e| e == "json")
                && found.len() < FILES_MAX
            {
                found.push((path, meta.len(), meta.modified().ok()));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_bus::Pattern;

    #[test]
    fn a_broken_file_keeps_the_one_before_and_a_mended_one_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sub/rack.json");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, r#"{"type":"object"}"#).unwrap();
        let (schemas, mut source) = (Schemas::empty(), SchemaDir::new(dir.path().into()));
        assert!(source.load(&schemas).unwrap().is_clean());
        let governs = || schemas.governing(Pattern::Sub, "rack/7").unwrap().text().to_string();
        assert_eq!(governs(), r#"{"type":"object"}"#);
        fs::write(&file, "{").unwrap();
        source.load_if_changed(&schemas).unwrap();
        assert_eq!(governs(), r#"{"type":"object"}"#);
        fs::write(&file, r#"{"type":"string"}"#).unwrap();
        source.load_if_changed(&schemas).unwrap();
        assert_eq!(governs(), r#"{"type":"string"}"#);
        fs::remove_file(&file).unwrap();
        source.load_if_changed(&schemas).unwrap();
        assert!(schemas.governing(Pattern::Sub, "rack/7").is_none());
    }

    #[test]
    fn a_directory_that_is_gone_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/a.json"), "{}").unwrap();
        let (schemas, mut source) = (Schemas::empty(), SchemaDir::new(dir.path().into()));
        source.load(&schemas).unwrap();
        drop(dir);
        assert!(source.load_if_changed(&schemas).is_err());
        assert!(schemas.governing(Pattern::Sub, "a").is_some());
    }
}
