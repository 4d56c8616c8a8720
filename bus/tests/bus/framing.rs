//! RFC 6455 to the letter, whatever a client sends.

use crate::client::{CLOSE, Client, PING, PONG, TEXT, frame, part};
use crate::node::Node;
use minium_bus::Options;

#[tokio::test(flavor = "multi_thread")]
async fn fragments_are_joined_with_pings_answered_between_them() {
    let node = Node::start().await;
    let mut s = node.open("/sub/f").await;
    let mut p = node.open("/pub/f").await;
    p.say(&part(0x01, b"one ")).await;
    p.say(&frame(PING, b"now")).await;
    assert_eq!(p.next().await, Some((PONG, b"now".to_vec())));
    p.say(&part(0x00, b"two ")).await;
    p.say(&part(0x80, b"three")).await;
    s.expect("one two three").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_may_be_cut_anywhere() {
    let node = Node::start().await;
    let mut s = node.open("/sub/cut").await;
    let mut p = node.open("/pub/cut").await;
    let mut bytes = frame(TEXT, b"first");
    bytes.extend(part(0x01, &[b'a'; 200]));
    bytes.extend(frame(PING, b""));
    bytes.extend(part(0x80, &[b'b'; 200]));
    bytes.extend(frame(TEXT, b"last"));
    for b in bytes {
        p.say(&[b]).await;
    }
    s.expect("first").await;
    s.expect(&("a".repeat(200) + &"b".repeat(200))).await;
    s.expect("last").await;
    assert_eq!(p.next().await, Some((PONG, vec![])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_that_ends_within_a_frame_goes_on_with_the_next() {
    let node = Node::start().await;
    let mut s = node.open("/sub/burst").await;
    let mut p = node.open("/pub/burst").await;
    for size in [10, 5_000, 60_000] {
        let texts: Vec<String> = (0..20).map(|n| format!("{n}{}", "z".repeat(size))).collect();
        let bytes: Vec<u8> = texts.iter().flat_map(|t| frame(TEXT, t.as_bytes())).collect();
        let (first, rest) = bytes.split_at(bytes.len() - 7);
        p.say(first).await;
        p.nothing_read_yet().await;
        p.say(rest).await;
        for text in texts {
            s.expect(&text).await;
        }
    }
}

impl Client {
    /// Gives the node a turn, so that it has read what came so far more often than not.
    async fn nothing_read_yet(&mut self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_closes_with_1002() {
    let node = Node::start().await;
    let mut s = node.open("/sub/bad").await;
    let unmasked = vec![0x81, 1, b'x'];
    let long_ping = frame(PING, &[0; 126]);
    let cases: [(&str, Vec<u8>); 9] = [
        ("unmasked", unmasked),
        ("a reserved bit", part(0xc1, b"x")),
        ("an unknown opcode", part(0x83, b"x")),
        ("an unknown control opcode", part(0x8b, b"x")),
        ("a continuation of nothing", part(0x80, b"x")),
        ("a message within a message", [part(0x01, b"x"), part(0x81, b"y")].concat()),
        ("a fragmented ping", part(0x09, b"x")),
        ("a ping that is too long", long_ping),
        ("a Close with one byte", frame(CLOSE, &[3])),
    ];
    for (what, bytes) in cases {
        for path in ["/pub/bad", "/sub/bad/x", "/pull/bad", "/bus/bad"] {
            let mut p = node.open(path).await;
            p.say(&bytes).await;
            assert_eq!(p.closed().await.0, 1002, "{what} on {path}");
        }
    }
    s.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf_8_closes_with_1007() {
    let node = Node::start().await;
    let mut s = node.open("/sub/u").await;
    for bytes in [frame(TEXT, &[0xff]), [part(0x01, &[0xc3]), part(0x80, b"x")].concat()] {
        let mut p = node.open("/pub/u").await;
        p.say(&frame(TEXT, b"before")).await;
        p.say(&bytes).await;
        assert_eq!(p.closed().await.0, 1007);
        s.expect("before").await;
    }
    // a character cut by a fragment is whole again
    let mut p = node.open("/pub/u").await;
    p.say(&[part(0x01, &[0xc3]), part(0x80, &[0xa9])].concat()).await;
    s.expect("é").await;
    s.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_message_passes_and_one_byte_more_closes_with_1009() {
    let node = Node::start().await;
    let mut s = node.open("/sub/big").await;
    let longest = "x".repeat(262_144);
    let mut p = node.open("/pub/big").await;
    p.text(&longest).await;
    s.expect(&longest).await;
    p.text(&format!("{longest}y")).await;
    assert_eq!(p.closed().await.0, 1009);
    // nor in pieces
    let mut p = node.open("/pub/big").await;
    p.say(&[part(0x01, longest.as_bytes()), part(0x80, b"y")].concat()).await;
    assert_eq!(p.closed().await.0, 1009);
    // nor as a mere announcement
    let mut p = node.open("/pub/big").await;
    p.say(&[0x81, 0xff, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]).await;
    assert_eq!(p.closed().await.0, 1009);
    s.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_is_answered_with_its_code_and_deregisters_at_once() {
    let node = Node::start().await;
    let mut s = node.open("/sub/bye").await;
    let mut other = node.open("/sub/bye").await;
    s.say(&frame(CLOSE, &[&1000u16.to_be_bytes()[..], b"bye"].concat())).await;
    assert_eq!(s.next().await, Some((CLOSE, [&1000u16.to_be_bytes()[..], b"bye"].concat())));
    node.publish("bye", "too late").await;
    other.expect("too late").await;
    assert_eq!(s.next().await, None);
    for (sent, answered) in [(3000u16, 3000u16), (999, 1002), (1005, 1002)] {
        let mut c = node.open("/pub/bye").await;
        c.say(&frame(CLOSE, &sent.to_be_bytes())).await;
        let (_, body) = c.next().await.unwrap();
        assert_eq!(body[..2], answered.to_be_bytes(), "{sent}");
        assert_eq!(c.next().await, None);
    }
    let mut c = node.open("/pub/bye").await;
    c.say(&frame(CLOSE, b"")).await;
    assert_eq!(c.next().await, Some((CLOSE, vec![])));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_a_close_is_not_published() {
    let node = Node::start().await;
    let mut s = node.open("/sub/after").await;
    let mut p = node.open("/pub/after").await;
    p.say(&[frame(TEXT, b"before"), frame(CLOSE, &1000u16.to_be_bytes()), frame(TEXT, b"after")].concat())
        .await;
    s.expect("before").await;
    assert_eq!(p.next().await, Some((CLOSE, 1000u16.to_be_bytes().to_vec())));
    assert_eq!(p.next().await, None);
    s.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pings_at_once_are_all_answered_or_answered_by_the_last() {
    // RFC 6455 5.5.3: an answer to the most recent ping will do, and order must hold
    let node = Node::start().await;
    let mut p = node.open("/pub/p").await;
    let pings: Vec<u8> = (0..1_000).flat_map(|n: u32| frame(PING, &n.to_be_bytes())).collect();
    p.say(&pings).await;
    let mut last = None;
    while last != Some(999) {
        let (opcode, body) = p.next().await.unwrap();
        assert_eq!(opcode, PONG);
        let n = u32::from_be_bytes(body.try_into().unwrap());
        assert!(last.is_none_or(|l| l < n), "{n} after {last:?}");
        last = Some(n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_never_finished_ends_its_session_in_time() {
    let message_time_max = std::time::Duration::from_millis(300);
    let node = Node::with(Options { message_time_max, ..Options::default() }).await;
    let mut half = node.open("/pub/a").await;
    let mut whole = node.open("/pub/a").await;
    whole.text("whole").await;
    half.say(&frame(TEXT, &[b'x'; 100])[..50]).await;
    assert_eq!(half.closed().await.0, 1008);
    whole.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_sessions_have_half_sent_is_bounded_for_the_node() {
    // 64 KiB for each of the two shards
    let node = Node::with(Options { half_read_bytes_max: 128 << 10, ..Options::default() }).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut c = node.open("/pub/a").await;
        c.say(&frame(TEXT, &[b'x'; 40_000])[..30_000]).await;
        clients.push(c);
    }
    let mut refused = 0;
    for c in &mut clients {
        // either it was too much already, or there is room to finish once the others are gone
        c.say(&frame(TEXT, &[b'x'; 40_000])[30_000..]).await;
        c.say(&frame(PING, b"still there?")).await;
        match c.next().await {
            Some((CLOSE, body)) => {
                assert_eq!(body[..2], 1013u16.to_be_bytes());
                refused += 1;
            }
            other => assert_eq!(other, Some((PONG, b"still there?".to_vec()))),
        }
    }
    assert!((10..20).contains(&refused), "{refused} of 20 were refused");
}
