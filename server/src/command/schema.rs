//! `minium schema`: are schema files valid, and do they stay inside the rules? And which ones has a node?

use crate::cli::SchemaList;
use crate::config::{Flags, load};
use crate::exit::{Exit, fault};
use crate::schema_files::SchemaDir;
use clap::{Args, Subcommand};
use minium_bus::{Report, SchemaFile, Schemas};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Subcommands of `minium schema`.
#[derive(Debug, Subcommand)]
pub(crate) enum Schema {
    /// Check schema files: valid JSON Schema 2020-12, no reference to elsewhere, linear-time patterns
    Check(Check),
    /// List the schemas that a node has in force
    Ls(SchemaList),
}

/// Arguments of `minium schema check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Files to check; without any, all of the schema directory
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

impl Schema {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Schema::Check(check) => check.run(),
            Schema::Ls(list) => list.run().await,
        }
    }
}

impl Check {
    fn run(&self) -> anyhow::Result<()> {
        if self.files.is_empty() { self.directory() } else { self.named() }
    }

    fn directory(&self) -> anyhow::Result<()> {
        let config = load(&self.flags)?.config;
        let dir = config.schemas.dir.unwrap_or_else(|| PathBuf::from("schemas"));
        let unreadable =
            |e| fault(Exit::NotFound, format!("The schema directory {} cannot be read: {e}", dir.display()));
        let files = SchemaDir::new(dir.clone()).read().map_err(unreadable)?;
        let paths = files.iter().map(|file| (file.path.clone(), file.path.clone())).collect::<Vec<_>>();
        told(&paths, &Schemas::empty().replace(files))
    }

    /// Each file by itself: where it stands below a schema directory does not matter for whether it is valid.
    fn named(&self) -> anyhow::Result<()> {
        let mut named = Vec::new();
        let mut files = Vec::new();
        for (i, path) in self.files.iter().enumerate() {
            let place = format!("tasks/check-{i}.json");
            named.push((place.clone(), path.display().to_string()));
            files.push(read(path, place));
        }
        told(&named, &Schemas::empty().replace(files))
    }
}

fn read(path: &Path, place: String) -> SchemaFile {
    match std::fs::read_to_string(path) {
        Ok(text) => SchemaFile::new(place, text),
        Err(error) => SchemaFile::unreadable(place, error.to_string()),
    }
}

/// One line a file; the first that is bad makes the exit code 6.
fn told(files: &[(String, String)], report: &Report) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for (place, shown) in files {
        match report.refused.iter().find(|refused| refused.path == *place) {
            Some(refused) => writeln!(out, "fail  {shown}: {}", refused.reason)?,
            None => writeln!(out, "ok    {shown}")?,
        }
    }
    match report.refused.len() {
        0 => Ok(()),
        1 => Err(fault(Exit::Schema, "1 schema cannot be used")),
        n => Err(fault(Exit::Schema, format!("{n} schemas cannot be used"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> anyhow::Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.json");
        std::fs::write(&file, text).unwrap();
        Check { files: vec![file], flags: Flags::default() }.run()
    }

    #[test]
    fn a_file_is_judged_wherever_it_stands() {
        checked(r#"{"type":"object"}"#).unwrap();
        for bad in ["{", r#"{"type":"thing"}"#, r#"{"$ref":"http://example.com/x.json"}"#] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
