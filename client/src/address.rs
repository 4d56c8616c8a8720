//! Where the server is: the base URL, checked once, and the paths under it.

use crate::error::ClientError;
use url::Url;

/// A checked base URL, of the scheme `http` or `https`. Its path ends with a slash, so that a server behind a path prefix
/// works too.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    base: Url,
}

impl Address {
    /// Reads `http://host[:port][/prefix]`, or the same with `https`. `ws` and `wss` mean these two: requests and WebSockets go to one port.
    pub(crate) fn parse(text: &str) -> Result<Address, ClientError> {
        let fault = |reason: &str| ClientError::Url { url: text.into(), reason: reason.into() };
        // `hub:3000` would be a URL of the scheme `hub`
        if !text.contains("://") && Address::parse(&format!("http://{text}")).is_ok() {
            return Err(ClientError::NoScheme { url: text.into() });
        }
        let mut base = Url::parse(text).map_err(|e| fault(&e.to_string()))?;
        let scheme = match base.scheme() {
            "http" | "ws" => "http",
            "https" | "wss" => "https",
            _ => return Err(fault("it must begin with http://, https://, ws:// or wss://")),
        };
        base.set_scheme(scheme).map_err(|()| fault("its scheme cannot be changed"))?;
        if base.host_str().is_none_or(str::is_empty) {
            return Err(fault("it names no host"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(fault("credentials do not belong into a URL; use a token"));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(fault("it must have neither a query nor a fragment"));
        }
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        Ok(Address { base })
    }

    /// The URL of `path`, which begins without a slash, with these query parameters.
    pub(crate) fn url(&self, path: &str, query: &[(&str, String)]) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// What to connect to. Brackets of IPv6 literals belong to URLs only.
    pub(crate) fn host_and_port(&self) -> (&str, u16) {
        let host = self.base.host_str().expect("checked when it was parsed");
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        (bare, self.base.port_or_known_default().unwrap_or(80))
    }

    /// Is it to be reached by TLS?
    pub(crate) fn is_secure(&self) -> bool {
        self.base.scheme() == "https"
    }

    /// For people: without the slash that was added.
    pub(crate) fn as_str(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_under_the_base() {
        let a = Address::parse("http://rack3:3100/minium").unwrap();
        assert_eq!(a.url("sub/a/+", &[]).as_str(), "http://rack3:3100/minium/sub/a/+");
        assert_eq!(a.url("x", &[("after", "1:2".into())]).as_str(), "http://rack3:3100/minium/x?after=1%3A2");
        assert_eq!(a.host_and_port(), ("rack3", 3100));
        let six = Address::parse("http://[::1]").unwrap();
        assert_eq!((six.host_and_port(), six.as_str()), (("::1", 80), "http://[::1]"));
    }

    #[test]
    fn the_scheme_says_whether_tls_is_spoken() {
        for (url, port, secure, shown) in [
            ("ws://h", 80, false, "http://h"),
            ("http://h:443", 443, false, "http://h:443"),
            ("https://h/x/", 443, true, "https://h/x"),
            ("wss://h", 443, true, "https://h"),
            ("WSS://[::1]:80", 80, true, "https://[::1]:80"),
        ] {
            let a = Address::parse(url).unwrap();
            assert_eq!((a.host_and_port().1, a.is_secure(), a.as_str()), (port, secure, shown), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_reached_is_refused_with_its_reason() {
        let says = |url: &str, word: &str| {
            let e = Address::parse(url).unwrap_err().to_string();
            assert!(e.contains(word) && e.contains(url), "{e}");
        };
        says("ftp://h", "http://");
        for url in ["127.0.0.1:3000", "hub:3000", "hub", "[::1]:3000/minium"] {
            let e = Address::parse(url).unwrap_err();
            assert_eq!((e.to_string(), e.exit_code()), (format!("{url} is no URL: say http://{url}"), 2));
        }
        says("", "base");
        says("127.0.0.1:port", "base");
        says("me:secret@h", "http://");
        says("http://me:secret@h", "token");
        says("wss://me@h", "token");
        says("http://h?x=1", "query");
    }
}
