//! The schemas that every node has, embedded. They stand in `schemas/` at the root of the repository.

use super::SchemaFile;

/// A schema that is part of the program.
#[derive(Debug, Clone, Copy)]
pub struct BuiltInSchema {
    /// Where it stands under `/schemas/`.
    pub path: &'static str,
    /// The file.
    pub text: &'static str,
    /// It describes what Minium itself says: no file may take its place.
    pub fixed: bool,
}

/// All of them. Those that are not fixed are replaced by a file of the same path.
pub const BUILT_IN_SCHEMAS: &[BuiltInSchema] = &[
    BuiltInSchema { path: "job.json", text: include_str!("../../../schemas/job.json"), fixed: true },
    BuiltInSchema {
        path: "sub/task.json",
        text: include_str!("../../../schemas/sub/task.json"),
        fixed: true,
    },
    BuiltInSchema {
        path: "sub/livesys.json",
        text: include_str!("../../../schemas/sub/livesys.json"),
        fixed: false,
    },
    BuiltInSchema {
        path: "sub/livesys/all.json",
        text: include_str!("../../../schemas/sub/livesys/all.json"),
        fixed: false,
    },
    BuiltInSchema {
        path: "tasks/livesys/inventory.json",
        text: include_str!("../../../schemas/tasks/livesys/inventory.json"),
        fixed: false,
    },
];

impl BuiltInSchema {
    /// As if it had been read from a directory.
    pub fn file(&self) -> SchemaFile {
        SchemaFile::new(self.path, self.text)
    }
}
