//! GET `/asyncapi.json`: what messages there are on this node, for generators and for people, as AsyncAPI 3.0 has it.
//!
//! Made anew for each request from the channels that are configured and the schemas in force. Actions are told from the
//! node's side, as the standard asks: what subscribers receive, the node sends. Payloads are references to the schema files,
//! since a schema's own references hold only within its file.

use super::{App, json};
use axum::extract::State;
use axum::response::Response;
use http::{StatusCode, Uri};
use minium_bus::{Channel, Channels, Governs, Pattern, Schema, Schemas};
use minium_protocol::Topic;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What payloads are written in.
const SCHEMA_FORMAT: &str = "application/schema+json;version=draft-2020-12";

const ABOUT: &str = "Topics have levels: what is said of a channel holds for everything below it that has no entry of its \
    own. Each address is a WebSocket; addresses below sub/ are event streams (SSE) as well, and those below pub/, push/ and \
    bus/ take messages by POST. Without a subprotocol a frame is one message, bare; with cloudevents.json it is one \
    CloudEvent around it; minium.v1 has frames with acknowledgements, also for many topics on one socket at /ws.";

/// GET `/asyncapi.json`.
pub(crate) async fn document(State(app): State<Arc<App>>) -> Response {
    let guarded = app.auth.now().table.is_guarded();
    let minion_topic = app.minion_topic.as_ref();
    let document = describe(&app.public_url, guarded, (&app.channels, &app.schemas), minion_topic);
    json(StatusCode::OK, document.to_string())
}

/// What a client does on an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Sub,
    Pub,
    Push,
    Pull,
    Bus,
}

impl Way {
    /// Those of a name space; nobody but the journal publishes on a reserved channel.
    fn of(pattern: Pattern, reserved: bool) -> &'static [Way] {
        match pattern {
            Pattern::Sub if reserved => &[Way::Sub],
            Pattern::Sub => &[Way::Sub, Way::Pub],
            Pattern::Push => &[Way::Push, Way::Pull],
            Pattern::Bus => &[Way::Bus],
        }
    }

    fn word(self) -> &'static str {
        match self {
            Way::Sub => "sub",
            Way::Pub => "pub",
            Way::Push => "push",
            Way::Pull => "pull",
            Way::Bus => "bus",
        }
    }

    /// What the node does with its messages, and what that is for the client.
    fn actions(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Way::Sub => &[("send", "Subscribe: every message on the topic and below it.")],
            Way::Pub => &[("receive", "Publish to all subscribers of the topic and of those above it.")],
            Way::Push => &[("receive", "Hand out work: each message goes to one puller.")],
            Way::Pull => &[("send", "Take work.")],
            Way::Bus => {
                &[("send", "Receive what the other peers send."), ("receive", "Send to all other peers.")]
            }
        }
    }
}

/// One topic of one name space, with what is known of it.
struct Entry {
    pattern: Pattern,
    topic: Topic,
    channel: Option<Arc<Channel>>,
    schema: Option<Arc<Schema>>,
}

/// Every topic that is configured or has a schema of its own.
fn entries(channels: &Channels, schemas: &Schemas) -> Vec<Entry> {
    let mut names: BTreeMap<(String, Pattern), Topic> = BTreeMap::new();
    let configured = channels.list().into_iter().map(|(pattern, channel)| (pattern, channel.prefix.clone()));
    let described = schemas.list().into_iter().filter_map(|view| match view.governs {
        Governs::Channel(pattern, topic) => Some((pattern, topic.parse().ok()?)),
        Governs::Task(_) | Governs::Nothing => None,
    });
    for (pattern, topic) in configured.chain(described) {
        names.insert((topic.to_string(), pattern), topic);
    }
    let entry = |((_, pattern), topic): ((String, Pattern), Topic)| {
        let channel = match pattern {
            Pattern::Sub | Pattern::Push => channels.governing(pattern, &topic),
            Pattern::Bus => None, // nothing of a channel concerns peers
        };
        let task = || schemas.for_task(topic.as_str()).filter(|_| is_durable_work(pattern, channel.as_ref()));
        let schema = schemas.governing(pattern, topic.as_str()).or_else(task);
        Entry { pattern, topic, channel, schema }
    };
    names.into_iter().map(entry).collect()
}

/// What is pushed there are the arguments of a task.
fn is_durable_work(pattern: Pattern, channel: Option<&Arc<Channel>>) -> bool {
    pattern == Pattern::Push && channel.is_some_and(|channel| channel.durable)
}

