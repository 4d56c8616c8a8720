//! What the support itself promises: databases of one's own, clusters that survive being killed, foreign clients that
//! report what they really got.

use crate::support::foreign::{Foreign, Received, Refusal};
use crate::support::postgres::{Cluster, ClusterOptions, Database, connect};
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    let (one, other) = (Database::create().await, Database::create().await);
    one.connect().await.batch_execute("create table t (n int)").await.unwrap();
    assert!(other.connect().await.batch_execute("select * from t").await.is_err());
    let url = one.url().to_owned();
    drop(one);
    assert!(connect(&url).await.is_err(), "a database is dropped with its value");
}

#[tokio::test]
async fn a_private_cluster_keeps_what_was_committed_when_it_is_killed() {
    let mut cluster = Cluster::start(ClusterOptions { fsync: true, ..ClusterOptions::default() }).await;
    let url = cluster.create_database("kept").await;
    connect(&url).await.unwrap().batch_execute("create table t as select 42 as n").await.unwrap();
    for end in [Cluster::kill, Cluster::stop_immediately, Cluster::stop] {
        end(&mut cluster);
        assert!(connect(&url).await.is_err(), "it is down");
        cluster.restart().await;
        let row = connect(&url).await.unwrap().query_one("select n from t", &[]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 42);
    }
}

/// Answers each message with itself, and chooses the first subprotocol that is offered.
async fn echo(listener: TcpListener) {
    while let Ok((socket, _)) = listener.accept().await {
        #[expect(clippy::result_large_err, reason = "tungstenite's callback wants this type")]
        let choose = |request: &Request, mut response: Response| {
            if let Some(offered) = request.headers().get("sec-websocket-protocol") {
                let first = offered.to_str().unwrap().split(',').next().unwrap().parse().unwrap();
                response.headers_mut().insert("sec-websocket-protocol", first);
            }
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(socket, choose).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn foreign_clients_report_what_they_got() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(echo(listener));
    for client in Foreign::each() {
        let mut session = client.open_with(&url, json!({ "subprotocols": ["a.b", "c"] })).await;
        assert_eq!(session.subprotocol.as_deref(), Some("a.b"), "{}", client.name);
        session.send("héllo \u{1F600}").await;
        assert_eq!(session.text().await, "héllo \u{1F600}", "{}", client.name);
        session.send_binary(&[0, 255, 254, 65]).await;
        assert_eq!(session.receive().await, Received::Binary(vec![0, 255, 254, 65]), "{}", client.name);
        session.send("").await;
        assert_eq!(session.text().await, "", "{}", client.name);
        session.send_fragments(&["al", "lé", "s"]).await;
        assert_eq!(session.text().await, "allés", "{}", client.name);
        session.ping().await;
        assert_eq!(session.close(4321).await, 4321, "{}", client.name);
    }
    server.abort();
}

#[tokio::test]
async fn foreign_clients_report_how_they_were_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 4096];
            assert_ne!(socket.read(&mut request).await.unwrap(), 0);
            let answer = b"HTTP/1.1 418 No\r\ncontent-length: 4\r\nconnection: close\r\n\r\nno\xc3\xa9";
            socket.write_all(answer).await.unwrap();
        }
    });
    for client in Foreign::each() {
        let refusal = client.refused(&url, json!({})).await;
        assert_eq!(refusal, Refusal { status: 418, body: "noé".into() }, "{}", client.name);
    }
    server.abort();
}
