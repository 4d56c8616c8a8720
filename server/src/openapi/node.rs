//! What the node says about itself, to everybody.

use super::operation::{Operation, Scope, operation};
use minium_protocol::ErrorCode::{NotFound, Unavailable};
use utoipa::openapi::path::HttpMethod::Get;

pub(super) fn operations() -> Vec<Operation> {
    let open = |path, id, summary| operation(Get, path, ("node", id), Scope::None, summary);
    let file = |path, id, summary, kind| {
        open(path, id, summary).answers_as(200, "The file.", &[(kind, "Text")], &[])
    };
    vec![
        file("/", "console", "The page for people.", "text/html"),
        file("/console/{file}", "consoleFile", "What that page is made of.", "text/javascript")
            .of("file", "Text", "The file.")
            .refuses(&[NotFound]),
        file("/sdk.js", "sdk", "The client for pages and for Node.", "text/javascript"),
        open("/favicon.ico", "icon", "There is none.").answers_nothing(204, "Nothing."),
        file("/healthz", "healthz", "Whether the process lives.", "text/plain"),
        open("/readyz", "readyz", "Whether everything is there that it needs.")
            .answers(200, "It is.", "Ready")
            .refuses(&[Unavailable]),
        open("/schemas/{path}", "schema", "A schema, by the path that `dataschema` names.")
            .answers_as(200, "The file.", &[("application/schema+json", "Anything")], &[])
            .of("path", "Text", "The file.")
            .refuses(&[NotFound]),
        file("/problems/{code}", "problem", "What a problem's code means.", "text/plain")
            .of("code", "Text", "The code.")
            .refuses(&[NotFound]),
        open("/openapi.json", "openapi", "This document.").answers(200, "The document.", "Anything"),
    ]
}
