//! The HTTP API as its document has it: schemathesis makes requests out of `/openapi.json`, good ones and bad ones, and holds the
//! answers against it.

use crate::support::node::{Node, Options};
use crate::support::on_both;
use reqwest::Method;
use serde_json::json;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

on_both! {
    /// H-13: nothing that is sent makes the node fail, and nothing that it answers is missing in the document.
    the_api_is_as_its_document_has_it;
}

/// H-13: the document is 3.1, and is not sent again to whoever has it.
#[tokio::test]
async fn the_document_is_served() {
    let node = Node::memory().await;
    let answer = node.get("/openapi.json").await;
    let document = answer.expect(200);
    assert_eq!((answer.header("content-type"), &document["openapi"]), ("application/json", &json!("3.1.0")));
    let operation = &document["paths"]["/api/v1/jobs"]["get"];
    assert_eq!((&operation["operationId"], &operation["tags"][0]), (&json!("listJobs"), &json!("jobs")));
    assert_eq!(
        document["components"]["schemas"]["Job"]["properties"]["id"]["minimum"], 1,
        "schemas/job.json"
    );
    let tag = answer.header("etag");
    let again = node.request(Method::GET, "/openapi.json", &[("if-none-match", tag)], "").await;
    assert_eq!(again.status, 304);
}

/// Operations that are left out: one waits for minutes for a job that never ends, and one is a stream where it is asked for as
/// such.
const LEFT_OUT: &str = "/wait$|^/sub/";

/// What is too long for a head is refused by HTTP itself, in the middle of it; and so that nothing is, it may be long here.
const CONFIG: &str = "[server.limits]\nheader_bytes = \"1MiB\"";

/// Thousands of requests. It takes a minute where it is alone; a machine under load is no finding.
const DEADLINE: Duration = Duration::from_secs(420);

/// What is held against the document. That good requests are taken is not: whether a parent, a name or a state is there is
/// nothing that it could say.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,use_after_free,unsupported_method";

async fn the_api_is_as_its_document_has_it(options: Options) {
    let node = Node::start(options.config(CONFIG)).await;
    // so that some of what is asked for is there
    for n in 1..=20 {
        node.enqueue(&json!({ "task": "t", "args": [n], "notes": { "n": n } })).await;
    }
    let python = std::env::var_os("MINIUM_TEST_PYTHON").expect("run ./scripts/test");
    let mut command = tokio::process::Command::new(Path::new(&python).with_file_name("schemathesis"));
    command.args(["run", &node.http("/openapi.json"), "--checks", CHECKS]);
    command.args(["--exclude-path-regex", LEFT_OUT, "--max-examples", "5", "--no-color"]);
    // the same requests each time
    command.args(["--generation-deterministic", "--request-timeout", "60", "--workers", "1"]);
    command.args(["--phases", "coverage,fuzzing"]);
    command.args(["--suppress-health-check", "all"]);
    command.current_dir(node.dir()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output()).await.expect("schemathesis ends").unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("Tested: "), "{told}");
    node.assert_well().await;
}
