//! Those who cannot keep up, on either side.

use crate::client::{CLOSE, PING, PONG, TEXT, frame};
use crate::node::Node;
use minium_bus::Options;
use std::time::Duration;

fn message(n: usize, size: usize) -> String {
    format!("{n:08}{}", "q".repeat(size - 8))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_subscriber_is_closed_with_4000_after_whole_frames() {
    for size in [100, 700, 1_024, 5_000, 60_000] {
        let patience = Duration::from_secs(1); // the quick one may be starved of its processor for a while
        // it is not read until the quick one has all: on a busy machine longer than goodbyes usually last
        let linger = Duration::from_secs(60);
        let options = Options { ring_bytes_max: 1 << 20, patience, linger, ..Options::default() };
        let node = Node::with(options).await;
        let mut stalled = node.narrow("/sub/s").await;
        let mut quick = node.open("/sub/s").await;
        let mut p = node.open("/pub/s").await;
        let count = (24 << 20) / size;
        let publishing = async {
            for n in 0..count {
                p.text(&message(n, size)).await;
            }
        };
        let reading = async {
            for n in 0..count {
                quick.expect(&message(n, size)).await;
            }
        };
        tokio::join!(publishing, reading);
        // now it reads what was written to it: whole frames in order, then why
        let mut next = 0;
        loop {
            let (opcode, body) = stalled.next().await.expect("no Close");
            if opcode == CLOSE {
                assert_eq!(body[..2], 4000u16.to_be_bytes(), "{size}");
                break;
            }
            assert_eq!((opcode, String::from_utf8(body).unwrap()), (TEXT, message(next, size)));
            next += 1;
        }
        assert!(next < count, "{size}: it was never behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_wait_for_subscribers_that_make_progress() {
    // far more than ring and kernel hold, to subscribers on both shards that read slowly
    const COUNT: usize = 20_000;
    let patience = Duration::from_secs(60);
    let node = Node::with(Options { ring_bytes_max: 512 << 10, patience, ..Options::default() }).await;
    let mut subscribers =
        [node.narrow("/sub/w").await, node.narrow("/sub/w").await, node.narrow("/sub/w/x").await];
    let mut publishing = Vec::new();
    for _ in 0..2 {
        let mut p = node.open("/pub/w/x").await;
        publishing.push(tokio::spawn(async move {
            for n in 0..COUNT {
                p.text(&message(n, 1_000)).await;
            }
        }));
    }
    let mut got = [0; 3];
    let [a, b, c] = &mut subscribers;
    while got.iter().sum::<usize>() < 3 * 2 * COUNT {
        let (i, text) = tokio::select! {
            t = a.heard(), if got[0] < 2 * COUNT => (0, t),
            t = b.heard(), if got[1] < 2 * COUNT => (1, t),
            t = c.heard(), if got[2] < 2 * COUNT => (2, t),
        };
        assert_eq!(text.len(), 1_000);
        got[i] += 1;
    }
    for p in publishing {
        p.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_read_and_cut_ends_for_who_reads_it_at_last() {
    let linger = Duration::from_millis(200);
    let options =
        Options { ring_bytes_max: 128 << 10, stream_bytes_max: 4_096, linger, ..Options::default() };
    let node = Node::with(options).await;
    let mut stalled = node.sse("s", "latest").await;
    for n in 0..500 {
        node.publish("s", &message(n, 2_000)).await;
    }
    node.until(|stats| stats.sessions == 0).await;
    while stalled.next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn pongs_go_out_between_frames_that_are_partly_written() {
    for size in [100, 1_000, 60_000] {
        let node = Node::start().await;
        let mut s = node.narrow("/sub/p").await;
        let mut p = node.open("/pub/p").await;
        let count = (3 << 20) / size;
        let publishing = async {
            for n in 0..count {
                p.text(&message(n, size)).await;
            }
        };
        let reading = async {
            let (mut next, mut pings, mut pongs) = (0, 0, 0);
            while next < count || pongs < pings {
                if pings < 200 && next >= pings * count / 200 {
                    s.say(&frame(PING, format!("{pings}").as_bytes())).await;
                    pings += 1;
                }
                match s.next().await.unwrap() {
                    (TEXT, body) => {
                        assert_eq!(String::from_utf8(body).unwrap(), message(next, size));
                        next += 1;
                    }
                    (PONG, body) => {
                        assert_eq!(body, format!("{pongs}").as_bytes());
                        pongs += 1;
                    }
                    (PING, body) => s.say(&frame(PONG, &body)).await, // the test takes long
                    other => panic!("{other:?}"),
                }
            }
            assert!(pongs > 0);
        };
        tokio::join!(publishing, reading);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_stream_is_closed_with_4000_after_whole_events() {
    // the close waits for the client, which reads only when all has been published
    let linger = Duration::from_secs(60);
    let node = Node::with(Options { ring_bytes_max: 256 << 10, linger, ..Options::default() }).await;
    let mut stalled = node.sse("e", "latest").await;
    let mut quick = node.open("/sub/e").await;
    for n in 0..3_000 {
        node.publish("e", &message(n, 1_000)).await;
        quick.expect(&message(n, 1_000)).await;
    }
    let mut next = 0;
    loop {
        let event = stalled.next().await.expect("it ended without a word");
        if event.starts_with("event: close\n") {
            assert!(event.contains("4000"), "{event}");
            break;
        }
        assert_eq!(event, format!("data: {}", message(next, 1_000)));
        next += 1;
    }
    assert!(next < 3_000);
    assert_eq!(stalled.next().await, None);
    node.until(|stats| stats.sessions == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_of_a_flood_is_told_even_when_they_are_more_than_may_wait() {
    let node =
        Node::with(Options { control_bytes_max: 16 << 10, waiting_count_max: 0, ..Options::default() }).await;
    let mut p = node.open("/push/nobody").await;
    const COUNT: usize = 5_000;
    let burst: Vec<u8> = (0..COUNT).flat_map(|_| frame(TEXT, b"work")).collect();
    p.say(&burst).await;
    for _ in 0..COUNT {
        assert_eq!(p.json().await["problem"]["code"], "no_puller");
    }
    p.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_of_one_topic_slows_nobody_on_another() {
    // it takes a trickle for ever, so that its own publisher may have to wait for it
    let patience = Duration::from_secs(60);
    let node = Node::with(Options { ring_bytes_max: 256 << 10, patience, ..Options::default() }).await;
    let _stalled = [node.narrow("/sub/slow").await, node.narrow("/sub/slow").await];
    let mut flood = [node.open("/pub/slow").await, node.open("/pub/slow").await];
    let flooding = tokio::spawn(async move {
        for n in 0.. {
            for p in &mut flood {
                p.text(&message(n, 10_000)).await;
            }
        }
    });
    let mut others = [node.open("/sub/other").await, node.open("/sub/other").await];
    let mut p = [node.open("/pub/other").await, node.open("/pub/other").await];
    for n in 0..3_000 {
        for p in &mut p {
            p.text(&message(n, 1_000)).await;
        }
        node.publish("other", "by post").await;
        for s in &mut others {
            for _ in 0..3 {
                s.heard().await;
            }
        }
    }
    assert!(!flooding.is_finished());
    flooding.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_refusals_is_not_read_either() {
    // each message is answered by a problem fifty times its size: the bus must not keep them all
    let node = Node::with(Options { control_bytes_max: 16 << 10, ..Options::default() }).await;
    node.schema("sub/r.json", r#"{"type":"object"}"#);
    let mut p = node.narrow("/pub/r").await;
    let mut s = node.open("/sub/r").await;
    const COUNT: usize = 20_000;
    let burst: Vec<u8> = (0..COUNT).flat_map(|_| frame(TEXT, b"[]")).collect();
    p.say(&burst).await;
    p.text(r#"{"done":true}"#).await;
    for _ in 0..COUNT {
        assert_eq!(p.json().await["problem"]["code"], "schema_violation");
    }
    s.expect(r#"{"done":true}"#).await;
}
