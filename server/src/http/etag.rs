//! Entity tags: who asks again for what has not changed gets no body.
//!
//! A tag is made of the very text that is sent, so that it is a strong one, the same on every node and after a restart.

use super::json;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::StatusCode;
use http::header::{CACHE_CONTROL, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};

/// Bytes of the digest that a tag shows: enough that no two texts share one.
const DIGEST_BYTES: usize = 16;

/// JSON with its tag; 304 for whoever names it.
pub(super) fn tagged(asked: &HeaderMap, text: String) -> Response {
    let tag = tag(&text);
    let mut response = if has_it(asked, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        json(StatusCode::OK, text)
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::from_str(&tag).expect("a tag is made of letters and digits"));
    // it may be kept, and is asked for again each time
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

fn tag(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(&digest.as_ref()[..DIGEST_BYTES]))
}

/// Does `If-None-Match` name it? Weakness does not count there (RFC 9110, 13.1.2). Our tags have no comma.
pub(super) fn has_it(asked: &HeaderMap, tag: &str) -> bool {
    let lists = asked.get_all(IF_NONE_MATCH).iter().filter_map(|list| list.to_str().ok());
    let mut tags = lists.flat_map(|list| list.split(',')).map(str::trim);
    tags.any(|named| named == "*" || named.strip_prefix("W/").unwrap_or(named) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_of_the_text_and_is_known_again() {
        let one = tag("{\"id\":1}");
        assert_eq!(one, tag("{\"id\":1}"));
        assert_ne!(one, tag("{\"id\":2}"));
        let asked = |list: &str| HeaderMap::from_iter([(IF_NONE_MATCH, list.parse().unwrap())]);
        for known in [one.clone(), format!("W/{one}"), format!("\"x\", {one}"), "*".into()] {
            assert_eq!(tagged(&asked(&known), "{\"id\":1}".into()).status(), 304, "{known}");
        }
        for unknown in [one.trim_matches('"'), "\"x\"", ""] {
            let response = tagged(&asked(unknown), "{\"id\":1}".into());
            let told = response.headers()[ETAG].to_str().unwrap();
            assert_eq!((response.status().as_u16(), told), (200, one.as_str()), "{unknown}");
        }
    }
}
