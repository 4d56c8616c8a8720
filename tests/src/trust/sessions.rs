//! Sockets and event streams with tokens, by Python's and Perl's clients and by hand.

use super::{Guarded, bad_tokens, bearer, now, signed, subprotocol, token};
use crate::support::curl::Stream;
use crate::support::foreign::Foreign;
use crate::support::raw::{End, Raw};
use serde_json::json;

///
#[tokio::test]
async fn a_token_opens_a_socket_from_the_header_and_from_a_subprotocol() {
    let guarded = Guarded::start("").await;
    let node = &guarded.node;
    for client in Foreign::each() {
        let topic = format!("news/{}", client.name);
        let by_header = json!({ "headers": { "Authorization": bearer(&token("sub:news/+")) } });
        let mut subscriber = client.open_with(&node.ws(&format!("/sub/{topic}")), by_header).await;
        let by_protocol =
            json!({ "subprotocols": ["minium.plain", subprotocol(&token(&format!("pub:{topic}")))] });
        let publisher = client.open_with(&node.ws(&format!("/pub/{topic}")), by_protocol).await;
        assert_eq!(publisher.subprotocol.as_deref(), Some("minium.plain"), "the mode alone is chosen");
        publisher.send("hello").await;
        assert_eq!(subscriber.text().await, "hello");

        // the token may come first, and the mode may be another
        let events = json!({ "subprotocols": [subprotocol(&token("sub:news")), "cloudevents.json"] });
        let mut events = client.open_with(&node.ws("/sub/news"), events).await;
        assert_eq!(events.subprotocol.as_deref(), Some("cloudevents.json"));
        publisher.send("again").await;
        assert_eq!(events.json().await["data"], "again");

        for (verb, path) in [("push", "/push/w"), ("pull", "/pull/w"), ("bus", "/bus/w")] {
            let good = json!({ "subprotocols": ["minium.plain", subprotocol(&token(&format!("{verb}:w")))] });
            client.open_with(&node.ws(path), good).await;
            let bad = json!({ "headers": { "Authorization": bearer(&token("sub:+ pub:+")) } });
            assert_eq!(client.refused(&node.ws(path), bad).await.status, 403, "{path}");
        }
    }
}

///
#[tokio::test]
async fn a_page_hears_by_close_code_and_a_program_by_status() {
    let guarded = Guarded::start("").await;
    let node = &guarded.node;
    let own = node.http("");
    for client in Foreign::each() {
        for (what, bad) in bad_tokens() {
            let offered = json!({ "subprotocols": ["minium.plain", subprotocol(&bad)] });
            assert_eq!(client.refused(&node.ws("/sub/a"), offered).await.status, 401, "{what}");
            let page =
                json!({ "subprotocols": ["minium.plain", subprotocol(&bad)], "headers": { "Origin": own } });
            let mut session = client.open_with(&node.ws("/sub/a"), page).await;
            assert_eq!(session.subprotocol.as_deref(), Some("minium.plain"));
            assert_eq!(session.closed().await, 4501, "{what}");
        }
        let lacking = json!({ "subprotocols": ["minium.plain", subprotocol(&token("sub:b"))], "headers": { "Origin": own } });
        assert_eq!(client.open_with(&node.ws("/sub/a"), lacking).await.closed().await, 4503);
        let nothing = json!({ "subprotocols": ["minium.plain"], "headers": { "Origin": own } });
        assert_eq!(client.open_with(&node.ws("/sub/a"), nothing).await.closed().await, 4501);
        // a page that offers nothing of ours could not be told
        let plain = json!({ "headers": { "Origin": own } });
        assert_eq!(client.refused(&node.ws("/sub/a"), plain).await.status, 401);
        // a foreign page is nobody's, whatever it brings
        let foreign = json!({
            "subprotocols": ["minium.plain", subprotocol(&token("admin"))],
            "headers": { "Origin": "http://evil.example" },
        });
        let refusal = client.refused(&node.ws("/sub/a"), foreign).await;
        assert_eq!((refusal.status, refusal.body.as_str()), (401, "Origin check failed"));
    }
}

