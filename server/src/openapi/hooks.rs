//! Webhooks that come in. Their bodies are whatever the sender says; the signature that permits them is in a header.

use super::operation::{Operation, Scope, operation};
use minium_protocol::ErrorCode::{NotFound, RateLimited, SchemaViolation, StorageFull};
use utoipa::openapi::Required;
use utoipa::openapi::path::HttpMethod::Post;

pub(super) fn operations() -> Vec<Operation> {
    let summary = "A delivery of a webhook, which becomes a job. Its signature is all that it has to show.";
    vec![
        operation(Post, "/hooks/{name}", ("hooks", "receiveHook"), Scope::None, summary)
            .of("name", "Text", "The hook, as the configuration has it.")
            .header("X-Hub-Signature-256", "Text", "GitHub's signature of the body.")
            .header("X-GitHub-Event", "Text", "GitHub's name of the event.")
            .header("X-GitHub-Delivery", "Text", "GitHub's id of the delivery.")
            .header("webhook-id", "Text", "The id of the delivery, of Standard Webhooks.")
            .header("webhook-timestamp", "Text", "When it was sent, in seconds of Unix time.")
            .header("webhook-signature", "Text", "Signatures of id, time and body.")
            .takes("Anything", Required::True)
            .answers(200, "A ping was heard, and nothing is done.", "HookAnswer")
            .answers(202, "The job, or why there is none.", "HookAnswer")
            .asks_the_store()
            .refuses(&[NotFound, RateLimited, SchemaViolation, StorageFull]),
    ]
}
