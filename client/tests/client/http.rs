//! The HTTP half, against scripted answers.

use crate::script::{Server, answer};
use minium_client::{Client, ClientError, JobQuery};
use minium_protocol::{EnqueueRequest, ErrorCode, Phase, Problem, State};
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

fn snapshot(state: &str) -> String {
    format!(
        r#"{{"id":42,"task":"import","queue":"default","state":"{state}","priority":0,"args":["x"],"notes":{{}},
        "attempt":1,"attempts":1,"retries":0,"parents":[],"lax":false,"key":null,"schedule":null,"worker":null,
        "result":{{"rows":10}},"error":null,"progress":null,"origin":null,"created":"2026-11-22T02:00:00.000001Z",
        "delayed":"2026-11-22T02:00:00.000001Z","expires":null,"started":null,"finished":null,"retried":null,
        "phase":"blocked","children":[43],"added_later":true}}"#
    )
}

async fn answering(status: &'static str, body: String) -> Server {
    Server::start(move |_, incoming| {
        let whole = answer(status, "application/json", &body);
        async move { drop(incoming.http(&[&whole]).await) }
    })
    .await
}

#[tokio::test]
async fn nobody_there_is_told_from_a_refusal() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::new(&format!("http://{free}/"), None).unwrap();
    let error = client.get(1).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Connect { url, .. } if *url == format!("http://{free}")),
        "{error}"
    );
    assert_eq!(error.exit_code(), 5);
    let problem = serde_json::to_string(&Problem::new(ErrorCode::NotFound, "there is no job 1")).unwrap();
    let error = answering("404 Not Found", problem).await.client().get(1).await.unwrap_err();
    assert_eq!((error.exit_code(), error.to_string().as_str()), (3, "not_found: there is no job 1"));
}

#[tokio::test]
async fn a_job_is_read_whole_and_kept_as_it_came() {
    let server = answering("200 OK", snapshot("inactive")).await;
    let info = server.client().get(42).await.unwrap();
    assert_eq!((info.job.id, info.job.state, info.phase), (42, State::Inactive, Some(Phase::Blocked)));
    assert_eq!((info.children.as_slice(), info.job.args.get()), ([43].as_slice(), r#"["x"]"#));
    assert_eq!(info.raw.get(), snapshot("inactive"));
    assert_eq!(server.asked(), ["/api/v1/jobs/42"]);
}

#[tokio::test]
async fn enqueueing_tells_whether_the_job_was_there() {
    let args = RawValue::from_string("[]".into()).unwrap();
    let request = EnqueueRequest::new("import", args);
    let fresh =
        answering("201 Created", snapshot("inactive")).await.client().enqueue(&request).await.unwrap();
    assert_eq!((fresh.id, fresh.existing), (42, false));
    let server = answering("200 OK", r#"{"id":7,"existing":true}"#.into()).await;
    let there = server.client().enqueue(&request).await.unwrap();
    assert_eq!((there.id, there.existing), (7, true));
}

#[tokio::test]
async fn lists_ask_for_what_was_asked() {
    let server = answering("200 OK", format!(r#"{{"jobs":[{}],"next":42}}"#, snapshot("failed"))).await;
    let query = JobQuery {
        states: vec![State::Failed, State::Cancelled],
        tasks: vec!["livesys/7".into()],
        notes: vec!["rack=3".into()],
        args: vec!["/0/serial=A,B".into()],
        text: Some("disk lost".into()),
        origin: Some(5),
        before: Some(99),
        limit: Some(1),
        ..JobQuery::default()
    };
    let page = server.client().list(&query).await.unwrap();
    assert_eq!((page.jobs.len(), page.jobs[0].job.state, page.next), (1, State::Failed, Some(42)));
    assert_eq!(
        server.asked(),
        [
            "/api/v1/jobs?state=failed&state=cancelled&task=livesys%2F7&note=rack%3D3&arg=%2F0%2Fserial%3DA%2CB&q=disk+lost&origin=5&before=99&limit=1"
        ]
    );
}

#[tokio::test]
async fn a_wait_outlives_a_restart_of_the_server_but_not_its_limit() {
    let timeout = serde_json::to_string(&Problem::new(ErrorCode::Timeout, "not yet")).unwrap();
    let server = Server::start(move |n, mut incoming| {
        let timeout = answer("408 Request Timeout", "application/problem+json", &timeout);
        async move {
            match n {
                0 => drop(incoming.http(&[&timeout]).await),
                1 => incoming.socket.shutdown().await.unwrap(),
                _ => {
                    drop(incoming.http(&[&answer("200 OK", "application/json", &snapshot("finished"))]).await)
                }
            }
        }
    })
    .await;
    let info = server.client().wait(42, None).await.unwrap();
    assert_eq!((info.job.state, info.job.result.unwrap().get()), (State::Finished, r#"{"rows":10}"#));
    assert_eq!(server.asked().len(), 2);
    let late = answering("200 OK", snapshot("active")).await;
    let error = late.client().wait(42, Some(Duration::ZERO)).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }) && error.exit_code() == 8, "{error}");
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let server = Server::start(|_, mut incoming| async move {
        incoming.head().await;
        incoming.socket.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await.ok();
        while incoming.socket.write_all(&[b'x'; 65_536]).await.is_ok() {}
    })
    .await;
    let error = server.client().get(1).await.unwrap_err();
    assert!(matches!(&error, ClientError::Answer { reason, .. } if reason.contains("longer")), "{error}");
}

#[tokio::test]
async fn messages_are_posted_with_their_kind() {
    let (heads, mut seen) = tokio::sync::mpsc::channel(8);
    let server = Server::start(move |_, incoming| {
        let heads = heads.clone();
        async move { heads.send(incoming.http(&[&answer("200 OK", "text/plain", "")]).await).await.unwrap() }
    })
    .await;
    let client = Client::new(&server.url, Some("secret".into())).unwrap();
    let topic = "a/b".parse().unwrap();
    client.publish(&topic, "text").await.unwrap();
    client.push(&topic, bytes::Bytes::from_static(&[0xff])).await.unwrap();
    client.send(&topic, "text").await.unwrap();
    let starts = ["POST /pub/a/b HTTP/1.1", "POST /push/a/b HTTP/1.1", "POST /bus/a/b HTTP/1.1"];
    let kinds = ["text/plain; charset=utf-8", "application/octet-stream", "text/plain; charset=utf-8"];
    for (start, kind) in starts.into_iter().zip(kinds) {
        let head = seen.recv().await.unwrap();
        assert!(head.starts_with(start) && head.contains(kind), "{head}");
        assert!(head.contains("authorization: Bearer secret"), "{head}");
    }
    assert!(!format!("{client:?}").contains("secret"));
}
