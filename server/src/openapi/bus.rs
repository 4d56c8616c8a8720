//! Topics over HTTP: one message in, a page of kept ones out. What sockets say is AsyncAPI's.

use super::operation::{Operation, Scope, operation};
use minium_protocol::ErrorCode::{
    Conflict, EpochChanged, Internal, InvalidJson, NoPuller, NotFound, OffsetExpired, SchemaViolation,
    StorageFull, TopicInvalid, Unavailable, UpgradeRequired,
};
use utoipa::openapi::path::HttpMethod::{Get, Post};

const TOPIC: &str = "The topic. Its levels are parted by slashes, which stand as they are.";

pub(super) fn operations() -> Vec<Operation> {
    let socket = |path, id, scope, summary| {
        operation(Get, path, ("bus", id), Scope::Of(scope), summary)
            .of("topic", "Topic", TOPIC)
            .answers_nothing(101, "The socket is open.")
            .refuses(&[TopicInvalid, UpgradeRequired, NotFound, OffsetExpired, EpochChanged, Unavailable])
    };
    let message = |path, id, scope, summary| {
        operation(Post, path, ("bus", id), Scope::Of(scope), summary)
            .of("topic", "Topic", TOPIC)
            .takes_message()
            .refuses(&[
                TopicInvalid,
                SchemaViolation,
                InvalidJson,
                NotFound,
                StorageFull,
                Unavailable,
                Internal,
            ])
    };
    vec![
        operation(Get, "/ws", ("bus", "talk"), Scope::Of("any"), "One WebSocket for many topics.")
            .answers_nothing(101, "The socket is open.")
            .refuses(&[UpgradeRequired]),
        socket("/pub/{topic}", "publishOverSocket", "pub", "A WebSocket to publish on."),
        message("/pub/{topic}", "publish", "pub", "Publishes one message to all subscribers.")
            .header("Idempotency-Key", "Key", "Makes trying again harmless on a durable channel.")
            .answers_nothing(200, "Sent, and nothing more to say; on a durable channel `{\"epoch\",\"offset\"}`: it is kept there."),
        socket("/sub/{topic}", "subscribe", "sub", "A subscription, as a WebSocket or an event stream.")
            .query("after", "Text", "From behind this position.")
            .query("last", "Place", "From so many messages before the end.")
            .answers_as(
                200,
                "An event stream, where that is accepted.",
                &[("text/event-stream", "Text")],
                &[],
            ),
        socket("/push/{topic}", "pushOverSocket", "push", "A WebSocket to hand out work on."),
        message(
            "/push/{topic}",
            "push",
            "push",
            "Hands one piece of work to one puller; on a durable channel it becomes a job.",
        )
        .header("Idempotency-Key", "Key", "The key of the job.")
        .answers_nothing(200, "Taken, and nothing more to say; on a durable channel `{\"job\"}`, which it has become.")
        .refuses(&[NoPuller, Conflict]),
        socket("/pull/{topic}", "pull", "pull", "A WebSocket to take work from.").query(
            "ack",
            "Text",
            "With `1` each job of a durable channel is acknowledged.",
        ),
        socket("/bus/{topic}", "peer", "bus", "A WebSocket among peers.").query(
            "echo",
            "Text",
            "With `1` one's own messages come back.",
        ),
        message("/bus/{topic}", "send", "bus", "Sends one message to all peers.")
            .answers_nothing(200, "Sent."),
        operation(
            Get,
            "/history/{topic}",
            ("bus", "history"),
            Scope::Of("sub"),
            "A page of the messages that are kept.",
        )
        .of("topic", "Topic", TOPIC)
        .query("after", "Text", "From behind this position; the oldest when left out.")
        .query("last", "Place", "From so many messages before the end.")
        .query("limit", "Limit", "At most so many.")
        .answers_as(
            200,
            "The page.",
            &[("application/json", "MessagePage"), ("application/x-ndjson", "Text")],
            &[("Minium-Next", "Text")],
        )
        .refuses(&[TopicInvalid, NotFound, OffsetExpired, EpochChanged, Unavailable, Internal]),
    ]
}
