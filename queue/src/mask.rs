//! Hides places of a job's arguments: the pure part. PostgreSQL does the same in SQL (`minium.mask_at`), since jobs are
//! enqueued by SQL as well; the conformance suite holds both to one answer.
//!
//! Whatever is not hidden stays as it was written, to the byte: numbers too long for a machine's, members named twice.

use crate::store::ArgsMask;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

/// What stands in a hidden place.
const HIDDEN: &str = r#""***""#;
/// A step that is every member, or every element.
const ALL: &str = "*";

/// Each task once, in order, with its paths as JSON; the last mask given counts.
pub(crate) fn one_each(masks: &[ArgsMask]) -> BTreeMap<&str, String> {
    let text = |mask: &ArgsMask| serde_json::to_string(&mask.paths).expect("texts always serialise");
    masks.iter().map(|mask| (mask.task.as_str(), text(mask))).collect()
}

/// The paths as [`one_each`] wrote them. What is unreadable hides everything.
pub(crate) fn read_paths(text: &str) -> Vec<Vec<String>> {
    serde_json::from_str(text).unwrap_or_else(|_| vec![Vec::new()])
}

/// The arguments with these places hidden; `None` when nothing of theirs is.
pub(crate) fn shown(args: &str, paths: &[Vec<String>]) -> Option<String> {
    let paths: Vec<&[String]> = paths.iter().map(Vec::as_slice).collect();
    hide(args, &paths)
}

fn hide(json: &str, paths: &[&[String]]) -> Option<String> {
    if paths.is_empty() {
        return None;
    }
    if paths.iter().any(|path| path.is_empty()) {
        return Some(HIDDEN.into());
    }
    let parts = match json.trim_start().as_bytes().first() {
        Some(b'{') => serde_json::from_str(json).map(|Members(members)| ('{', members, '}')),
        Some(b'[') => serde_json::from_str(json).map(|elements: Vec<&RawValue>| {
            ('[', elements.into_iter().enumerate().map(|(i, e)| (i.to_string(), e)).collect(), ']')
        }),
        _ => return None,
    };
    let Ok((open, children, close)) = parts else {
        // no JSON after all: it was judged when it came in
        return Some(HIDDEN.into());
    };
    let mut hidden = false;
    let mut out = String::with_capacity(json.len());
    out.push(open);
    for (i, (step, value)) in children.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        if open == '{' {
            out.push_str(&serde_json::to_string(step).expect("a text always serialises"));
            out.push(':');
        }
        let leads = |path: &&&[String]| path[0] == ALL || path[0] == *step;
        let below: Vec<&[String]> = paths.iter().filter(leads).map(|path| &path[1..]).collect();
        let instead = hide(value.get(), &below);
        hidden |= instead.is_some();
        out.push_str(instead.as_deref().unwrap_or(value.get()));
    }
    out.push(close);
    hidden.then_some(out)
}

/// An object's members as they stand, those with one name as well: all of them are hidden.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(of: &[&[&str]]) -> Vec<Vec<String>> {
        of.iter().map(|path| path.iter().map(|step| (*step).to_owned()).collect()).collect()
    }

    #[test]
    fn only_what_is_named_is_hidden_and_the_rest_stays_as_it_was_written() {
        let args = r#"["h", {"user": "u", "password": "hunter2", "n": 1.0e+400, "in":[{"key":1},{"key":2,"x":null}]}]"#;
        let hidden =
            shown(args, &paths(&[&["1", "password"], &["1", "in", "*", "key"], &["7"], &["0", "x"]]));
        assert_eq!(
            hidden.as_deref(),
            Some(
                r#"["h",{"user":"u","password":"***","n":1.0e+400,"in":[{"key":"***"},{"key":"***","x":null}]}]"#
            )
        );
        assert_eq!(shown(args, &paths(&[&["2"], &["1", "pass"], &["password"]])), None);
        assert_eq!(shown(args, &paths(&[&[]])).as_deref(), Some(HIDDEN));
        assert_eq!(shown(args, &[]), None);
    }

    #[test]
    fn a_member_that_is_named_twice_is_hidden_twice_however_it_is_spelt() {
        let args = r#"[{"\u0070w":"a","pw":"b"}]"#;
        let hidden = shown(args, &paths(&[&["0", "pw"]])).unwrap();
        assert_eq!(hidden, r#"[{"pw":"***","pw":"***"}]"#);
    }

    #[test]
    fn what_cannot_be_looked_into_is_hidden() {
        assert_eq!(shown("[1,", &paths(&[&["0"]])).as_deref(), Some(HIDDEN));
        assert_eq!(read_paths("not paths"), paths(&[&[]]));
    }
}
