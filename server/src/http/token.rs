//! Where a token stands in a request: in `Authorization`, or beside a mode as a subprotocol, since pages cannot set
//! headers on a WebSocket. Never in a URL, which logs and histories keep.

use super::problem::Refusal;
use super::query;
use super::upgrade;
use crate::auth::Presented;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, Uri};

/// What goes before a token in a subprotocol.
const SUBPROTOCOL: &str = "minium.bearer.";
/// Parameters in which others take tokens.
const PARAMETERS: &[&str] = &["token", "access_token"];

/// What a request brings. More than one token is none.
pub(super) fn presented(headers: &HeaderMap) -> Presented {
    let mut found =
        headers.get_all(AUTHORIZATION).iter().map(|v| v.to_str().ok().and_then(bearer)).collect::<Vec<_>>();
    if upgrade::is_wanted(headers) {
        found.extend(subprotocols(headers).filter_map(|name| name.strip_prefix(SUBPROTOCOL)).map(unwrapped));
    }
    match found.pop() {
        None => Presented::Nothing,
        Some(Some(token)) if found.is_empty() => Presented::Token(token.into()),
        Some(_) => Presented::Unusable,
    }
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer(value: &str) -> Option<String> {
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    let good = scheme.eq_ignore_ascii_case("bearer")
        && !token.is_empty()
        && token.bytes().all(|b| b.is_ascii_graphic());
    good.then(|| token.to_owned())
}

/// A token in a subprotocol is base64url once more, since not every token is made of letters that may stand there. A
/// JWT is, and is taken as it is too: its dots tell.
fn unwrapped(text: &str) -> Option<String> {
    if text.contains('.') {
        return Some(text.to_owned());
    }
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
    String::from_utf8(bytes).ok().filter(|token| !token.is_empty())
}

/// The subprotocols that are offered.
pub(super) fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    values.flat_map(|v| v.to_str().unwrap_or("?").split(',')).map(str::trim)
}

/// Refuses a token in the URL, even where no token is asked for: nobody should get used to it.
pub(super) fn not_in_url(uri: &Uri) -> Result<(), Refusal> {
    let pairs = uri.query().map(|_| query::pairs(uri).unwrap_or_default()).unwrap_or_default();
    if pairs.iter().any(|(name, _)| PARAMETERS.iter().any(|p| name.eq_ignore_ascii_case(p))) {
        let detail = "a token never stands in a URL, which logs and histories keep; send it as Authorization: Bearer, \
                      or from a page as the second subprotocol minium.bearer.<base64url token>";
        return Err(Refusal::invalid(detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn found(pairs: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        match presented(&headers) {
            Presented::Nothing => "nothing".into(),
            Presented::Unusable => "unusable".into(),
            Presented::Token(token) => token.expose_secret().into(),
        }
    }

    const WS: (&str, &str) = ("upgrade", "websocket");

    ///
    #[test]
    fn a_token_stands_in_the_header_or_beside_a_mode() {
        assert_eq!(found(&[]), "nothing");
        assert_eq!(found(&[("authorization", "Bearer a.b.c")]), "a.b.c");
        assert_eq!(found(&[("authorization", "bearer   a.b.c ")]), "a.b.c");
        let wrapped = format!("minium.plain, minium.bearer.{}", URL_SAFE_NO_PAD.encode("a.b.c"));
        assert_eq!(found(&[WS, ("sec-websocket-protocol", &wrapped)]), "a.b.c");
        assert_eq!(found(&[WS, ("sec-websocket-protocol", &format!("{wrapped}=="))]), "a.b.c");
        assert_eq!(found(&[WS, ("sec-websocket-protocol", "minium.bearer.a.b.c,cloudevents.json")]), "a.b.c");
        assert_eq!(
            found(&[("sec-websocket-protocol", &wrapped)]),
            "nothing",
            "only an upgrade has subprotocols"
        );
        assert_eq!(found(&[WS, ("sec-websocket-protocol", "minium.plain")]), "nothing");
    }

    #[test]
    fn what_is_no_single_bearer_token_is_not_taken_for_nothing() {
        for bad in ["", "Bearer", "Bearer ", "a.b.c", "Basic YTpi", "Bearer a b", "Bearer \u{e9}"] {
            assert_eq!(found(&[("authorization", bad)]), "unusable", "{bad:?}");
        }
        assert_eq!(found(&[("authorization", "Bearer a"), ("authorization", "Bearer a")]), "unusable");
        let both = [WS, ("authorization", "Bearer a"), ("sec-websocket-protocol", "minium.bearer.YQ")];
        assert_eq!(found(&both), "unusable");
        for bad in
            ["minium.bearer.", "minium.bearer.*", "minium.bearer._w", "minium.bearer.YQ, minium.bearer.YQ"]
        {
            assert_eq!(found(&[WS, ("sec-websocket-protocol", bad)]), "unusable", "{bad}");
        }
    }

    ///
    #[test]
    fn a_url_has_no_token() {
        for bad in ["/sub/a?token=x", "/?access_token=", "/pub/a?x=1&tok%65n=y", "/a?TOKEN=x"] {
            assert!(not_in_url(&bad.parse().unwrap()).is_err(), "{bad}");
        }
        for good in ["/sub/a", "/sub/token?after=1", "/a?x=token"] {
            assert!(not_in_url(&good.parse().unwrap()).is_ok(), "{good}");
        }
    }
}
