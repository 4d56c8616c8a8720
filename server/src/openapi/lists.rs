//! What is known of the bus and the journal besides messages: sessions, topics, schemas, recorders.

use super::operation::{Operation, Scope, operation};
use minium_protocol::ErrorCode::{Conflict, EpochChanged, NotFound, StorageFull, TopicInvalid};
use utoipa::openapi::Required;
use utoipa::openapi::path::HttpMethod::{Delete, Get, Post, Put};

const READ: Scope = Scope::Of("jobs:read");

pub(super) fn operations() -> Vec<Operation> {
    let recorder = |method, id, summary| {
        operation(method, "/api/v1/recorders/{name}", ("bus", id), Scope::Of("sub"), summary)
            .asks_the_store()
            .of("name", "RecorderName", "The recorder; what it has of slashes is percent-encoded.")
            .refuses(&[StorageFull])
    };
    vec![
        operation(
            Get,
            "/api/v1/sessions",
            ("bus", "listSessions"),
            READ,
            "A page of sessions, the oldest first.",
        )
        .query("after", "SessionNumber", "Behind this session: the cursor.")
        .query("limit", "Limit", "At most so many.")
        .answers(200, "The page. A page may be short and still have a `next`.", "SessionPage"),
        operation(
            Delete,
            "/api/v1/sessions/{id}",
            ("bus", "closeSession"),
            Scope::Of("admin"),
            "Closes a session.",
        )
        .of("id", "SessionNumber", "The session.")
        .query("reconnect", "Choice", "Is its client to come back? Unless it is said, it is.")
        .answers_nothing(204, "It is being closed.")
        .refuses(&[NotFound]),
        operation(
            Get,
            "/api/v1/topics",
            ("bus", "listTopics"),
            READ,
            "A page of the topics that this node knows.",
        )
        .query("pattern", "Pattern", "Of this name space.")
        .query("prefix", "Topic", "This topic and what lies below it.")
        .query("after", "Text", "Behind this one: the cursor.")
        .query("limit", "Limit", "At most so many.")
        .may_be_too_long()
        .answers(200, "The page.", "TopicPage")
        .refuses(&[TopicInvalid]),
        operation(Get, "/api/v1/schemas", ("bus", "listSchemas"), READ, "All schemas, by path.").answers(
            200,
            "All of them.",
            "SchemaList",
        ),
        operation(
            Post,
            "/api/v1/schemas:test",
            ("bus", "testSchema"),
            READ,
            "Says whether a document would pass.",
        )
        .takes("SchemaTest", Required::True)
        .answers(200, "What the schema says.", "SchemaVerdict")
        .refuses(&[NotFound, TopicInvalid]),
        operation(Get, "/api/v1/recorders", ("bus", "listRecorders"), READ, "Who archives the journal.")
            .asks_the_store()
            .answers(200, "All of them, by name.", "Recorders"),
        recorder(Put, "confirmRecorder", "So far all that it follows is kept elsewhere.")
            .takes("Confirmation", Required::True)
            .answers_nothing(201, "Registered.")
            .answers_nothing(204, "Moved.")
            .refuses(&[Conflict, EpochChanged]),
        recorder(Delete, "forgetRecorder", "Nothing is kept for it any more.")
            .answers_nothing(204, "Forgotten.")
            .refuses(&[NotFound]),
        operation(
            Get,
            "/asyncapi.json",
            ("bus", "asyncapi"),
            Scope::Of("any"),
            "What sockets say, as AsyncAPI 3.0.",
        )
        .answers(200, "The document.", "Anything"),
    ]
}
