//! Who may ask from a browser: the rules for `Origin` and `Host`. Pure: no socket, no clock.
//!
//! A page's script can open a WebSocket to any address, and the browser sends along only where the page came from. So
//! a present `Origin` must be the host's own or be allowed, and while a node is open to everybody on loopback, `Host`
//! must be a loopback name too: else a page could point its own name at 127.0.0.1 and be the host's own.

use http::HeaderMap;
use http::header::{HOST, ORIGIN};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Hosts or whole origins, `*` for one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OriginPattern {
    scheme: Option<String>,
    labels: Vec<String>,
    port: Option<u16>,
}

/// Scheme, host and port of an `Origin`, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

/// The rules of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// Allowed besides the host's own.
    pub(crate) allowed: Vec<OriginPattern>,
    /// Is a missing `Origin` refused?
    pub(crate) required: bool,
    /// The origin by which the node knows itself, if it was told.
    pub(crate) public_url: Option<String>,
    /// Must `Host` be a loopback name?
    pub(crate) loopback_only: bool,
}

/// What the rules say of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No `Origin`, or the host's own.
    Own,
    /// A foreign origin that is allowed: its pages may read answers.
    Allowed,
    /// Refused.
    Refused,
}

/// `host` and `port` of `host:port`, with brackets around IPv6.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.rfind(':') {
        Some(i) if !authority[i..].contains(']') => (&authority[..i], Some(authority[i + 1..].parse().ok()?)),
        _ => (authority, None),
    };
    let good = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/?#@\\".contains(c));
    good.then_some((host, port))
}

fn usual_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

impl Origin {
    fn parse(text: &str) -> Option<Origin> {
        let lower = text.to_ascii_lowercase();
        let (scheme, authority) = lower.split_once("://")?;
        let (host, port) = split_port(authority)?;
        let port = port.unwrap_or_else(|| usual_port(scheme));
        Some(Origin { scheme: scheme.to_owned(), host: host.to_owned(), port })
    }

    /// Is it the origin of whoever asks `host` by this origin's scheme?
    fn is_of_host(&self, host: &str) -> bool {
        let lower = host.to_ascii_lowercase();
        split_port(&lower).is_some_and(|(name, port)| {
            name == self.host && port.unwrap_or_else(|| usual_port(&self.scheme)) == self.port
        })
    }
}

impl FromStr for OriginPattern {
    type Err = String;
    fn from_str(text: &str) -> Result<OriginPattern, String> {
        let lower = text.to_ascii_lowercase();
        let fault = |why: &str| {
            format!(
                "{text:?} must be a host as \"example.com\" or an origin as \"https://example.com\": {why}"
            )
        };
        let (scheme, authority) = match lower.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => (Some(scheme.to_owned()), rest),
            Some(_) => return Err(fault("the scheme must be http or https")),
            None => (None, lower.as_str()),
        };
        let (host, port) = split_port(authority).ok_or_else(|| fault("it has no host, or a path"))?;
        if host == "*" {
            return Err(fault("a * stands for one label and never for a whole host"));
        }
        let labels: Vec<String> = host.split('.').map(str::to_owned).collect();
        if labels.iter().any(|l| l.is_empty() || (l.contains('*') && l != "*")) {
            return Err(fault("labels must not be empty, and a * must be a whole label"));
        }
        Ok(OriginPattern { scheme, labels, port })
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = &self.scheme {
            write!(f, "{scheme}://")?;
        }
        f.write_str(&self.labels.join("."))?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl OriginPattern {
    fn matches(&self, origin: &Origin) -> bool {
        let scheme = self.scheme.as_ref().is_none_or(|s| *s == origin.scheme);
        // A bare host goes for any port; a whole origin for its own alone.
        let port = match (self.port, &self.scheme) {
            (Some(port), _) => port == origin.port,
            (None, Some(scheme)) => usual_port(scheme) == origin.port,
            (None, None) => true,
        };
        let mut have = origin.host.split('.');
        let labels = self.labels.iter().all(|want| have.next().is_some_and(|got| want == "*" || want == got));
        scheme && port && labels && have.next().is_none()
    }
}

impl Rules {
    /// May a request with these headers be answered? `strict` asks for an `Origin` where the node requires one.
    pub(crate) fn origin(&self, headers: &HeaderMap, host: Option<&str>, strict: bool) -> Verdict {
        let mut given = headers.get_all(ORIGIN).iter();
        let Some(text) = given.next() else {
            return if strict && self.required { Verdict::Refused } else { Verdict::Own };
        };
        let origin = text.to_str().ok().and_then(Origin::parse).filter(|_| given.next().is_none());
        let Some(origin) = origin else { return Verdict::Refused };
        let public = self.public_url.as_deref().and_then(Origin::parse);
        if host.is_some_and(|h| origin.is_of_host(h)) || public.is_some_and(|p| p == origin) {
            return Verdict::Own;
        }
        if self.allowed.iter().any(|pattern| pattern.matches(&origin)) {
            Verdict::Allowed
        } else {
            Verdict::Refused
        }
    }