/// What the node says of its own accord on topics that no channel and no schema tell of: address, what it is, what it is made
/// of, and what stands for a part of the address.
fn own(public_url: &str, minion_topic: Option<&Topic>) -> Vec<(String, &'static str, Value, Value)> {
    let api = format!("{}/openapi.json#/components/schemas/Bulk", public_url.trim_end_matches('/'));
    let bulk = "How far a bulk action is that runs on the node, after each piece and at its end. Not kept.";
    let parameters =
        json!({ "id": { "description": "The bulk action, as the answer that began it names it." } });
    let mut own = vec![("sub/bulk/{id}".to_owned(), bulk, json!({ "$ref": api }), parameters)];
    if let Some(topic) = minion_topic {
        let words = "The number of a job and what became of it, as Minion::Notifier tells it. Not kept.";
        let action = json!({ "enum": ["enqueue", "dequeue", "finished", "failed"] });
        let pair = json!({ "type": "array", "prefixItems": [{ "type": "integer" }, action], "minItems": 2, "items": false });
        own.push((format!("bus/{topic}"), words, pair, Value::Null));
    }
    own
}

/// Adds them; a channel of the same address stands already, and is told as what it is used for.
fn add_own(
    (addresses, operations): (&mut Map<String, Value>, &mut Map<String, Value>),
    public_url: &str,
    minion_topic: Option<&Topic>,
) {
    for (address, words, schema, parameters) in own(public_url, minion_topic) {
        let key = key(&address);
        let mut channel = json!({
            "address": address,
            "description": words,
            "servers": [{ "$ref": "#/servers/node" }],
            "messages": { "message": {
                "contentType": "application/json",
                "payload": { "schemaFormat": SCHEMA_FORMAT, "schema": schema },
            } },
            "bindings": { "ws": { "method": "GET", "bindingVersion": "0.1.0" } },
        });
        if !parameters.is_null() {
            channel["parameters"] = parameters;
        }
        let operation = json!({
            "action": "send",
            "channel": { "$ref": format!("#/channels/{key}") },
            "summary": words,
            "messages": [{ "$ref": format!("#/channels/{key}/messages/message") }],
        });
        operations.insert(format!("send.{key}"), operation);
        addresses.insert(key, channel);
    }
}

fn describe(
    public_url: &str,
    guarded: bool,
    (channels, schemas): (&Channels, &Schemas),
    minion_topic: Option<&Topic>,
) -> Value {
    let (mut addresses, mut operations) = (Map::new(), Map::new());
    for entry in entries(channels, schemas) {
        let reserved = entry.channel.as_ref().is_some_and(|channel| channel.reserved);
        for way in Way::of(entry.pattern, reserved) {
            let address = format!("{}/{}", way.word(), entry.topic);
            let key = key(&address);
            for (action, summary) in way.actions() {
                let operation = json!({
                    "action": action,
                    "channel": { "$ref": format!("#/channels/{key}") },
                    "summary": summary,
                    "messages": [{ "$ref": format!("#/channels/{key}/messages/message") }],
                });
                operations.insert(format!("{action}.{key}"), operation);
            }
            addresses.insert(key, channel(&entry, *way, &address, public_url));
        }
    }
    add_own((&mut addresses, &mut operations), public_url, minion_topic);
    let mut server = server(public_url);
    let mut document = json!({
        "asyncapi": "3.0.0",
        "id": "urn:minium:node",
        "info": { "title": "Minium", "version": env!("CARGO_PKG_VERSION"), "description": ABOUT },
        "defaultContentType": "application/json",
        "channels": addresses,
        "operations": operations,
    });
    if guarded {
        let scheme = json!({ "type": "http", "scheme": "bearer", "bearerFormat": "JWT" });
        document["components"] = json!({ "securitySchemes": { "token": scheme } });
        server["security"] = json!([{ "$ref": "#/components/securitySchemes/token" }]);
    }
    document["servers"] = json!({ "node": server });
    document
}

/// A name without what has a meaning in references: `/` is `__`, and what else is no letter, digit, dot or dash `_` and two
/// hexadecimal digits.
fn key(address: &str) -> String {
    let mut key = String::new();
    for c in address.chars() {
        match c {
            '/' => key.push_str("__"),
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') => key.push(c),
            c => key.push_str(&format!("_{:02x}", u32::from(c))),
        }
    }
    key
}

fn server(public_url: &str) -> Value {
    let url: Uri = public_url.parse().unwrap_or_default();
    let protocol = if url.scheme_str() == Some("https") { "wss" } else { "ws" };
    let host = url.authority().map_or("localhost", |authority| authority.as_str());
    let mut server = json!({ "host": host, "protocol": protocol, "protocolVersion": "13" });
    let path = url.path().trim_end_matches('/');
    if !path.is_empty() {
        server["pathname"] = path.into();
    }
    server
}

