//! Every route of the server, read from its source, with no token, bad ones, the wrong scope and the right one. A route
//! that somebody adds is tried here without being listed, and one that is added past the table fails.

use super::{Guarded, bad_tokens, bearer, token};
use crate::support::node::checkout;
use reqwest::Method;

/// A route as the source has it.
#[derive(Debug)]
struct Route {
    path: String,
    need: String,
    methods: Vec<Method>,
}

fn source(name: &str) -> String {
    std::fs::read_to_string(checkout().join("server/src/http").join(name)).unwrap()
}

/// The routes of `server/src/http/routes.rs`.
fn routes() -> Vec<Route> {
    let text = source("routes.rs");
    let calls = text.split("\n        .at(").skip(1).map(|rest| rest.split("\n        .").next().unwrap());
    let methods = [Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE];
    let read = |call: &str| {
        let path = call.split('"').nth(1).unwrap().to_owned();
        let need = call.split("Need::").nth(1).unwrap().split([',', ' ']).next().unwrap().to_owned();
        let handlers = call.split("Need::").nth(1).unwrap();
        let has = |method: &&Method| handlers.contains(&format!("{}(", method.as_str().to_lowercase()));
        let methods: Vec<Method> = methods.iter().filter(has).cloned().collect();
        assert!(!methods.is_empty(), "{call}");
        Route { path, need, methods }
    };
    calls.map(read).collect()
}

/// What everybody may have. A new route that needs nothing has to be said here, too.
const OPEN: &[&str] = &[
    "/",
    "/console/{*file}",
    "/sdk.js",
    "/favicon.ico",
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/schemas/{*path}",
    "/problems/{code}",
];

/// A path that the route answers.
fn example(path: &str) -> String {
    let path = path.replace("{*topic}", "a/b").replace("{id}", "1").replace("{*file}", "app.js");
    let path = path
        .replace("{*path}", "job.json")
        .replace("{code}", "forbidden")
        .replace("{name}", "x")
        .replace("{queue}", "x");
    assert!(!path.contains('{'), "say above what {path} is to be tried with");
    path
}

/// Scopes that are not enough, and one that is.
fn scopes(route: &Route, method: &Method) -> (String, String) {
    let all = "sub:+ pub:+ push:+ pull:+ bus:+ jobs:read jobs:write";
    let without = |scope: &str| all.split(' ').filter(|s| *s != scope).collect::<Vec<_>>().join(" ");
    let topic = |verb: &str| {
        (format!("{} {verb}:other {verb}:a/b/c", without(&format!("{verb}:+"))), format!("{verb}:a/+"))
    };
    let reads = method == Method::GET;
    let jobs = "sub:+ pub:+ push:+ pull:+ bus:+";
    match route.need.as_str() {
        "Session" => (String::new(), "sub:x".into()),
        "Topic(Sub)" => topic("sub"),
        "Topic(Pub)" => topic("pub"),
        "Topic(Push)" => topic("push"),
        "Topic(Pull)" => topic("pull"),
        "Topic(Bus)" => topic("bus"),
        "Jobs" if reads => (jobs.into(), "jobs:read".into()),
        "Jobs" => (format!("{jobs} jobs:read"), "jobs:write".into()),
        "Admin" => (format!("{jobs} jobs:read jobs:write"), "admin".into()),
        // without a lease
        "Kin" => (jobs.into(), "jobs:read".into()),
        "Figures" => (jobs.into(), "jobs:read".into()),
        other => panic!("say above which scopes {other} needs"),
    }
}

