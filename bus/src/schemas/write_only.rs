//! Where a schema says `"writeOnly": true`: the places of a task's arguments that nobody sees but who runs the job.
//!
//! A schema speaks of places by many words (`properties`, `prefixItems`, `$ref`, …); here they become paths, each step a
//! member's name, an element's number, or `*` for all of them. Where that cannot be exact, more is hidden, never less:
//! `additionalProperties` hides all members, and a schema that goes round in a circle hides the place where it closes.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Longer paths end here, and hide what is below.
const STEPS_MAX: usize = 16;
/// A schema with more places than this hides everything.
const PLACES_MAX: usize = 256;
/// So many parts of a schema are looked at, counted anew wherever one is referred to; beyond, everything is hidden.
const LOOKS_MAX: usize = 20_000;

/// Words whose schema is of the very same value.
const SAME: &[&str] = &["if", "then", "else"];
const SAME_EACH: &[&str] = &["allOf", "anyOf", "oneOf", "dependentSchemas"];
/// Words whose schema is of all members, or all elements.
const EVERY: &[&str] =
    &["additionalProperties", "unevaluatedProperties", "items", "contains", "unevaluatedItems"];
const ALL: &str = "*";

/// The paths, in order. The empty one is the whole.
pub(super) fn paths(document: &Value) -> Vec<Vec<String>> {
    if !marks(document) {
        return Vec::new();
    }
    let mut walk = Walk { document, open: Vec::new(), found: BTreeSet::new(), left: LOOKS_MAX };
    let whole = walk.look(document, &mut Vec::new()).is_none() || walk.found.len() > PLACES_MAX;
    if whole { vec![Vec::new()] } else { walk.found.into_iter().collect() }
}

/// Is there any such word in it?
fn marks(value: &Value) -> bool {
    match value {
        Value::Object(members) => is_write_only(members) || members.values().any(marks),
        Value::Array(items) => items.iter().any(marks),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn is_write_only(schema: &Map<String, Value>) -> bool {
    schema.get("writeOnly") == Some(&Value::Bool(true))
}

struct Walk<'a> {
    document: &'a Value,
    /// The references that are being followed.
    open: Vec<&'a str>,
    found: BTreeSet<Vec<String>>,
    left: usize,
}

impl<'a> Walk<'a> {
    /// `None` when it cannot be known what is to be hidden.
    fn look(&mut self, schema: &'a Value, place: &mut Vec<String>) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        let Value::Object(schema) = schema else { return Some(()) };
        if is_write_only(schema) || place.len() >= STEPS_MAX {
            self.found.insert(place.clone());
            return Some(());
        }
        for word in ["$ref", "$dynamicRef"] {
            if let Some(to) = schema.get(word).and_then(Value::as_str) {
                self.follow(to, place)?;
            }
        }
        for word in SAME {
            schema.get(*word).map_or(Some(()), |s| self.look(s, place))?;
        }
        for word in SAME_EACH {
            children(schema.get(*word)).try_for_each(|s| self.look(s, place))?;
        }
        for word in EVERY {
            schema.get(*word).map_or(Some(()), |s| self.step(ALL, s, place))?;
        }
        children(schema.get("patternProperties")).try_for_each(|s| self.step(ALL, s, place))?;
        for (i, s) in children(schema.get("prefixItems")).enumerate() {
            self.step(&i.to_string(), s, place)?;
        }
        let members = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        for (name, s) in members {
            self.step(name, s, place)?;
        }
        Some(())
    }

    fn step(&mut self, step: &str, schema: &'a Value, place: &mut Vec<String>) -> Option<()> {
        place.push(step.to_owned());
        let looked = self.look(schema, place);
        place.pop();
        looked
    }

    fn follow(&mut self, to: &'a str, place: &mut Vec<String>) -> Option<()> {
        if self.open.contains(&to) {
            self.found.insert(place.clone());
            return Some(());
        }
        let schema = self.resolve(to.strip_prefix('#')?)?;
        self.open.push(to);
        let looked = self.look(schema, place);
        self.open.pop();
        looked
    }

    /// What a fragment names: the whole, a pointer, or an anchor.
    fn resolve(&self, fragment: &str) -> Option<&'a Value> {
        let fragment = percent_encoding::percent_decode_str(fragment).decode_utf8().ok()?;
        if fragment.is_empty() || fragment.starts_with('/') {
            return self.document.pointer(&fragment);
        }
        anchored(self.document, &fragment)
    }
}

