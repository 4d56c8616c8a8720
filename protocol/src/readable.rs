//! JSON that every reader can read.
//!
//! Arguments and results pass through unparsed, so what one reader chokes on would go to all of them, again on every
//! replay: nesting beyond what parsers follow, half a surrogate pair, numbers beyond all floats. It is refused where
//! it comes in, by looking at it once without building it.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Parsers commonly stop at 128 levels, and an event has a few levels around the arguments.
pub const JSON_LEVELS_MAX: usize = 100;

/// Says why a text is no JSON that every reader can read.
pub fn check_json(text: &str) -> Result<(), String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Levels(JSON_LEVELS_MAX).deserialize(&mut reader).and_then(|()| reader.end());
    read.map_err(|e| e.to_string())
}

/// The same for what is parsed already, of which only the depth can be too much.
pub fn check_members(members: &Map<String, Value>) -> Result<(), String> {
    match members.values().all(|value| has_levels(value, JSON_LEVELS_MAX - 1)) {
        true => Ok(()),
        false => Err(too_deep()),
    }
}

/// Has it no more levels than these? Parsing has bounded how deep this goes.
fn has_levels(value: &Value, levels: usize) -> bool {
    let below = |value: &Value| levels > 0 && has_levels(value, levels - 1);
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(below),
        Value::Object(members) => levels > 0 && members.values().all(below),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

fn too_deep() -> String {
    format!("more than {JSON_LEVELS_MAX} levels of lists and objects")
}

/// How many levels may still be opened.
struct Levels(usize);

impl Levels {
    fn inner<E: Error>(&self) -> Result<usize, E> {
        self.0.checked_sub(1).ok_or_else(|| E::custom(too_deep()))
    }
}

impl<'de> DeserializeSeed<'de> for Levels {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Levels {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while seq.next_element_seed(Levels(inner))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while map.next_key_seed(Levels(inner))?.is_some() {
            map.next_value_seed(Levels(inner))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_json_is_readable() {
        for text in [
            "null",
            "-1.5e3",
            "\"a\\u0000\\ud83d\\ude00\"",
            "[]",
            "{\"a\":[{\"b\":true}],\"a\":18446744073709551615}",
        ] {
            assert_eq!(check_json(text), Ok(()), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(JSON_LEVELS_MAX), "]".repeat(JSON_LEVELS_MAX));
        assert_eq!(check_json(&deep), Ok(()));
    }

    #[test]
    fn what_is_parsed_is_judged_as_its_text_is() {
        for levels in [1, 2, JSON_LEVELS_MAX - 1, JSON_LEVELS_MAX, JSON_LEVELS_MAX + 1] {
            let inner = levels - 1;
            let text = format!("{{\"a\":{}1{}}}", "[".repeat(inner), "]".repeat(inner));
            assert_eq!(
                check_members(&serde_json::from_str(&text).unwrap()).is_ok(),
                check_json(&text).is_ok()
            );
        }
        assert!(check_members(&Map::new()).is_ok());
    }

    #[test]
    fn what_some_readers_choke_on_is_not() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        for (text, word) in [
            ("\"\\ud800\"".to_owned(), "escape"),
            ("[1e400]".into(), "number"),
            (deep(JSON_LEVELS_MAX + 1), "levels"),
            ("{\"a\":".repeat(JSON_LEVELS_MAX + 1), "levels"),
            (deep(100_000), "levels"),
            ("1 2".into(), "trailing"),
            ("[".into(), "EOF"),
            (String::new(), "EOF"),
        ] {
            let error = check_json(&text).unwrap_err();
            assert!(error.contains(word), "{}: {error}", &text[..text.len().min(20)]);
        }
    }
}