/// to the byte.
#[tokio::test]
async fn the_101_names_the_mode_and_never_the_token() {
    let guarded = Guarded::start("").await;
    let node = &guarded.node;
    let good = subprotocol(&token("sub:a"));
    let mut raw = Raw::connect(node).await;
    let more = format!("Sec-WebSocket-Protocol: {good}, minium.plain\r\n");
    raw.write(Raw::handshake(node, "/sub/a", &more).as_bytes()).await;
    let head = raw.head().await.unwrap();
    assert_eq!((head.status, head.headers["sec-websocket-protocol"].as_str()), (101, "minium.plain"));
    assert!(!format!("{head:?}").contains("bearer"));

    // a JWT may stand there as it is
    let mut raw = Raw::connect(node).await;
    let more = format!("Sec-WebSocket-Protocol: minium.plain,minium.bearer.{}\r\n", token("sub:a"));
    raw.write(Raw::handshake(node, "/sub/a", &more).as_bytes()).await;
    assert_eq!(raw.head().await.unwrap().status, 101);

    for (more, status) in [
        // beside no mode
        (format!("Sec-WebSocket-Protocol: {good}\r\n"), 400),
        // twice
        (format!("Sec-WebSocket-Protocol: minium.plain, {good}\r\nAuthorization: Bearer x\r\n"), 401),
        (format!("Sec-WebSocket-Protocol: minium.plain, {good}, {good}\r\n"), 401),
        ("Sec-WebSocket-Protocol: minium.plain, minium.bearer.!!\r\n".to_owned(), 401),
        // somebody else's headers do not count
        (format!("Cookie: token={0}; access_token={0}\r\n", token("admin")), 401),
    ] {
        let mut raw = Raw::connect(node).await;
        raw.write(Raw::handshake(node, "/sub/a", &more).as_bytes()).await;
        assert_eq!(raw.head().await.unwrap().status, status, "{more}");
    }

    // what is closed at once is a whole WebSocket, and leaves nothing behind
    let mut raw = Raw::connect(node).await;
    let more = format!("Origin: {}\r\nSec-WebSocket-Protocol: minium.plain\r\n", node.http(""));
    raw.write(Raw::handshake(node, "/sub/a", &more).as_bytes()).await;
    let head = raw.head().await.unwrap();
    assert_eq!((head.status, head.headers["sec-websocket-protocol"].as_str()), (101, "minium.plain"));
    assert_eq!(raw.end().await, (End::Code(4501), 0));
    assert_eq!(raw.frame().await, None, "then the connection ends");
}

///
#[tokio::test]
async fn a_session_ends_with_its_token() {
    let guarded = Guarded::start("").await;
    let node = &guarded.node;
    let lasting = bearer(&token("sub:a pub:a"));
    let brief = bearer(&signed(&json!({ "sub": "tester", "exp": now() + 5, "scope": "sub:a" })));
    let client = Foreign::python();
    let with =
        |value: &str, mode: &str| json!({ "subprotocols": [mode], "headers": { "Authorization": value } });
    let mut plain = client.open_with(&node.ws("/sub/a"), with(&brief, "minium.plain")).await;
    let mut events = client.open_with(&node.ws("/sub/a"), with(&brief, "cloudevents.json")).await;
    let mut talk = client.open_with(&node.ws("/ws"), with(&brief, "minium.v1")).await;
    let mut stream = Stream::open(&node.http("/sub/a"), &[("authorization", &brief)]).await;
    let mut other = Stream::open(&node.http("/sub/a"), &[("authorization", &lasting)]).await;
    node.request(reqwest::Method::POST, "/pub/a", &[("authorization", &lasting)], "hello").await;
    assert_eq!((plain.text().await, stream.event().await.data), ("hello".into(), "hello".into()));
    assert_eq!(
        (events.json().await["data"].clone(), other.event().await.data),
        ("hello".into(), "hello".into())
    );

    assert_eq!((plain.closed().await, events.closed().await, talk.closed().await), (4501, 4501, 4501));
    let end = stream.event().await;
    assert_eq!(end.name.as_deref(), Some("close"));
    let end: serde_json::Value = serde_json::from_str(&end.data).unwrap();
    assert_eq!(end, json!({ "code": 4501, "reason": "the token has expired" }));
    assert_eq!(stream.next().await, None, "the answer is whole");
    assert_eq!(Stream::open(&node.http("/sub/a"), &[("authorization", &brief)]).await.status, 401);
    node.request(reqwest::Method::POST, "/pub/a", &[("authorization", &lasting)], "still here").await;
    assert_eq!(other.event().await.data, "still here");
}