///
#[tokio::test]
async fn every_route_asks_for_what_it_needs() {
    let guarded = Guarded::start("").await;
    let node = &guarded.node;
    let (mut asked, mut open) = (0, 0);
    let status = async |method: &Method, path: &str, token: Option<&str>| {
        let value = token.map(bearer);
        let headers: Vec<_> = value.iter().map(|v| ("authorization", v.as_str())).collect();
        node.request(method.clone(), path, &headers, "").await
    };
    for route in routes() {
        let path = example(&route.path);
        for method in &route.methods {
            let what = format!("{method} {path}");
            let nothing = status(method, &path, None).await;
            if route.need == "Signed" {
                // no token opens it, and none closes it: the signature is looked at, and here there is no such hook
                for token in [None, Some("a.b.c"), Some(token("admin").as_str())] {
                    status(method, &path, token).await.problem(404, "not_found");
                }
                continue;
            }
            if route.need == "Open" {
                assert!(OPEN.contains(&route.path.as_str()), "{what} is open to everybody");
                assert!(!matches!(nothing.status, 401 | 403), "{what}: {}", nothing.status);
                open += 1;
                continue;
            }
            let rubbish = status(method, &path, Some("a.b.c")).await;
            rubbish.problem(401, "unauthorized");
            assert_eq!(rubbish.header("www-authenticate"), "Bearer realm=\"minium\"", "{what}");
            asked += 1;
            if path.ends_with('/') {
                // without a topic there is no right scope
                nothing.problem(400, "topic_invalid");
                status(method, &path, Some(&token("admin"))).await.problem(400, "topic_invalid");
                continue;
            }
            assert_eq!((nothing.status, &nothing.body), (401, &rubbish.body), "{what}: the same words");
            let (wrong, right) = scopes(&route, method);
            let problem = status(method, &path, Some(&token(&wrong))).await.problem(403, "forbidden");
            assert!(problem["detail"].as_str().unwrap().contains("tester may not "), "{what}: {problem}");
            for scope in [right.as_str(), "admin"] {
                let answer = status(method, &path, Some(&token(scope))).await;
                assert!(!matches!(answer.status, 401 | 403 | 500), "{what} with {scope}: {}", answer.status);
            }
        }
    }
    assert!(asked > 20 && open > 5, "the source was read: {asked} and {open}");
}

/// what is not in the table cannot be a route.
#[test]
fn no_route_is_added_past_the_table() {
    for entry in std::fs::read_dir(checkout().join("server/src/http")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".rs") {
            let text = source(&name);
            let product = text.split("\n#[cfg(test)]\n").next().unwrap();
            let count = product.matches(".route(").count() + product.matches(".route_service(").count();
            assert_eq!(count, usize::from(name == "routes.rs"), "{name} adds a route of its own");
        }
    }
}

/// one answer for all of them.
#[tokio::test]
async fn whatever_is_wrong_with_a_token_the_answer_is_the_same() {
    let guarded = Guarded::start("[auth.anonymous]\nscopes = [\"pub:public\"]").await;
    let node = &guarded.node;
    let mut bodies = Vec::new();
    for (what, bad) in bad_tokens() {
        let answer = node.request(Method::GET, "/api/v1/jobs", &[("authorization", &bearer(&bad))], "").await;
        assert_eq!(answer.status, 401, "{what}");
        bodies.push(answer.body);
        // not even where none is needed
        let answer =
            node.request(Method::POST, "/pub/public", &[("authorization", &bearer(&bad))], "x").await;
        assert_eq!(answer.status, 401, "{what}");
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    for header in ["", "Basic YWRtaW46YWRtaW4=", "Bearer", "Token x"] {
        let answer = node.request(Method::POST, "/pub/public", &[("authorization", header)], "x").await;
        assert_eq!(answer.status, 401, "{header}");
    }
    assert_eq!(node.post("/pub/public", "x").await.status, 200, "A-10: anonymous has its scope");
    assert_eq!(node.post("/pub/other", "x").await.status, 401);
    node.assert_well().await;
}

///
#[tokio::test]
async fn a_token_in_a_url_is_refused_and_told_where_it_belongs() {
    let guarded = Guarded::start("").await;
    let open = crate::support::node::Node::memory().await;
    for node in [&guarded.node, &open] {
        for query in ["token", "access_token"] {
            let answer = node.get(&format!("/api/v1/jobs?{query}={}", token("admin"))).await;
            let problem = answer.problem(400, "invalid_request");
            assert!(problem["detail"].as_str().unwrap().contains("Authorization: Bearer"), "{problem}");
            assert!(!answer.text().contains("eyJ"), "the answer does not repeat it");
        }
    }
}

/// scopes are one text or a list; what others mean by theirs grants nothing.
#[tokio::test]
async fn scopes_are_read_from_both_claims() {
    let guarded = Guarded::start("").await;
    let allowed = async |claims: serde_json::Value| {
        let mut all = serde_json::json!({ "sub": "tester", "exp": super::now() + 600 });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let value = bearer(&super::signed(&all));
        guarded.node.request(Method::POST, "/pub/a/b", &[("authorization", &value)], "x").await.status
    };
    assert_eq!(allowed(serde_json::json!({ "scope": "openid pub:a profile" })).await, 200);
    assert_eq!(allowed(serde_json::json!({ "scopes": ["jobs:read", "pub:a/b"] })).await, 200);
    assert_eq!(allowed(serde_json::json!({ "scope": "sub:a", "scopes": ["pub:a/b/c"] })).await, 403);
    assert_eq!(allowed(serde_json::json!({})).await, 403);
    assert_eq!(allowed(serde_json::json!({ "scope": "pub:a//b pub admin:all" })).await, 403);
}
