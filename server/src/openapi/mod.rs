//! `/openapi.json`: what the node speaks over HTTP, as OpenAPI 3.1.
//!
//! The operations stand in the modules below, by subject; the schemas in `schemas.json`, and those of a job and of a task event
//! are the files that `/schemas/` serves, so that nothing is said twice. The tests hold the operations against the routes, one
//! by one, and a real node against the whole.

mod bus;
mod hooks;
mod jobs;
mod lists;
mod node;
mod operation;
mod queue;

use operation::Operation;
use serde_json::{Map, Value};
use std::sync::LazyLock;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApiBuilder, PathsBuilder};

/// Schemas by their names.
const SCHEMAS: &str = include_str!("schemas.json");
/// The snapshot of a job.
const JOB: &str = include_str!("../../../schemas/job.json");

const TAGS: [(&str, &str); 7] = [
    ("jobs", "Jobs: enqueue, look, change."),
    ("queues", "Queues, limits, figures."),
    ("schedules", "Schedules and named locks."),
    ("hooks", "Webhooks that come in."),
    ("workers", "Workers, and what they are told."),
    ("node", "The node itself: health, page, documents. Open to everybody."),
    ("bus", "Topics, sessions, schemas, recorders. What sockets say is described by AsyncAPI."),
];

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// The document as it is served.
pub(crate) fn text() -> &'static str {
    &DOCUMENT
}

fn operations() -> impl Iterator<Item = Operation> {
    [
        jobs::operations(),
        queue::operations(),
        hooks::operations(),
        bus::operations(),
        lists::operations(),
        node::operations(),
    ]
    .into_iter()
    .flatten()
}

fn document() -> Value {
    let license =
        LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("Minium")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Job queue, broker and notifier. Every refusal is an RFC 9457 problem; its `code` is stable. Members may be \
             added to any answer.",
        ))
        .license(Some(license))
        .build();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(
            "Its scopes say what it may do: `jobs:read`, `jobs:write`, `admin`, `pub:TOPIC` and so on.",
        ))
        .build();
    let components = ComponentsBuilder::new().security_scheme("bearer", SecurityScheme::Http(bearer)).build();
    let paths = operations().fold(PathsBuilder::new().build(), |mut paths, operation| {
        let (path, method) = (operation.path, operation.method.clone());
        paths.add_path_operation(path, vec![method], operation.build());
        paths
    });
    let tags = TAGS.map(|(name, words)| TagBuilder::new().name(name).description(Some(words)).build());
    let whole =
        OpenApiBuilder::new().info(info).paths(paths).components(Some(components)).tags(Some(tags)).build();
    let mut document = serde_json::to_value(whole).expect("a document is plain JSON");
    document["components"]["schemas"] = Value::Object(schemas());
    document
}

/// All schemas, ours and that of a job. A file of its own says which dialect it speaks; within the document that is said already.
fn schemas() -> Map<String, Value> {
    let mut schemas: Map<String, Value> = serde_json::from_str(SCHEMAS).expect("the schemas are JSON");
    let mut job: Map<String, Value> = serde_json::from_str(JOB).expect("the schema of a job is JSON");
    job.remove("$schema");
    job.remove("title");
    schemas.insert("Job".into(), Value::Object(job));
    schemas
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Path and method of each route of `routes.rs` that speaks HTTP, as the document writes them.
    fn routes() -> BTreeSet<(String, String)> {
        let mut routes = BTreeSet::new();
        for at in include_str!("../http/routes.rs").split(".at(").skip(1) {
            let path = at.split('"').nth(1).unwrap();
            if path.ends_with('/') && path != "/" {
                // a topic is missing there, whoever asks
                continue;
            }
            let call = at.split("\n        .").next().unwrap();
            for method in ["get", "post", "put", "patch", "delete"] {
                if call.contains(&format!(" {method}(")) || call.contains(&format!(".{method}(")) {
                    routes.insert((path.replace("{*", "{"), method.to_owned()));
                }
            }
        }
        routes
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document = document();
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                described.insert((path.clone(), method.clone()));
            }
        }
        let routes = routes();
        assert!(routes.len() > 50, "{routes:?}");
        let missing: Vec<_> = routes.difference(&described).collect();
        let too_much: Vec<_> = described.difference(&routes).collect();
        assert!(missing.is_empty() && too_much.is_empty(), "missing {missing:?}, too much {too_much:?}");
    }

    #[test]
    fn every_operation_says_all_there_is_to_say() {
        let (document, mut ids) = (document(), BTreeSet::new());
        assert_eq!(document["openapi"], "3.1.0");
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let who = format!("{method} {path}: {operation}");
                assert!(operation["summary"].as_str().is_some_and(|s| s.ends_with('.')), "{who}");
                assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{who}");
                let open = operation["tags"][0] == "node" || operation["tags"][0] == "hooks";
                assert_eq!(open, operation.get("security").is_none(), "{who}");
                let responses = operation["responses"].as_object().unwrap();
                assert!(responses.keys().any(|status| status.starts_with(['1', '2', '4'])), "{who}");
                for (status, response) in responses {
                    assert!(response["description"].as_str().is_some_and(|d| !d.is_empty()), "{who}");
                    if status.starts_with(['4', '5']) && status != "431" {
                        let problem = &response["content"]["application/problem+json"]["schema"]["$ref"];
                        assert_eq!(problem, "#/components/schemas/Problem", "{who}");
                    }
                }
                let parts = operation["parameters"].as_array().cloned().unwrap_or_default();
                let named: BTreeSet<_> = parts
                    .iter()
                    .filter(|p| p["in"] == "path")
                    .map(|p| format!("{{{}}}", p["name"].as_str().unwrap()))
                    .collect();
                let written: BTreeSet<_> =
                    path.split('/').filter(|part| part.starts_with('{')).map(str::to_owned).collect();
                assert_eq!(named, written, "{who}");
            }
        }
    }

    #[test]
    fn every_schema_that_is_pointed_at_is_there_and_the_other_way_round() {
        let document = document();
        let text = document.to_string();
        let pointed: BTreeSet<&str> = text
            .split("\"#/components/schemas/")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        let there: BTreeSet<&str> =
            document["components"]["schemas"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(pointed, there);
    }
}
