//! Which schema governs what, found by place and replaced while the node runs.
//!
//! `schemas/<pattern>/<topic>.json` governs the topic and everything below it until a nearer file does;
//! `schemas/tasks/<task>.json` governs a job's whole `args` in the same way. A message is judged once, by the schema
//! of its own topic, wherever it is then delivered. Looking one up is pure: no file is read here, the server reads
//! them and hands them over ([`Schemas::replace`]). A file that cannot be used never opens a channel: the schema that
//! stood there before stays, and the report says so.

mod built_in;
mod place;
mod schema;
mod write_only;

pub use built_in::{BUILT_IN_SCHEMAS, BuiltInSchema};
pub use schema::Schema;

use crate::Pattern;
use arc_swap::ArcSwap;
use place::Place;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

/// Bounds on schemas and on what they say.
#[derive(Debug, Clone)]
pub struct SchemaOptions {
    /// A longer file is refused.
    pub file_bytes_max: usize,
    /// Files beyond this many, in the order of their paths, are refused.
    pub files_max: usize,
    /// Memory that one compiled pattern may take.
    pub pattern_bytes_max: usize,
    /// At most so many faults of one message are told.
    pub faults_max: usize,
    /// Pointers and words of a fault, or the reason of a refused file, are cut here.
    pub detail_bytes_max: usize,
    /// Of a message with more values than this only the first fault is told.
    pub judged_whole_max: usize,
}

impl Default for Schemas {
    /// What is built in.
    fn default() -> Schemas {
        Schemas::built_in()
    }
}

impl Default for SchemaOptions {
    fn default() -> SchemaOptions {
        SchemaOptions {
            file_bytes_max: 256 * 1024,
            files_max: 10_000,
            pattern_bytes_max: 1024 * 1024,
            faults_max: 16,
            detail_bytes_max: 300,
            judged_whole_max: 4_096,
        }
    }
}

/// A file as the server found it.
#[derive(Debug, Clone)]
pub struct SchemaFile {
    /// Below the directory, with `/`: `sub/livesys.json`.
    pub path: String,
    /// What stands in it, or why it cannot be read. An unreadable file is a broken one, not a removed one.
    pub text: Result<String, String>,
}

impl SchemaFile {
    /// A file that was read.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> SchemaFile {
        SchemaFile { path: path.into(), text: Ok(text.into()) }
    }

    /// A file that is there but cannot be read.
    pub fn unreadable(path: impl Into<String>, reason: impl Into<String>) -> SchemaFile {
        SchemaFile { path: path.into(), text: Err(reason.into()) }
    }
}

/// A file that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedSchema {
    /// Its path.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
    /// A schema that stood at this path before is still in force.
    pub kept: bool,
}

/// What a replacement did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Paths that had no schema before.
    pub added: usize,
    /// Paths whose schema is another now, among them built-in ones that a file covers or uncovers.
    pub changed: usize,
    /// Paths that have none any more.
    pub removed: usize,
    /// Files that were not taken, in the order of their paths.
    pub refused: Vec<RefusedSchema>,
    /// Schemas in force now, the built-in ones included.
    pub in_force: usize,
}

impl Report {
    /// Were all files taken?
    pub fn is_clean(&self) -> bool {
        self.refused.is_empty()
    }
}

/// What a schema governs, together with everything below that has no nearer one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Governs {
    /// Messages on a topic.
    Channel(Pattern, String),
    /// Arguments of a task.
    Task(String),
    /// Nothing: it describes.
    Nothing,
}

/// A schema as it is listed.
#[derive(Debug, Clone)]
pub struct SchemaView {
    /// What it governs.
    pub governs: Governs,
    /// It comes with the program, and no file covers it.
    pub built_in: bool,
    /// The schema itself.
    pub schema: Arc<Schema>,
}

/// One consistent set. Never changed, only replaced.
#[derive(Debug, Default)]
struct Set {
    generation: u64,
    by_path: BTreeMap<Arc<str>, Arc<Schema>>,
    channels: [HashMap<Arc<str>, Arc<Schema>>; 3],
    tasks: HashMap<Arc<str>, Arc<Schema>>,
}

/// All schemas of a node.
#[derive(Debug)]
pub struct Schemas {
    current: ArcSwap<Set>,
    /// What stands when no file covers it.
    base: BTreeMap<Arc<str>, Arc<Schema>>,
    options: SchemaOptions,
    /// Replacements are made one after the other, or a slow one would bring old files back.
    replacing: Mutex<()>,
}

impl Schemas {
    /// None at all, not even the built-in ones.
    pub fn empty() -> Schemas {
        Schemas::with_base(&[], SchemaOptions::default())
    }

    /// The built-in ones.
    pub fn built_in() -> Schemas {
        Schemas::with_base(BUILT_IN_SCHEMAS, SchemaOptions::default())
    }

    /// The built-in ones, with bounds of one's own for the files to come.
    pub fn with_options(options: SchemaOptions) -> Schemas {
        Schemas::with_base(BUILT_IN_SCHEMAS, options)
    }

    fn with_base(built_in: &[BuiltInSchema], options: SchemaOptions) -> Schemas {
        let compile = |b: &BuiltInSchema| {
            // under the usual bounds: tight ones of an operator are for the operator's files
            let schema = Schema::compile(b.path, b.text, &SchemaOptions::default())
                .expect("built-in schemas are compiled by a test");
            (Arc::from(b.path), Arc::new(schema))
        };
        let base: BTreeMap<Arc<str>, Arc<Schema>> = built_in.iter().map(compile).collect();
        let set = Set::new(0, base.clone());
        Schemas { current: ArcSwap::from_pointee(set), base, options, replacing: Mutex::new(()) }
    }