fn channel(entry: &Entry, way: Way, address: &str, public_url: &str) -> Value {
    let durable = entry.channel.as_ref().is_some_and(|channel| channel.durable);
    let kept = match (durable, entry.pattern) {
        (true, Pattern::Push) => format!("Durable: each message is a job of the task {}.", entry.topic),
        (true, Pattern::Sub | Pattern::Bus) => {
            "Durable: messages are kept, and a position is asked for by after or last.".to_owned()
        }
        (false, _) => "Not kept: at most once.".to_owned(),
    };
    let mut ws = json!({ "method": "GET", "bindingVersion": "0.1.0" });
    if durable && way == Way::Sub {
        let (after, last) = (json!({ "type": "string" }), json!({ "type": "integer", "minimum": 0 }));
        ws["query"] = json!({ "type": "object", "properties": { "after": after, "last": last } });
    }
    json!({
        "address": address,
        "description": kept,
        "servers": [{ "$ref": "#/servers/node" }],
        "messages": { "message": message(entry, durable, public_url) },
        "bindings": { "ws": ws },
    })
}

fn message(entry: &Entry, durable: bool, public_url: &str) -> Value {
    let reserved = entry.channel.as_ref().is_some_and(|channel| channel.reserved);
    let Some(schema) = &entry.schema else {
        return match durable {
            true => json!({ "summary": "Any JSON.", "contentType": "application/json" }),
            false => json!({ "summary": "Any text or bytes.", "contentType": "application/octet-stream" }),
        };
    };
    let url = format!("{}/schemas/{}", public_url.trim_end_matches('/'), schema.path());
    let mut message = json!({
        "contentType": if reserved { "application/cloudevents+json" } else { "application/json" },
        "payload": { "schemaFormat": SCHEMA_FORMAT, "schema": { "$ref": url } },
    });
    if let Some(title) = schema.title() {
        message["title"] = title.into();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_bus::SchemaFile;

    fn channels(list: Vec<Channel>) -> Channels {
        Channels::new(list).unwrap()
    }

    #[test]
    fn every_channel_is_there_in_every_way_in_which_it_is_used() {
        let work = Channel { patterns: vec![Pattern::Push], ..Channel::durable("import".parse().unwrap()) };
        let channels = channels(vec![Channel::new("a/b".parse().unwrap()), work]);
        let schemas = Schemas::built_in();
        let report = schemas.replace(vec![
            SchemaFile::new("bus/ops.json", r#"{"title":"Ops"}"#),
            SchemaFile::new("tasks/import.json", "{}"),
        ]);
        assert!(report.is_clean(), "{report:?}");
        let minion = "jobs".parse().unwrap();
        let url = "https://example.com/minium/";
        let document = describe(url, true, (&channels, &schemas), Some(&minion));
        let addresses: Vec<_> = document["channels"]
            .as_object()
            .unwrap()
            .values()
            .map(|c| c["address"].as_str().unwrap())
            .collect();
        for address in [
            "sub/a/b",
            "pub/a/b",
            "push/a/b",
            "pull/a/b",
            "bus/a/b",
            "push/import",
            "pull/import",
            "bus/ops",
            "sub/task",
            "sub/bulk/{id}",
            "bus/jobs",
        ] {
            assert!(addresses.contains(&address), "{address}: {addresses:?}");
        }
        assert!(!addresses.contains(&"pub/task") && !addresses.contains(&"sub/import"), "{addresses:?}");
        let payload =
            |key: &str| &document["channels"][key]["messages"]["message"]["payload"]["schema"]["$ref"];
        assert_eq!(payload("push__import"), "https://example.com/minium/schemas/tasks/import.json");
        assert_eq!(payload("sub__task"), "https://example.com/minium/schemas/sub/task.json");
        let bulk = "https://example.com/minium/openapi.json#/components/schemas/Bulk";
        assert_eq!(payload("sub__bulk___7bid_7d"), bulk);
        assert_eq!(document["operations"]["receive.bus__ops"]["action"], "receive");
        let server = &document["servers"]["node"];
        assert_eq!((&server["host"], &server["protocol"]), (&json!("example.com"), &json!("wss")));
        assert_eq!((&server["pathname"], server["security"].is_array()), (&json!("/minium"), true));
    }

    #[test]
    fn no_two_addresses_share_a_key() {
        assert_eq!(key("sub/a.b-c"), "sub__a.b-c");
        let all =
            ["sub/a", "sub_a", "sub/_a", "sub/a_b", "sub/a/b", "sub/a~b", "sub/a@b", "sub/a:b", "sub/a_5fb"];
        let keys: std::collections::BTreeSet<_> = all.iter().map(|address| key(address)).collect();
        assert_eq!(keys.len(), all.len());
    }
}
