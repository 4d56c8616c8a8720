//! What a job is given out of a payload: a template is any JSON in which some strings stand for parts of the delivery.
//!
//! Pure: a template and a delivery in, a value out. What is wrong with a template is told when it is read, never when
//! a delivery comes; what a payload does not have is `null`.

use serde_json::{Map, Value};

/// A template stands for no more parts than this: each of them may be the whole payload.
const PARTS_MAX: usize = 64;
/// A template nests no deeper.
const DEPTH_MAX: usize = 32;

/// What a template can speak of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery<'a> {
    /// The body.
    pub(crate) payload: &'a Value,
    /// What the sender calls it.
    pub(crate) event: &'a str,
    /// The sender's id of it.
    pub(crate) id: &'a str,
}

/// A template that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template(Node);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    /// As it stands.
    Fixed(Value),
    /// `$` and `$/a/b`: a place in the payload.
    Place(String),
    /// `$event`
    Event,
    /// `$delivery`
    Id,
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
}

impl Template {
    /// Reads a template; what is wrong comes in words.
    pub(crate) fn read(value: &Value) -> Result<Template, String> {
        let mut parts = 0;
        let node = read(value, DEPTH_MAX, &mut parts)?;
        match parts {
            ..=PARTS_MAX => Ok(Template(node)),
            _ => Err(format!("has {parts} texts with $, more than {PARTS_MAX}")),
        }
    }

    /// What it is for one delivery.
    pub(crate) fn fill(&self, delivery: Delivery<'_>) -> Value {
        fill(&self.0, delivery)
    }
}

fn read(value: &Value, depth: usize, parts: &mut usize) -> Result<Node, String> {
    let Some(deeper) = depth.checked_sub(1) else { return Err(format!("nests more than {DEPTH_MAX} deep")) };
    Ok(match value {
        Value::String(text) => read_text(text, parts)?,
        Value::Array(items) => {
            Node::List(items.iter().map(|item| read(item, deeper, parts)).collect::<Result<_, _>>()?)
        }
        Value::Object(members) => {
            let read = |(name, value): (&String, &Value)| Ok((name.clone(), read(value, deeper, parts)?));
            Node::Table(members.iter().map(read).collect::<Result<_, String>>()?)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Node::Fixed(value.clone()),
    })
}

fn read_text(text: &str, parts: &mut usize) -> Result<Node, String> {
    let Some(rest) = text.strip_prefix('$') else { return Ok(Node::Fixed(text.into())) };
    if rest.starts_with('$') {
        return Ok(Node::Fixed(rest.into()));
    }
    *parts += 1;
    match rest {
        "event" => Ok(Node::Event),
        "delivery" => Ok(Node::Id),
        place if place.is_empty() || place.starts_with('/') => {
            check_pointer(place)?;
            Ok(Node::Place(place.to_owned()))
        }
        _ => Err(format!(
            "{text:?} must be $ (all of the payload), $/a/b (a place in it), $event or $delivery; $$ stands for a $"
        )),
    }
}

/// Is it a JSON pointer (RFC 6901)?
pub(crate) fn check_pointer(text: &str) -> Result<(), String> {
    let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if (text.is_empty() || text.starts_with('/')) && escapes {
        Ok(())
    } else {
        Err(format!("{text:?} must be a JSON pointer, as in \"/repository/full_name\" (~1 for /, ~0 for ~)"))
    }
}

fn fill(node: &Node, delivery: Delivery<'_>) -> Value {
    match node {
        Node::Fixed(value) => value.clone(),
        Node::Place(pointer) => delivery.payload.pointer(pointer).cloned().unwrap_or(Value::Null),
        Node::Event => delivery.event.into(),
        Node::Id => delivery.id.into(),
        Node::List(items) => items.iter().map(|item| fill(item, delivery)).collect(),
        Node::Table(members) => {
            let members = members.iter().map(|(name, node)| (name.clone(), fill(node, delivery)));
            Value::Object(members.collect::<Map<_, _>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn filled(template: &Value, payload: &Value) -> Value {
        let delivery = Delivery { payload, event: "push", id: "7" };
        Template::read(template).unwrap().fill(delivery)
    }

    #[test]
    fn texts_that_begin_with_a_dollar_are_parts_of_the_delivery() {
        let payload = json!({ "ref": "x", "commits": [{ "id": 1 }, { "id": 2.5 }], "a/b": { "~": null } });
        let template = json!([
            "$/ref", "$/commits/1/id", { "from": "$/a~1b", "to": ["$/a~1b/~0", "plain", 3, null, true] },
            "$/missing", "$/commits/2", "$event", "$delivery", "$$/ref", "$$", "a $/ref"
        ]);
        let expected = json!([
            "x", 2.5, { "from": { "~": null }, "to": [null, "plain", 3, null, true] },
            null, null, "push", "7", "$/ref", "$", "a $/ref"
        ]);
        assert_eq!(filled(&template, &payload), expected);
        assert_eq!(filled(&json!("$"), &payload), payload);
        assert_eq!(filled(&json!({ "$/ref": "$/ref" }), &payload), json!({ "$/ref": "x" }), "names stand");
    }

    #[test]
    fn what_is_no_template_is_told() {
        let wrong = |value: Value| Template::read(&value).unwrap_err();
        assert!(wrong(json!(["$ref"])).contains("\"$ref\" must be $ (all of the payload)"));
        assert!(wrong(json!({ "a": "$/x~2" })).contains("JSON pointer"));
        assert!(wrong(json!(vec!["$"; PARTS_MAX + 1])).contains("65 texts"));
        assert!(Template::read(&json!(vec!["$"; PARTS_MAX])).is_ok());
        let deep = (0..DEPTH_MAX).fold(json!(1), |inner, _| json!([inner]));
        assert!(wrong(deep).contains("nests"));
    }

    #[test]
    fn a_payload_is_not_read_for_dollars() {
        let payload = json!({ "a": "$/b", "b": "secret" });
        assert_eq!(filled(&json!(["$/a"]), &payload), json!(["$/b"]));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[$/~a-c]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c/~]{0,2}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Each place of a value, by its pointer.
    fn places(value: &Value, pointer: &str, out: &mut Vec<(String, Value)>) {
        out.push((pointer.to_owned(), value.clone()));
        match value {
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    places(item, &format!("{pointer}/{i}"), out);
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    places(member, &format!("{pointer}/{name}"), out);
                }
            }
            _ => {}
        }
    }

    fn escaped(value: &Value) -> Value {
        match value {
            Value::String(text) if text.starts_with('$') => format!("${text}").into(),
            Value::Array(items) => items.iter().map(escaped).collect(),
            Value::Object(members) => {
                Value::Object(members.iter().map(|(name, v)| (name.clone(), escaped(v))).collect())
            }
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn every_place_of_a_payload_can_be_had(payload in any_json()) {
            let mut all = Vec::new();
            places(&payload, "", &mut all);
            for (pointer, value) in all {
                prop_assert_eq!(filled(&json!([format!("${pointer}")]), &payload), json!([value]));
            }
        }

        #[test]
        fn whatever_is_escaped_stands_as_it_is(value in any_json(), payload in any_json()) {
            prop_assert_eq!(filled(&escaped(&value), &payload), value);
        }

        #[test]
        fn nothing_that_is_read_panics(template in any_json(), payload in any_json()) {
            if let Ok(template) = Template::read(&template) {
                template.fill(Delivery { payload: &payload, event: "", id: "" });
            }
        }
    }
}
