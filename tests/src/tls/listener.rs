//! TLS on the node's listener.

use super::{Authority, text};
use crate::support::foreign::Foreign;
use crate::support::node::{Node, Options};
use crate::support::wait;
use rustix::process::{Signal, kill_process};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(super) const HOSTS: &[&str] = &["localhost", "127.0.0.1"];

/// `[server.tls]` with the certificate `node`, and more of the same section.
pub(super) fn config(authority: &Authority, more: &str) -> String {
    let (certificate, key) = (text(&authority.path("node.pem")), text(&authority.path("node.key")));
    format!("[server.tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}\n{more}")
}

/// A node in memory with that certificate, which curl reaches with these arguments.
pub(crate) async fn start(authority: &Authority, more: &str, curl: &[String]) -> Node {
    start_on(Options::memory(), authority, more, curl).await
}

/// The same on another database.
pub(crate) async fn start_on(options: Options, authority: &Authority, more: &str, curl: &[String]) -> Node {
    authority.write("node", HOSTS);
    let mut args = vec!["--cacert".to_owned(), text(&authority.path("ca.pem"))];
    args.extend_from_slice(curl);
    let options = Options { https: Some(args), ..options.config(&config(authority, more)) };
    Node::start(options).await
}

/// Status and body, or why there is none.
async fn curl(authority: &Authority, url: &str, args: &[&str]) -> Result<(String, String), String> {
    let mut curl = tokio::process::Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--max-time",
        "60",
        "--write-out",
        "\n%{http_version} %{http_code}",
    ]);
    curl.arg("--cacert").arg(authority.path("ca.pem")).args(args).arg(url);
    let output = wait::within("curl", curl.output()).await.unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    Ok((status.to_owned(), body.to_owned()))
}

fn connector(authority: &Authority) -> TlsConnector {
    connector_for(authority, &[])
}

/// A connector that offers these protocols.
fn connector_for(authority: &Authority, protocols: &[&[u8]]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let ca = rustls::pki_types::CertificateDer::from_pem_file(authority.path("ca.pem")).unwrap();
    roots.add(ca).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn connect(node: &Node, connector: &TlsConnector) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(node.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    wait::within("a TLS handshake", connector.connect(name, tcp)).await.unwrap()
}

/// H-9: HTTP/1.1 and, where it is offered, HTTP/2; what is said of WebSockets there; the URL in events.
#[tokio::test]
async fn curl_speaks_http_1_1_and_http_2() {
    let authority = Authority::new("ours");
    let node = start(&authority, "", &[]).await;
    let job = r#"{"task":"nothing","args":[]}"#;
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let ask = async |path: &str, args: &[&str]| {
            let args: Vec<&str> = [flag].into_iter().chain(args.iter().copied()).collect();
            curl(&authority, &node.http(path), &args).await.unwrap()
        };
        assert_eq!(ask("/readyz", &[]).await.0, format!("{version} 200"));
        let (status, body) = ask("/api/v1/jobs", &["--json", job]).await;
        assert!(status.starts_with(version) && status.ends_with("201"), "{status} {body}");
        let id = serde_json::from_str::<Value>(&body).unwrap()["id"].to_string();
        let schema = node.http("/schemas/job.json");
        wait::until("an event with its schema", async || {
            let (_, body) = ask(&format!("/api/v1/jobs/{id}/events"), &[]).await;
            body.contains(&schema).then_some(())
        })
        .await;
        // more than one window of a stream
        let long = authority.path("long");
        std::fs::write(&long, "x".repeat(200_000)).unwrap();
        assert_eq!(
            ask("/pub/long", &["--data-binary", &format!("@{}", text(&long))]).await.0,
            format!("{version} 200")
        );
        let (status, body) = ask("/sub/news", &[]).await;
        assert_eq!(status, format!("{version} 426"), "{body}");
        assert_eq!(body.contains("HTTP/1.1"), version == "2", "{body}");
        // an event stream over either
        let url = node.http("/sub/task/nothing?after=earliest");
        let mut stream = tokio::process::Command::new("curl")
            .args(["--silent", "--no-buffer", flag, "--header", "Accept: text/event-stream", "--cacert"])
            .arg(authority.path("ca.pem"))
            .arg(url)
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut begun = String::new();
        let stdout = stream.stdout.as_mut().unwrap();
        while !begun.contains("\"enqueued\"") && !begun.contains("task.enqueue") {
            let mut some = [0; 4096];
            let n = wait::within("an event", stdout.read(&mut some)).await.unwrap();
            assert!(n > 0, "the stream ended: {begun}");
            begun.push_str(&String::from_utf8_lossy(&some[..n]));
        }
    }
    node.end(Signal::TERM).await;
}

