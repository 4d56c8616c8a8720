//! Trace contexts that SQL gives: SQL and Rust must mean the same by them, since either reads what the other has kept.

use super::fixture::*;
use super::postgres_only::postgres;
use super::postgres_sql::enqueue_by_sql;
use minium_protocol::TraceContext;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn kept(client: &tokio_postgres::Client, options: &serde_json::Value) -> Option<String> {
    let id = enqueue_by_sql(client, "t", &options.to_string()).await.unwrap();
    client.query_one("select trace from minium.job where id = $1", &[&id]).await.unwrap().get(0)
}

/// Q-12, Q-2.
#[tokio::test]
async fn sql_keeps_the_contexts_that_rust_keeps() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    let many = vec!["a=1"; 33].join(",");
    let full = vec!["a=1"; 32].join(",");
    let long = vec![format!("a={}", "x".repeat(200)); 3].join(",");
    let value = |n: usize| format!("a={}", "x".repeat(n));
    let key = |n: usize| format!("{}=1", "k".repeat(n));
    let states = [
        "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",
        " a=1 ,\tb@c=2, ,1x=y z",
        "a= x",
        "a=~!<>-+",
        "a",
        "a=",
        "=1",
        "A=1",
        "a=1=2",
        "a@=1",
        "@a=1",
        "a@b@c=1",
        "a=\u{7}",
        "a=é",
        "_a=1",
        "a_-*/=1",
        "",
        " ",
        ",",
        "a=1,B=2",
        "a=x,b",
    ];
    let states = states.map(str::to_owned).into_iter();
    let states = states.chain([many, full, long, value(256), value(257), key(256), key(257)]);
    for state in states {
        let options = serde_json::json!({ "traceparent": PARENT, "tracestate": state });
        let by_rust = TraceContext::new(PARENT, Some(&state)).unwrap();
        assert_eq!(kept(&client, &options).await.as_deref(), Some(by_rust.as_text()), "{state:?}");
    }
    let nothing = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
    for parent in [nothing, "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"] {
        let options = serde_json::json!({ "traceparent": parent, "tracestate": "a=1" });
        assert_eq!(kept(&client, &options).await, None, "{parent}");
    }
    assert_eq!(kept(&client, &serde_json::json!({ "tracestate": "a=1" })).await, None);
    assert_eq!(kept(&client, &serde_json::json!({ "traceparent": null })).await, None);
    for (wrong, word) in [
        (r#"{"traceparent":"00-abc"}"#, "traceparent"),
        (r#"{"traceparent":7}"#, "traceparent"),
        (r#"{"traceparent":"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}"#, "traceparent"),
        (r#"{"tracestate":["a=1"]}"#, "tracestate"),
    ] {
        let error = enqueue_by_sql(&client, "t", wrong).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert!(error.message().contains(word) && error.code().code() == "22023", "{wrong}: {error}");
    }
}

/// Q-34.
#[tokio::test]
async fn a_copied_job_has_its_trace() {
    let f = Fixture::postgres().await;
    let trace = TraceContext::new(PARENT, Some("a=1"));
    let traced = with(|o| o.trace = trace.clone());
    postgres(&f).copy(futures::stream::iter([traced, plain()])).await.unwrap();
    let claimed = f.claim(9).await;
    assert_eq!(claimed.iter().map(|job| job.trace.clone()).collect::<Vec<_>>(), [trace, None]);
}