    /// Puts these files in force, all at once: `files` is everything that there is. A file that cannot be used
    /// leaves what stood at its path; a file that is not named any more is dropped, and a built-in one that it
    /// covered comes back.
    pub fn replace(&self, mut files: Vec<SchemaFile>) -> Report {
        let guard = self.replacing.lock();
        let _one_at_a_time = guard.unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = self.current.load_full();
        let mut report = Report::default();
        let mut next = self.base.clone();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        for (i, file) in files.iter().enumerate() {
            let old = before.by_path.get(file.path.as_str());
            let taken = if i < self.options.files_max {
                self.take(file, old)
            } else {
                Err(format!("there are more than {} files", self.options.files_max))
            };
            match taken {
                Ok(schema) => _ = next.insert(file.path.as_str().into(), schema),
                Err(reason) => {
                    if let Some(old) = old {
                        next.insert(file.path.as_str().into(), old.clone());
                    }
                    report.refused.push(RefusedSchema {
                        path: file.path.clone(),
                        reason,
                        kept: old.is_some(),
                    });
                }
            }
        }
        let old_text = |path: &Arc<str>| before.by_path.get(path).map(|s| s.text());
        report.added = next.keys().filter(|p| old_text(p).is_none()).count();
        report.changed = next.iter().filter(|(p, s)| old_text(p).is_some_and(|t| t != s.text())).count();
        report.removed = before.by_path.keys().filter(|p| !next.contains_key(*p)).count();
        report.in_force = next.len();
        if report.added + report.changed + report.removed > 0 {
            self.current.store(Arc::new(Set::new(before.generation + 1, next)));
        }
        report
    }

    /// The schema of one file; the old one's when its text is the same, since compiling is the costly part.
    fn take(&self, file: &SchemaFile, old: Option<&Arc<Schema>>) -> Result<Arc<Schema>, String> {
        let text = file.text.as_ref().map_err(|e| format!("it cannot be read: {e}"))?;
        Place::of(&file.path)?;
        if let Some(old) = old.filter(|old| **old.text() == **text) {
            return Ok(old.clone());
        }
        let fixed = BUILT_IN_SCHEMAS.iter().any(|b| b.fixed && b.path == file.path);
        if fixed && self.base.contains_key(file.path.as_str()) {
            return Err("it describes what Minium itself says and cannot be replaced".into());
        }
        Schema::compile(&file.path, text, &self.options).map(Arc::new)
    }

    /// Changes with every replacement that changed something, so that sessions may remember what governs them.
    pub fn generation(&self) -> u64 {
        self.current.load().generation
    }

    /// The schema that governs a topic: the nearest one at or above it.
    pub fn governing(&self, pattern: Pattern, topic: &str) -> Option<Arc<Schema>> {
        nearest(&self.current.load().channels[pattern as usize], topic)
    }

    /// The schema that governs the arguments of a task: the nearest one at or above it.
    pub fn for_task(&self, task: &str) -> Option<Arc<Schema>> {
        nearest(&self.current.load().tasks, task)
    }

    /// Which places of whose arguments are for nobody but who runs the job (`writeOnly`): every task that has a schema of its
    /// own, with paths from the root of its arguments, and `*` for all members or elements.
    pub fn hidden_args(&self) -> Vec<(Arc<str>, Vec<Vec<String>>)> {
        let set = self.current.load();
        let mut all: Vec<_> =
            set.tasks.iter().map(|(task, schema)| (task.clone(), schema.write_only().to_vec())).collect();
        all.sort();
        all
    }

    /// One schema by its path.
    pub fn get(&self, path: &str) -> Option<Arc<Schema>> {
        self.current.load().by_path.get(path).cloned()
    }

    /// The file at a path, as it is served.
    pub fn text(&self, path: &str) -> Option<Arc<str>> {
        self.current.load().by_path.get(path).map(|s| s.text().clone())
    }

    /// All of them with what they govern, in the order of their paths.
    pub fn list(&self) -> Vec<SchemaView> {
        let set = self.current.load();
        let view = |(path, schema): (&Arc<str>, &Arc<Schema>)| SchemaView {
            governs: match Place::of(path) {
                Ok(Place::Channel(pattern, topic)) => Governs::Channel(pattern, topic.to_owned()),
                Ok(Place::Task(task)) => Governs::Task(task.to_owned()),
                Ok(Place::Document) | Err(_) => Governs::Nothing,
            },
            built_in: self.base.get(path).is_some_and(|base| Arc::ptr_eq(base, schema)),
            schema: schema.clone(),
        };
        set.by_path.iter().map(view).collect()
    }

    /// All paths, in order.
    pub fn paths(&self) -> Vec<Arc<str>> {
        self.current.load().by_path.keys().cloned().collect()
    }
}

impl Set {
    fn new(generation: u64, by_path: BTreeMap<Arc<str>, Arc<Schema>>) -> Set {
        let mut set = Set { generation, ..Set::default() };
        for (path, schema) in &by_path {
            match Place::of(path) {
                Ok(Place::Channel(pattern, topic)) => {
                    _ = set.channels[pattern as usize].insert(topic.into(), schema.clone());
                }
                Ok(Place::Task(task)) => _ = set.tasks.insert(task.into(), schema.clone()),
                Ok(Place::Document) | Err(_) => {}
            }
        }
        set.by_path = by_path;
        set
    }
}

/// The entry of a topic or of its nearest ancestor.
fn nearest(map: &HashMap<Arc<str>, Arc<Schema>>, topic: &str) -> Option<Arc<Schema>> {
    if map.is_empty() {
        return None;
    }
    minium_protocol::levels(topic).find_map(|level| map.get(level)).cloned()
}

#[cfg(test)]
mod tests;