/// H-9: a WebSocket over TLS is the same WebSocket.
#[tokio::test]
async fn python_speaks_websocket_over_tls() {
    let authority = Authority::new("ours");
    let node = start(&authority, "", &[]).await;
    let python = Foreign::python_with(&authority.path("ca.pem"));
    let mut subscriber = python.open(&node.ws("/sub/news")).await;
    let mut publisher = python.open(&node.ws("/pub/news/local")).await;
    for size in [0, 1, 1_000, 200_000] {
        let text = "n".repeat(size);
        publisher.send(&text).await;
        assert_eq!(subscriber.text().await, text);
    }
    subscriber.close(1000).await;
    publisher.close(1000).await;
    let stranger = Foreign::python();
    let refusal = stranger.refused(&node.ws("/sub/news"), serde_json::json!({})).await;
    assert!(refusal.body.contains("CERTIFICATE_VERIFY_FAILED"), "{refusal:?}");
}

/// H-10: SIGHUP brings the new certificate to new connections; a bad one changes nothing; sessions go on.
#[tokio::test]
async fn sighup_reads_the_certificate_again_while_sessions_go_on() {
    let authority = Authority::new("ours");
    let node = start(&authority, "", &[]).await;
    let python = Foreign::python_with(&authority.path("ca.pem"));
    let mut subscriber = python.open(&node.ws("/sub/news")).await;
    let publisher = python.open(&node.ws("/pub/news")).await;
    let connector = connector(&authority);
    let shown = async || {
        let tls = connect(&node, &connector).await;
        tls.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = shown().await;
    authority.write("node", HOSTS);
    assert_eq!(shown().await, first, "nobody has asked for it yet");
    kill_process(node.pid(), Signal::HUP).unwrap();
    let second =
        wait::until("the new certificate", async || Some(shown().await).filter(|c| *c != first)).await;
    std::fs::write(authority.path("node.pem"), "rubbish").unwrap();
    kill_process(node.pid(), Signal::HUP).unwrap();
    wait::until("the word about the bad file", async || node.log().contains("stay in use").then_some(()))
        .await;
    assert_eq!(shown().await, second);
    publisher.send("still here").await;
    assert_eq!(subscriber.text().await, "still here");
}

/// H-11, A-10: certificates of the right authority are let in, others are not; what they may do goes by their name.
#[tokio::test]
async fn client_certificates_are_checked_and_grant_by_name() {
    let (authority, other) = (Authority::new("ours"), Authority::new("other"));
    authority.write("image-7", &[]);
    other.write("image-7", &[]);
    let flags = |a: &Authority| {
        let (certificate, key) = (text(&a.path("image-7.pem")), text(&a.path("image-7.key")));
        ["--cert".to_owned(), certificate, "--key".to_owned(), key]
    };
    let (good, bad) = (flags(&authority), flags(&other));
    let [good_args, bad_args] = [&good, &bad].map(|f| f.iter().map(String::as_str).collect::<Vec<_>>());
    let ca = text(&authority.path("ca.pem"));
    let grants = "[auth.certificates.\"image-7\"]\nscopes = [\"pub:rack/7\"]\n";
    for (how, anonymous) in [("required", false), ("optional", true)] {
        let more = format!("client_ca_file = {ca:?}\nclient_auth = {how:?}\n{grants}");
        let node = start(&authority, &more, &good).await;
        let post = async |topic: &str, args: &[&str]| {
            let args: Vec<&str> = ["--data", "x"].into_iter().chain(args.iter().copied()).collect();
            curl(&authority, &node.http(&format!("/pub/{topic}")), &args).await
        };
        for version in ["--http1.1", "--http2"] {
            let args: Vec<&str> = [version].into_iter().chain(good_args.iter().copied()).collect();
            for (topic, status) in [("rack/7", " 200"), ("rack/8", " 403")] {
                let (heard, body) = post(topic, &args).await.unwrap();
                assert!(heard.ends_with(status), "{how} {version} {topic}: {heard} {body}");
            }
        }
        assert!(post("rack/7", &bad_args).await.is_err(), "{how}: of another authority");
        match post("rack/7", &[]).await {
            Ok((status, _)) => assert!(anonymous && status.ends_with(" 401"), "{how}: {status}"),
            Err(why) => assert!(!anonymous, "{how}: {why}"),
        }
    }
}

/// H-9: many handshakes at once, each served.
#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_handshakes_at_once() {
    let authority = Authority::new("ours");
    let node = Arc::new(start(&authority, "", &[]).await);
    let connector = connector(&authority);
    let mut clients = JoinSet::new();
    for _ in 0..300 {
        let (node, connector) = (node.clone(), connector.clone());
        clients.spawn(async move {
            let mut tls = connect(&node, &connector).await;
            tls.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut answer = String::new();
            // without close_notify this would fail
            wait::within("an answer", tls.read_to_string(&mut answer)).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
}

/// L-2: whoever agrees on HTTP/2 and then says nothing, or breaks off, is ended, and holds nobody's place.
#[tokio::test]
async fn http_2_that_never_speaks_is_ended() {
    let authority = Authority::new("ours");
    let more = "[server.limits]\nhandshake_timeout = \"500ms\"\nconnections = 3\n";
    let node = start(&authority, more, &[]).await;
    let connector = connector_for(&authority, &[b"h2"]);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut silent = Vec::new();
    for said in [b"".to_vec(), preface[..10].to_vec(), [&preface[..], &settings].concat()] {
        let mut tls = connect(&node, &connector).await;
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        tls.write_all(&said).await.unwrap();
        tls.flush().await.unwrap();
        silent.push(tls);
    }
    // all places are taken: this one waits for them
    let healthz = curl(&authority, &node.http("/healthz"), &[]).await.unwrap();
    assert!(healthz.0.ends_with(" 200"), "{healthz:?}");
    for mut tls in silent {
        let mut rest = Vec::new();
        // how it ends matters less than that it does
        drop(wait::within("the end", tls.read_to_end(&mut rest)).await);
    }
}

/// H-9: what is no TLS is told so, if it is HTTP, and ended.
#[tokio::test]
async fn plain_http_is_told_to_speak_tls_and_anything_else_is_ended() {
    let authority = Authority::new("ours");
    let node = start(&authority, "", &[]).await;
    for (said, is_http) in [
        (&b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], true),
        (b"\x00\x01\x02 what is this", false),
        (b"\x16\x03\x01\x00\x05rubbish and more of it", false),
    ] {
        let mut tcp = TcpStream::connect(node.address()).await.unwrap();
        tcp.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        let end = wait::within("the end", tcp.read_to_end(&mut answer)).await;
        let words = String::from_utf8_lossy(&answer);
        assert_eq!(words.starts_with("HTTP/1.1 400 "), is_http, "{words}");
        assert_eq!(words.contains("https://"), is_http, "{words}");
        // orderly where there is something to read; an alert may be cut off by what nobody reads any more
        assert!(end.is_ok() || !is_http, "{end:?}");
    }
    assert!(curl(&authority, &node.http("/readyz"), &[]).await.unwrap().0.ends_with(" 200"));
}

/// H-9: a configuration that cannot work is refused at once, with its reason.
#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_refused_at_the_start() {
    let authority = Authority::new("ours");
    authority.write("node", HOSTS);
    std::fs::write(authority.path("node.key"), "rubbish").unwrap();
    let file = authority.path("minium.toml");
    std::fs::write(&file, config(&authority, "")).unwrap();
    let mut command = tokio::process::Command::new(crate::support::node::binary());
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--database", "sqlite::memory:", "--config"])
        .arg(&file);
    let output = wait::within("minium", command.output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("node.key"), "{said}");
}
