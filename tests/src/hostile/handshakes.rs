//! Handshakes that take their time or never end, and what comes right behind one.

use super::{Ward, attack};
use crate::support::node::Options;
use crate::support::raw::{End, Raw};
use futures::future::join_all;
use std::time::Duration;

/// Short, so that those who dawdle are met with soon.
const LIMITS: &str = "[server.limits]\nhandshake_timeout = \"1s\"\n";

/// Between the bytes of one who trickles: a whole head would take several times the time that it has.
const BETWEEN_BYTES: Duration = Duration::from_millis(25);

/// L-2: a head that comes byte by byte is cut when its time is over, and nobody else notices.
#[tokio::test]
async fn heads_that_trickle_are_cut_while_others_are_served() {
    const ATTACKERS: usize = 200;
    let mut ward = Ward::start(Options::memory().config(LIMITS)).await;
    let head = Raw::handshake(&ward.node, "/sub/slow", "");
    let node = &ward.node;
    let attackers = join_all((0..ATTACKERS).map(async |_| {
        let mut raw = Raw::connect(node).await;
        let written = raw.trickle(head.as_bytes(), BETWEEN_BYTES).await;
        (written, raw.head().await.map_or(0, |h| h.status))
    }));
    let others = async {
        for _ in 0..20 {
            assert_eq!(node.post("/pub/other", "x").await.status, 200, "others are served meanwhile");
        }
    };
    let (results, ()) = tokio::join!(attackers, others);
    for (written, status) in results {
        assert!(written < head.len(), "all of it was taken, byte by byte");
        assert!([0, 408].contains(&status), "{status}");
    }
    // 40 KiB were sent in all: what would grow is what each byte costs beyond itself
    ward.is_unharmed(24 * 1024).await;
}

/// L-2: whoever occupies all connections without a word loses them, and those who wait in the listen queue come in.
#[tokio::test]
async fn silent_connections_do_not_keep_the_room() {
    const ROOM: usize = 16;
    let config = format!("{LIMITS}connections = {ROOM}\n");
    let mut ward = Ward::start(Options::memory().config(&config)).await;
    for _ in 0..3 {
        let mut silent = Vec::new();
        for _ in 0..2 * ROOM {
            silent.push(Raw::connect(&ward.node).await);
        }
        ward.serves_others().await;
        for mut raw in silent {
            assert!(raw.head().await.is_none_or(|h| h.status == 408));
        }
    }
    ward.is_unharmed(16 * 1024).await;
}

/// H-1, L-20: a body that comes byte by byte is 408 `timeout` and reaches nobody.
#[tokio::test]
async fn bodies_that_trickle_are_cut_and_reach_nobody() {
    const ATTACKERS: usize = 200;
    let mut ward = Ward::start(Options::memory().config(LIMITS)).await;
    let head = format!(
        "POST /pub/witness HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000\r\n\r\n",
        ward.node.address()
    );
    let node = &ward.node;
    let attackers = join_all((0..ATTACKERS).map(async |_| {
        let mut raw = Raw::connect(node).await;
        raw.write(head.as_bytes()).await;
        let written = raw.trickle(&[b'x'; 1_000], BETWEEN_BYTES).await;
        (written, raw.head().await.map(|h| (h.status, h.body)))
    }));
    for (written, answer) in attackers.await {
        assert!(written < 1_000, "all of it was taken, byte by byte");
        let (status, body) = answer.expect("it is told why");
        assert!(status == 408 && body.contains("\"code\":\"timeout\""), "{status} {body}");
    }
    let timeouts =
        ward.node.metric("minium_http_requests_total{route=\"/pub/{*topic}\",status=\"408\"}").await;
    assert_eq!(timeouts, ATTACKERS as f64, "each is counted");
    ward.is_unharmed(24 * 1024).await;
}

/// L-2: headers without end are refused at the bound, not collected.
#[tokio::test]
async fn headers_without_end_are_refused() {
    let mut ward = Ward::start(Options::memory()).await;
    let head = format!("GET /sub/x HTTP/1.1\r\nHost: {}\r\n", ward.node.address());
    // 1 MiB each, 200 MiB in all
    let bomb = head + &"X-Bomb: 0123456789abcdef0123456789abcdef\r\n".repeat(26_000);
    let statuses = attack(&ward.node, 200, async |_, mut raw| {
        raw.write(bomb.as_bytes()).await;
        raw.head().await.map_or(0, |h| h.status)
    })
    .await;
    assert!(statuses.iter().all(|s| [431, 0].contains(s)), "{statuses:?}");
    ward.is_unharmed(24 * 1024).await;
}

/// B-7, W-8: what comes in one piece with the handshake is judged like any other frames.
#[tokio::test]
async fn garbage_right_behind_an_upgrade_ends_with_1002() {
    const EACH: usize = 100;
    let mut ward = Ward::start(Options::memory()).await;
    let garbage: [&[u8]; 5] = [
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        &[0; 60_000],
        &[0xff; 60_000],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x81\x05hello",
    ];
    for bytes in garbage {
        let handshake = Raw::handshake(&ward.node, "/pub/witness", "");
        let all = [handshake.as_bytes(), bytes].concat();
        let ends = attack(&ward.node, EACH, async |_, mut raw| {
            raw.write(&all).await;
            assert_eq!(raw.head().await.expect("an answer").status, 101);
            raw.end().await
        })
        .await;
        assert_eq!(ends, vec![(End::Code(1002), 0); EACH], "{:?}", &bytes[..5]);
    }
    ward.closed_by(1002, garbage.len() * EACH).await;
    ward.is_unharmed(24 * 1024).await;
}
