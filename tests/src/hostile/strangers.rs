//! Who asks: foreign pages, foreign names, and (when there are tokens) forged and worn-out credentials.
//!
//! One table of headers and the answer to each. Tokens get their rows here: `alg: none`, a public key used as HMAC
//! secret, `kid` that is a path or SQL, a wrong `aud` or `iss`, expired, not yet valid, scopes of somebody else.

use super::{Ward, attack};
use crate::support::node::Options;
use crate::support::raw::Raw;

/// Headers (`{host}` is the node's own), and the answer: a status, and a word of its body.
type Row = (&'static str, &'static str, u16, &'static str);

/// H-3, H-7.
#[rustfmt::skip] // one row, one line
const ROWS: &[Row] = &[
    ("nothing special", "Host: {host}\r\n", 101, ""),
    ("the host's own page", "Host: {host}\r\nOrigin: http://{host}\r\n", 101, ""),
    ("a foreign page", "Host: {host}\r\nOrigin: http://evil.net\r\n", 401, "Origin check failed"),
    ("a page that ends like us", "Host: {host}\r\nOrigin: http://evil.{host}\r\n", 401, "Origin check failed"),
    ("a page that begins like us", "Host: {host}\r\nOrigin: http://{host}.evil.net\r\n", 401, "Origin check failed"),
    ("us as the user of a foreign page", "Host: {host}\r\nOrigin: http://{host}@evil.net\r\n", 401, "Origin check failed"),
    ("another port of ours", "Host: {host}\r\nOrigin: http://127.0.0.1:1\r\n", 401, "Origin check failed"),
    ("a sandboxed page", "Host: {host}\r\nOrigin: null\r\n", 401, "Origin check failed"),
    ("an empty origin", "Host: {host}\r\nOrigin: \r\n", 401, "Origin check failed"),
    ("a file", "Host: {host}\r\nOrigin: file://\r\n", 401, "Origin check failed"),
    ("a second origin", "Host: {host}\r\nOrigin: http://{host}\r\nOrigin: http://evil.net\r\n", 401, "Origin check failed"),
    ("a name that was bent to us", "Host: evil.net\r\n", 403, "forbidden"),
    ("the same with its own origin", "Host: evil.net\r\nOrigin: http://evil.net\r\n", 403, "forbidden"),
    ("a name that begins like us", "Host: 127.0.0.1.evil.net\r\n", 403, "forbidden"),
    ("a name that ends like us", "Host: evillocalhost\r\n", 403, "forbidden"),
    ("us as the user of a name", "Host: 127.0.0.1@evil.net\r\n", 403, "forbidden"),
    ("all addresses", "Host: 0.0.0.0\r\n", 403, "forbidden"),
];

/// H-3, H-7: each stranger has its answer, by the hundred; nobody comes in, and no session is left.
#[tokio::test]
async fn each_stranger_has_its_answer() {
    const EACH: usize = 50;
    let mut ward = Ward::start(Options::memory()).await;
    let host = ward.node.address().to_string();
    let mut wrong = Vec::new();
    for (name, headers, status, word) in ROWS {
        let headers = headers.replace("{host}", &host);
        let request =
            Raw::handshake(&ward.node, "/sub/x", "").replace(&format!("Host: {host}\r\n"), &headers);
        assert!(request.contains(&headers), "{name}: the headers are sent");
        let answers = attack(&ward.node, EACH, async |_, mut raw| {
            raw.write(request.as_bytes()).await;
            raw.head().await.map(|h| (h.status, h.body)).unwrap_or_default()
        })
        .await;
        let other = answers.iter().find(|(s, body)| s != status || !body.contains(word));
        wrong.extend(other.map(|other| format!("{name}: {other:?}")));
    }
    assert!(wrong.is_empty(), "{} rows were answered otherwise:\n{}", wrong.len(), wrong.join("\n"));
    ward.is_unharmed(24 * 1024).await;
}