/// on one socket for many topics each word is judged by itself.
#[tokio::test]
async fn minium_v1_asks_for_a_scope_at_each_word() {
    let guarded = Guarded::start("").await;
    let node = &guarded.node;
    for client in Foreign::each() {
        let offered = ["minium.v1".to_owned(), subprotocol(&token("sub:a pub:a pull:a"))];
        let mut talk = client.open_with(&node.ws("/ws"), json!({ "subprotocols": offered })).await;
        assert_eq!(talk.subprotocol.as_deref(), Some("minium.v1"));
        for (word, allowed) in [
            (json!({ "op": "sub", "topic": "a/b", "ref": "1" }), true),
            (json!({ "op": "sub", "topic": "b", "ref": "2" }), false),
            (json!({ "op": "sub", "topic": "+", "ref": "3" }), false),
            (json!({ "op": "pub", "topic": "a/c", "data": "x", "ref": "4" }), true),
            (json!({ "op": "pub", "topic": "b", "data": "x", "ref": "5" }), false),
            (json!({ "op": "push", "topic": "a", "data": "x", "ref": "6" }), false),
            (json!({ "op": "bus", "topic": "a", "ref": "7" }), false),
            (json!({ "op": "pull", "topic": "b", "ref": "8" }), false),
            (json!({ "op": "pull", "topic": "a", "tasks": ["b"], "ref": "9" }), false),
        ] {
            talk.send(&word.to_string()).await;
            let answer = talk.json().await;
            assert_eq!(answer["ref"], word["ref"], "{word}: {answer}");
            let code = answer["problem"]["code"].as_str();
            assert_eq!(
                code,
                if allowed { None } else { Some("forbidden") },
                "{}: {word}: {answer}",
                client.name
            );
        }
        // the first word that a path implies is judged before the upgrade
        let offered = ["minium.v1".to_owned(), subprotocol(&token("pub:a"))];
        assert_eq!(client.refused(&node.ws("/sub/a"), json!({ "subprotocols": offered })).await.status, 403);
        assert_eq!(
            client.refused(&node.ws("/ws"), json!({ "subprotocols": ["minium.v1"] })).await.status,
            401
        );
    }
}

/// a filter is allowed whole or not at all.
#[tokio::test]
async fn a_filter_hears_nothing_that_its_scope_does_not_cover() {
    let guarded = Guarded::start("").await;
    let node = &guarded.node;
    let status = async |scope: &str, path: &str| {
        let value = bearer(&token(scope));
        Stream::open(&node.http(path), &[("authorization", &value)]).await.status
    };
    for (scope, path, expected) in [
        ("sub:livesys/+", "/sub/livesys/7", 200),
        ("sub:livesys/+", "/sub/livesys/7/power", 200),
        ("sub:livesys/+", "/sub/livesys/+", 200),
        ("sub:livesys/+", "/sub/livesys", 403),
        ("sub:livesys/7", "/sub/livesys/+", 403),
        ("sub:livesys/7", "/sub/livesys/77", 403),
        ("sub:livesys/7", "/sub/+/7", 403),
        ("sub:livesys/7", "/sub/livesys%2F7", 400),
        ("sub:task/import", "/sub/task/import/42", 200),
        ("sub:task/import", "/sub/task", 403),
        ("sub:task", "/sub/+", 403),
        ("sub:+", "/sub/+", 200),
    ] {
        assert_eq!(status(scope, path).await, expected, "{scope} on {path}");
    }
}
