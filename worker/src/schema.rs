//! JSON Schemas of Rust tasks, written from the types of their arguments.
//!
//! A node checks arguments by `schemas/tasks/<task>.json` when a job is enqueued. A task that is added by
//! [`Worker::described`](crate::Worker::described) has such a schema by itself; a test keeps the file and the type together:
//!
//! ```no_run
//! # use minium_worker::{Failure, JobContext, StoreSource, Worker, WorkerOptions};
//! # async fn send(_: JobContext, _: (u32,)) -> Result<(), Failure> { Ok(()) }
//! # fn example(store: std::sync::Arc<dyn minium_queue::Store>) {
//! let worker = Worker::new(StoreSource::new(store), WorkerOptions::default()).described("mail/invoice", send);
//! // in a test: fails with what differs, and with MINIUM_WRITE_SCHEMAS=1 writes the files anew
//! minium_worker::schema::assert_same("schemas", worker.schemas());
//! # }
//! ```

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

/// The variable that lets [`assert_same`] write the files in place of comparing them.
pub const WRITE_VARIABLE: &str = "MINIUM_WRITE_SCHEMAS";

/// More differences than this are not told of one file.
const DIFFERENCES_MAX: usize = 20;
/// A value in a difference is cut here.
const SHOWN_CHARACTERS_MAX: usize = 120;

/// The schema (2020-12) of the arguments of a task: the whole `args` of its jobs.
pub fn of<A: JsonSchema>(task: &str) -> Value {
    let generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let mut schema = generator.into_root_schema_for::<A>();
    // the type's own name says little, and is no part of what is promised
    schema.insert("title".into(), format!("Arguments of {task}").into());
    schema.to_value()
}

/// Asserts that `<dir>/tasks/<task>.json` is the schema of each of these tasks. With `MINIUM_WRITE_SCHEMAS=1` in the
/// environment it writes those that are not.
///
/// # Panics
/// With what differs, place by place.
pub fn assert_same<'a>(dir: impl AsRef<Path>, schemas: impl IntoIterator<Item = (&'a str, &'a Value)>) {
    let write = std::env::var_os(WRITE_VARIABLE).is_some_and(|value| value == "1");
    if let Err(differences) = compare(dir.as_ref(), schemas, write) {
        panic!("{differences}\nrun it again with {WRITE_VARIABLE}=1 to write the files from the types");
    }
}

/// As [`assert_same`], told by an error; `write` says whether files are written.
///
/// # Errors
/// What differs, for people, or why a file cannot be written.
pub fn compare<'a>(
    dir: &Path,
    schemas: impl IntoIterator<Item = (&'a str, &'a Value)>,
    write: bool,
) -> Result<(), String> {
    let mut told = String::new();
    for (task, schema) in schemas {
        let path = dir.join("tasks").join(format!("{task}.json"));
        let differences = match std::fs::read_to_string(&path) {
            Ok(text) => match serde_json::from_str(&text) {
                Ok(file) => differences(&file, schema),
                Err(error) => vec![format!("it is not JSON: {error}")],
            },
            Err(error) => vec![format!("it cannot be read: {error}")],
        };
        if differences.is_empty() {
            continue;
        }
        if write {
            put(&path, schema).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            continue;
        }
        writeln!(told, "{} is not the schema of the arguments of {task}:", path.display())
            .expect("a string takes every text");
        for difference in differences {
            writeln!(told, "  {difference}").expect("a string takes every text");
        }
    }
    if told.is_empty() { Ok(()) } else { Err(told) }
}

fn put(path: &Path, schema: &Value) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let text = serde_json::to_string_pretty(schema).expect("a schema is plain JSON");
    std::fs::write(path, text + "\n")
}

/// Where the file and the type differ, in words.
fn differences(file: &Value, of_type: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk("", Some(file), Some(of_type), &mut found);
    let more = found.len().saturating_sub(DIFFERENCES_MAX);
    found.truncate(DIFFERENCES_MAX);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    found
}

fn walk(place: &str, file: Option<&Value>, of_type: Option<&Value>, found: &mut Vec<String>) {
    match (file, of_type) {
        (Some(file), Some(of_type)) if file == of_type => {}
        (Some(Value::Object(file)), Some(Value::Object(of_type))) => {
            let added = of_type.keys().filter(|name| !file.contains_key(*name));
            for name in file.keys().chain(added) {
                walk(&format!("{place}/{name}"), file.get(name), of_type.get(name), found);
            }
        }
        (Some(Value::Array(file)), Some(Value::Array(of_type))) => {
            for n in 0..file.len().max(of_type.len()) {
                walk(&format!("{place}/{n}"), file.get(n), of_type.get(n), found);
            }
        }
        (file, of_type) => {
            let place = if place.is_empty() { "the whole" } else { place };
            found.push(format!("{place}: the file has {}, the type {}", shown(file), shown(of_type)));
        }
    }
}

fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is of interest")]
    struct Order {
        /// Which one.
        number: u32,
        note: Option<String>,
    }

    #[test]
    fn arguments_are_told_as_a_job_has_them() {
        let schema = of::<(Order, Vec<String>)>("mail/order");
        assert_eq!(schema["title"], "Arguments of mail/order");
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!((&schema["type"], &schema["prefixItems"][1]["type"]), (&json!("array"), &json!("array")));
        let order = &schema["$defs"]["Order"];
        assert_eq!((&order["required"], &order["additionalProperties"]), (&json!(["number"]), &json!(false)));
        assert_eq!(order["properties"]["number"]["description"], "Which one.");
    }

    #[test]
    fn what_differs_is_told_by_its_place_and_written_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let schema = of::<(Order,)>("mail/order");
        let schemas = [("mail/order", &schema)];
        let missing = compare(dir.path(), schemas, false).unwrap_err();
        assert!(missing.contains("order.json") && missing.contains("cannot be read"), "{missing}");
        compare(dir.path(), schemas, true).unwrap();
        compare(dir.path(), schemas, false).unwrap();
        let path = dir.path().join("tasks/mail/order.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("}\n") && text.lines().count() > 10, "for people: {text}");
        std::fs::write(&path, text.replace("\"number\"", "\"no\"")).unwrap();
        let differs = compare(dir.path(), schemas, false).unwrap_err();
        for words in [
            "/$defs/Order/properties/no: the file has {",
            "/$defs/Order/properties/number: the file has nothing, the type {",
            "/$defs/Order/required/0: the file has \"no\", the type \"number\"",
        ] {
            assert!(differs.contains(words), "{words}: {differs}");
        }
        std::fs::write(&path, "{").unwrap();
        assert!(compare(dir.path(), schemas, false).unwrap_err().contains("not JSON"));
    }
}