/// The schemas in an array, or in an object of them.
fn children(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.chain(value.and_then(Value::as_object).into_iter().flatten().map(|(_, schema)| schema))
}

fn anchored<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let is_it = |v: Option<&Value>| v.and_then(Value::as_str) == Some(name);
    match value {
        Value::Object(m) if is_it(m.get("$anchor")) || is_it(m.get("$dynamicAnchor")) => Some(value),
        Value::Object(members) => members.values().find_map(|v| anchored(v, name)),
        Value::Array(items) => items.iter().find_map(|v| anchored(v, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(schema: &Value) -> Vec<String> {
        paths(schema).iter().map(|path| path.join("/")).collect()
    }

    #[test]
    fn a_schema_without_the_word_hides_nothing() {
        assert!(paths(&json!({"properties": {"a": {"writeOnly": false}}})).is_empty());
        assert!(paths(&json!(true)).is_empty());
    }

    #[test]
    fn places_become_paths_through_every_word() {
        let secret = json!({"type": "string", "writeOnly": true});
        assert_eq!(of(&json!({"prefixItems": [true, {"properties": {"password": secret}}]})), ["1/password"]);
        assert_eq!(of(&json!({"items": {"properties": {"key": secret, "name": {}}}})), ["*/key"]);
        assert_eq!(of(&json!({"additionalProperties": secret})), ["*"]);
        assert_eq!(of(&json!({"patternProperties": {"^x": {"items": secret}}})), ["*/*"]);
        assert_eq!(
            of(&json!({"allOf": [{"properties": {"a": secret}}], "then": {"properties": {"b": secret}}})),
            ["a", "b"]
        );
        assert_eq!(of(&json!({"dependentSchemas": {"x": {"properties": {"a": secret}}}})), ["a"]);
        assert_eq!(of(&secret), [""]);
    }

    #[test]
    fn references_are_followed_by_pointer_and_by_anchor() {
        let schema = json!({
            "$defs": {"pass word": {"writeOnly": true}, "pin": {"$anchor": "pin", "writeOnly": true}},
            "properties": {"a": {"$ref": "#/$defs/pass%20word"}, "b": {"$ref": "#pin"}}
        });
        assert_eq!(of(&schema), ["a", "b"]);
    }

    #[test]
    fn a_circle_hides_where_it_closes() {
        let tree =
            json!({"properties": {"secret": {"writeOnly": true}, "children": {"items": {"$ref": "#"}}}});
        assert_eq!(of(&tree), ["children/*/children/*", "children/*/secret", "secret"]);
        assert_eq!(
            of(
                &json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a", "writeOnly": false}, "b": {"writeOnly": true}}})
            ),
            [""]
        );
    }

    #[test]
    fn what_is_too_much_hides_everything() {
        let many: Map<String, Value> =
            (0..=PLACES_MAX).map(|i| (format!("m{i}"), json!({"writeOnly": true}))).collect();
        assert_eq!(of(&json!({"properties": many})), [""]);
        // each level refers to the next one twice
        let mut defs: Map<String, Value> = (0..40)
            .map(|i| {
                let next = format!("#/$defs/d{}", i + 1);
                (format!("d{i}"), json!({"allOf": [{"$ref": next}, {"$ref": next}]}))
            })
            .collect();
        defs.insert("d40".into(), json!({"properties": {"x": {"writeOnly": true}}}));
        assert_eq!(of(&json!({"$ref": "#/$defs/d0", "$defs": defs})), [""]);
        let deep = (0..30).fold(json!({"writeOnly": true}), |inner, _| json!({"items": inner}));
        assert_eq!(of(&deep), [["*"; STEPS_MAX].join("/")]);
    }
}