    /// Is this `Host` one that the node answers to?
    pub(crate) fn host(&self, host: Option<&str>) -> bool {
        !self.loopback_only || host.is_some_and(is_loopback_name)
    }
}

/// The host that a request names: of its target if that is absolute, else of its header, if there is just one.
pub(crate) fn host_of<'a>(uri: &'a http::Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    if let Some(authority) = uri.authority() {
        return Some(authority.as_str());
    }
    let mut given = headers.get_all(HOST).iter();
    let host = given.next()?.to_str().ok()?;
    given.next().is_none().then_some(host)
}

/// `localhost`, names below it, and loopback addresses; with or without a port.
fn is_loopback_name(host: &str) -> bool {
    let Some((name, _)) = split_port(host) else { return false };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(&name);
    name == "localhost"
        || name.ends_with(".localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(rules: &Rules, origin: Option<&str>, host: &str) -> Verdict {
        let mut headers = HeaderMap::new();
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        rules.origin(&headers, Some(host), true)
    }

    fn allowing(patterns: &[&str]) -> Rules {
        Rules { allowed: patterns.iter().map(|p| p.parse().unwrap()).collect(), ..Rules::default() }
    }

    #[test]
    fn the_hosts_own_pages_may_connect_and_foreign_ones_may_not() {
        let rules = Rules::default();
        assert_eq!(verdict(&rules, None, "127.0.0.1:3000"), Verdict::Own);
        assert_eq!(verdict(&rules, Some("http://127.0.0.1:3000"), "127.0.0.1:3000"), Verdict::Own);
        assert_eq!(verdict(&rules, Some("http://LOCALHOST:3000"), "localhost:3000"), Verdict::Own);
        assert_eq!(verdict(&rules, Some("https://a.example"), "a.example"), Verdict::Own);
        assert_eq!(verdict(&rules, Some("http://a.example:80"), "a.example"), Verdict::Own);
        assert_eq!(verdict(&rules, Some("http://[::1]:3000"), "[::1]:3000"), Verdict::Own);
        for foreign in
            ["http://evil.example", "http://127.0.0.1:3001", "http://localhost:3000", "null", "", "x"]
        {
            assert_eq!(verdict(&rules, Some(foreign), "127.0.0.1:3000"), Verdict::Refused, "{foreign}");
        }
    }

    #[test]
    fn allowed_hosts_are_matched_whole() {
        let rules = allowing(&["example.com", "*.foo.org", "https://secure.example:8443"]);
        for good in [
            "http://example.com",
            "https://example.com",
            "http://example.com:8080",
            "http://EXAMPLE.com",
            "http://a.foo.org",
            "https://secure.example:8443",
        ] {
            assert_eq!(verdict(&rules, Some(good), "h"), Verdict::Allowed, "{good}");
        }
        for bad in [
            "http://evil-example.com",
            "http://example.com.evil.net",
            "http://www.example.com",
            "http://foo.org",
            "http://a.b.foo.org",
            "http://secure.example:8443",
            "https://secure.example",
            "http://example.com@evil.net",
            "http://evil.net/example.com",
        ] {
            assert_eq!(verdict(&rules, Some(bad), "h"), Verdict::Refused, "{bad}");
        }
    }

    #[test]
    fn a_missing_origin_is_refused_only_where_it_is_required() {
        let rules = Rules { required: true, ..Rules::default() };
        assert_eq!(verdict(&rules, None, "h"), Verdict::Refused);
        assert_eq!(rules.origin(&HeaderMap::new(), Some("h"), false), Verdict::Own);
    }

    #[test]
    fn two_origins_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(ORIGIN, "http://h".parse().unwrap());
        headers.append(ORIGIN, "http://h".parse().unwrap());
        assert_eq!(Rules::default().origin(&headers, Some("h"), false), Verdict::Refused);
    }

    #[test]
    fn patterns_that_say_too_much_or_nothing_are_refused() {
        for bad in ["", "*", "http://*", "ws://x", "foo*.org", "a..b", "example.com/x", "http://", "a b"] {
            assert!(bad.parse::<OriginPattern>().is_err(), "{bad}");
        }
        assert_eq!("https://*.a.b:1".parse::<OriginPattern>().unwrap().to_string(), "https://*.a.b:1");
    }

    #[test]
    fn an_open_node_on_loopback_answers_to_loopback_names_alone() {
        let rules = Rules { loopback_only: true, ..Rules::default() };
        for good in [
            "localhost",
            "localhost:3000",
            "a.localhost:1",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]:3000",
            "LocalHost.",
        ] {
            assert!(rules.host(Some(good)), "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:3000",
            "localhost.evil.example",
            "10.0.0.1",
            "[::2]",
            "",
            "a@localhost",
        ] {
            assert!(!rules.host(Some(bad)), "{bad}");
        }
        assert!(!rules.host(None));
        assert!(Rules::default().host(Some("anything.example")));
    }

    #[test]
    fn an_absolute_target_names_the_host() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "localhost".parse().unwrap());
        assert_eq!(host_of(&"http://evil.example/x".parse().unwrap(), &headers), Some("evil.example"));
        assert_eq!(host_of(&"/x".parse().unwrap(), &headers), Some("localhost"));
        headers.append(HOST, "localhost".parse().unwrap());
        assert_eq!(host_of(&"/x".parse().unwrap(), &headers), None);
    }
}
