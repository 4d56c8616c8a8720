//! One compiled schema: how a text becomes one, and how it judges.
//!
//! Nothing that a schema says may reach out (no remote or file `$ref`) or take more than linear time in a message
//! (no back-tracking patterns), since messages come from strangers. Faults never repeat what a message said beyond
//! the names of its members: they go into logs' neighbours, the journal's `error` among them.

use super::{SchemaOptions, write_only};
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use minium_protocol::SchemaFault;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A schema, compiled once and shared by all who judge by it.
pub struct Schema {
    path: Arc<str>,
    text: Arc<str>,
    title: Option<Box<str>>,
    validator: Validator,
    write_only: Vec<Vec<String>>,
    options: SchemaOptions,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Schema {
    /// Compiles a file. The error is for the operator who wrote it.
    pub(super) fn compile(path: &str, text: &str, options: &SchemaOptions) -> Result<Schema, String> {
        if text.len() > options.file_bytes_max {
            let (have, max) = (text.len(), options.file_bytes_max);
            return Err(format!("it has {have} bytes, at most {max} are allowed"));
        }
        let document: Value = serde_json::from_str(text).map_err(|e| format!("it is not JSON: {e}"))?;
        if let Some(fault) = foreign(&document, "") {
            return Err(clip(fault, options.detail_bytes_max));
        }
        let patterns = PatternOptions::regex()
            .size_limit(options.pattern_bytes_max)
            .dfa_size_limit(options.pattern_bytes_max);
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(true)
            .with_pattern_options(patterns)
            .offline()
            .build(&document)
            .map_err(|e| clip(unfit(&e), options.detail_bytes_max))?;
        let write_only = write_only::paths(&document);
        let title = document.get("title").and_then(Value::as_str).map(Box::from);
        let options = options.clone();
        Ok(Schema { path: path.into(), text: text.into(), title, validator, write_only, options })
    }

    /// Where it stands, such as `sub/livesys.json`; `/schemas/` before it makes the URL's path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The file it was compiled from.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// What it calls itself.
    pub fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    /// The places that it marks `writeOnly`.
    pub(super) fn write_only(&self) -> &[Vec<String>] {
        &self.write_only
    }

    /// Judges a message, or a job's whole `args`.
    ///
    /// # Errors
    /// Where it breaks the schema: at least one place, at most as many as the options allow. Of a message with very
    /// many values only the first is told, since finding all costs memory for each.
    pub fn check(&self, message: &Value) -> Result<(), Vec<SchemaFault>> {
        if self.validator.is_valid(message) {
            return Ok(());
        }
        let mut faults: Vec<SchemaFault> = if values(message, self.options.judged_whole_max) {
            self.validator
                .iter_errors(message)
                .take(self.options.faults_max)
                .map(|e| self.fault(&e))
                .collect()
        } else {
            self.validator.validate(message).err().iter().map(|e| self.fault(e)).collect()
        };
        if faults.is_empty() {
            // two engines of the library disagree; the stricter one counts
            let detail = "the value does not fit the schema".into();
            faults.push(SchemaFault { pointer: String::new(), schema: String::new(), detail });
        }
        Err(faults)
    }

    fn fault(&self, error: &ValidationError<'_>) -> SchemaFault {
        let max = self.options.detail_bytes_max;
        SchemaFault {
            pointer: clip(error.instance_path().to_string(), max),
            schema: clip(error.schema_path().to_string(), max),
            detail: clip(error.masked_with("the value").to_string(), max),
        }
    }
}

/// Says what is wrong with the schema itself.
fn unfit(error: &ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    let place = if place.is_empty() { "its root".into() } else { place };
    format!("it is not a schema: at {place}: {error}")
}

/// Finds the first reference that leaves the document, or a dialect other than 2020-12.
fn foreign(value: &Value, at: &str) -> Option<String> {
    match value {
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            let here = || format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
            match (name.as_str(), value) {
                ("$ref" | "$dynamicRef", Value::String(to)) if !to.starts_with('#') => Some(format!(
                    "the reference {to:?} at {} leads out of the file; only #/… and #anchor are followed",
                    here()
                )),
                ("$schema", Value::String(dialect)) if dialect.trim_end_matches('#') != DIALECT => {
                    Some(format!("the dialect {dialect:?} at {} is not JSON Schema 2020-12", here()))
                }
                // instances, not schemas: what looks like a reference there is none
                ("const" | "enum" | "default" | "examples", _) => None,
                _ => foreign(value, &here()),
            }
        }),
        Value::Array(items) => items.iter().enumerate().find_map(|(i, v)| foreign(v, &format!("{at}/{i}"))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Has the message at most so many values?
fn values(message: &Value, max: usize) -> bool {
    fn spend(value: &Value, left: &mut usize) -> bool {
        let Some(rest) = left.checked_sub(1) else { return false };
        *left = rest;
        match value {
            Value::Object(members) => members.values().all(|v| spend(v, left)),
            Value::Array(items) => items.iter().all(|v| spend(v, left)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        }
    }
    spend(message, &mut max.clone())
}

/// Cuts a text to a bound, at a character's edge, and shows that it was cut.
fn clip(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn compile(schema: &Value) -> Result<Schema, String> {
        Schema::compile("sub/x.json", &schema.to_string(), &SchemaOptions::default())
    }

    fn refused(schema: &Value) -> String {
        compile(schema).expect_err("the schema must be refused")
    }

    #[test]
    fn faults_point_into_the_message_and_into_the_schema() {
        let schema = compile(&json!({
            "type": "array",
            "items": {"type": "object", "properties": {"serial": {"type": "string"}}, "required": ["host"]}
        }))
        .unwrap();
        assert!(schema.check(&json!([{"serial": "a", "host": "b"}])).is_ok());
        let faults = schema.check(&json!([{"serial": 7}])).unwrap_err();
        let at =
            |p: &str| faults.iter().find(|f| f.pointer == p).unwrap_or_else(|| panic!("{p}: {faults:?}"));
        assert_eq!(at("/0/serial").schema, "/items/properties/serial/type");
        assert_eq!(at("/0/serial").detail, "the value is not of type \"string\"");
        assert_eq!(at("/0").detail, "\"host\" is a required property");
    }

    #[test]
    fn faults_do_not_repeat_the_message() {
        let schema = compile(&json!({"properties": {"password": {"type": "integer"}}})).unwrap();
        let faults = schema.check(&json!({"password": "hunter2"})).unwrap_err();
        assert!(!format!("{faults:?}").contains("hunter2"), "{faults:?}");
    }

    #[test]
    fn faults_are_few_and_short_whatever_the_message() {
        let options = SchemaOptions::default();
        let schema = compile(
            &json!({"items": {"type": "string"}, "propertyNames": {"maxLength": 3}, "maxProperties": 1}),
        )
        .unwrap();
        let many = json!(vec![1; 1000]);
        assert_eq!(schema.check(&many).unwrap_err().len(), options.faults_max);
        let too_many_to_look_at = json!(vec![1; options.judged_whole_max + 1]);
        assert_eq!(schema.check(&too_many_to_look_at).unwrap_err().len(), 1);
        let long = json!({ "ä".repeat(10_000): 1, "b": 2 });
        for fault in schema.check(&long).unwrap_err() {
            let most = options.detail_bytes_max + '…'.len_utf8();
            assert!(fault.pointer.len() <= most && fault.schema.len() <= most && fault.detail.len() <= most);
        }
    }

    #[test]
    fn formats_are_asserted() {
        let schema = compile(&json!({"format": "date-time"})).unwrap();
        assert!(schema.check(&json!("2026-11-22T02:00:00Z")).is_ok());
        assert!(schema.check(&json!("yesterday")).is_err());
    }

    #[test]
    fn references_that_leave_the_file_are_refused_by_name() {
        for to in [
            "http://example.com/x.json",
            "https://example.com/x",
            "file:///etc/passwd",
            "other.json",
            "/job.json",
        ] {
            let reason = refused(&json!({"properties": {"a/b": {"$ref": to}}}));
            assert!(reason.contains(to) && reason.contains("/properties/a~1b/$ref"), "{reason}");
            let reason = refused(&json!({"$dynamicRef": to}));
            assert!(reason.contains(to), "{reason}");
        }
    }

    #[test]
    fn a_reference_behind_a_foreign_base_is_not_fetched() {
        let reason =
            refused(&json!({"$id": "http://example.com/", "properties": {"const": {"$ref": "x.json"}}}));
        assert!(reason.contains("x.json"), "{reason}");
    }

    #[test]
    fn references_inside_the_file_are_followed() {
        let schema = compile(&json!({
            "$defs": {"n": {"$anchor": "num", "type": "integer"}},
            "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#num"}, "$ref": {"type": "string"}},
            "examples": [{"$ref": "http://example.com/not-a-reference"}]
        }))
        .unwrap();
        assert!(schema.check(&json!({"a": 1, "b": 2, "$ref": "x"})).is_ok());
        assert!(schema.check(&json!({"a": "1"})).is_err());
        assert!(schema.check(&json!({"b": "2"})).is_err());
    }

    #[test]
    fn a_reference_to_nothing_is_refused() {
        assert!(refused(&json!({"$ref": "#/$defs/none"})).contains("none"));
    }

    #[test]
    fn other_dialects_are_refused() {
        assert!(refused(&json!({"$schema": "http://json-schema.org/draft-07/schema#"})).contains("2020-12"));
        assert!(compile(&json!({"$schema": DIALECT})).is_ok());
    }

    #[test]
    fn what_is_no_schema_is_refused_with_the_place() {
        let reason = refused(&json!({"properties": {"a": {"type": "strng"}}}));
        assert!(reason.contains("/properties/a/type"), "{reason}");
        assert!(
            Schema::compile("sub/x.json", "{", &SchemaOptions::default()).unwrap_err().contains("not JSON")
        );
        let deep = "[".repeat(100_000);
        assert!(
            Schema::compile("sub/x.json", &deep, &SchemaOptions::default()).unwrap_err().contains("JSON")
        );
        let long = format!("{{}}{}", " ".repeat(SchemaOptions::default().file_bytes_max));
        assert!(
            Schema::compile("sub/x.json", &long, &SchemaOptions::default()).unwrap_err().contains("bytes")
        );
    }

    /// A back-tracking engine needs more steps than there are atoms for this one; a linear one answers at once. The
    /// test does not measure time: with back-tracking it would not end.
    #[test]
    fn a_pattern_that_explodes_when_backtracking_is_judged_in_linear_time() {
        let schema = compile(&json!({"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"})).unwrap();
        assert!(schema.check(&json!("a".repeat(100_000))).is_err());
        assert!(schema.check(&json!("aaB".to_owned() + "cd")).is_ok());
    }

    #[test]
    fn patterns_that_need_backtracking_or_too_much_memory_are_refused() {
        for pattern in [r"(a+)\1", "(?=a)b", "((a{1000}){1000}){1000}"] {
            let reason = refused(&json!({"pattern": pattern}));
            assert!(!reason.is_empty());
        }
    }
}
