//! (head comment to come)

mod history;
mod pattern;
mod schemas;

pub use history::{Bounds, History, HistoryError, Page, Relayed};
pub use pattern::Pattern;
pub use schemas::{
    BUILT_IN_SCHEMAS, BuiltInSchema, RefusedSchema, Report, Schema, SchemaFile, SchemaOptions, Schemas,
};
