//! Sets of keys that somebody else publishes (JWKS, RFC 7517): cached, fetched again by age, and when a token names a
//! key that is not known, at a bounded rate. While the set cannot be had, the keys that are known go on counting.

use super::fetch::{FetchError, fetch};
use super::key::{Algorithm, VerifyingKey};
use arc_swap::ArcSwap;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::Uri;
use serde::Deserialize;
use std::net::IpAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Keys in one set.
const KEYS_MAX: usize = 64;
/// A token that names no key is tried with so many of a set.
const TRIED_MAX: usize = 8;
/// In the long run tokens with unknown keys have the set fetched once in so long.
const ASKED_PAUSE: Duration = Duration::from_secs(10);
/// And so often at once.
const ASKED_BURST: NonZero<u32> = NonZero::new(3).expect("three is not zero");
/// After a fetch that failed, if the set's age does not ask for it earlier.
const FAILED_PAUSE: Duration = Duration::from_secs(15);

/// Where a set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JwksPlace {
    Url(Uri),
    File(PathBuf),
}

impl JwksPlace {
    /// Reads what stands in the configuration.
    pub(crate) fn parse(text: &str) -> Result<JwksPlace, String> {
        if !text.contains("://") {
            return if text.is_empty() {
                Err("must be a URL or a file".into())
            } else {
                Ok(JwksPlace::File(text.into()))
            };
        }
        let uri: Uri = text.parse().map_err(|_| "is no URL".to_owned())?;
        let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else {
            return Err("is a URL without a host".into());
        };
        if authority.as_str().contains('@') {
            return Err("must not hold a name or password".into());
        }
        match uri.scheme_str() {
            Some("https") => Ok(JwksPlace::Url(uri)),
            Some("http") if is_loopback(host) => Ok(JwksPlace::Url(uri)),
            Some("http") => Err("must be https: whoever can change it on its way could sign tokens".into()),
            _ => Err("must begin with https://".into()),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl std::fmt::Display for JwksPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // a query may hold a key of its own
            JwksPlace::Url(uri) => {
                let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority());
                write!(f, "{scheme}://{}{}", authority.map_or("", |a| a.as_str()), uri.path())
            }
            JwksPlace::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A key as it stands in a set.
#[derive(Debug, Deserialize)]
pub(super) struct Jwk {
    pub(super) kty: String,
    pub(super) crv: Option<String>,
    pub(super) n: Option<String>,
    pub(super) e: Option<String>,
    pub(super) x: Option<String>,
    pub(super) y: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
}

impl Jwk {
    /// Is it there to check signatures of this algorithm?
    fn is_for(&self, algorithm: Algorithm) -> bool {
        self.alg.as_deref().is_none_or(|a| a == algorithm.as_str())
            && self.purpose.as_deref().is_none_or(|p| p == "sig")
            && self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"))
    }
}

/// Why a set could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("it is no JSON object with keys in it")]
    Json,
    #[error("it has {0} keys, more than {KEYS_MAX}")]
    Many(usize),
    #[error("none of its {0} keys is for {1}")]
    None(usize, &'static str),
}

type Named = (Option<String>, Arc<VerifyingKey>);

/// The keys of one algorithm in a set. Those that are for something else, or that cannot be read, are left out.
fn keys_of(text: &[u8], algorithm: Algorithm) -> Result<Vec<Named>, SetError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(text).map_err(|_| SetError::Json)?;
    let count = set.keys.len();
    if count > KEYS_MAX {
        return Err(SetError::Many(count));
    }
    let read = |value| {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let key = jwk.is_for(algorithm).then(|| VerifyingKey::from_jwk(algorithm, &jwk).ok()).flatten()?;
        Some((jwk.kid, Arc::new(key)))
    };
    let keys: Vec<Named> = set.keys.into_iter().filter_map(read).collect();
    // an answer without any key is more likely a mistake than a wish to lock everybody out
    if keys.is_empty() { Err(SetError::None(count, algorithm.as_str())) } else { Ok(keys) }
}

/// A set and what is known of it.
pub(super) struct JwkSet {
    place: JwksPlace,
    algorithm: Algorithm,
    max_age: Duration,
    keys: ArcSwap<Vec<Named>>,
    /// Counts how often the keys changed.
    changes: AtomicU64,
    /// Counts fetches, so that whoever waited for one does not begin another.
    fetches: AtomicU64,
    /// One fetch at a time.
    fetching: tokio::sync::Mutex<()>,
    asked: DefaultDirectRateLimiter,
    failing: AtomicBool,
    /// Nobody has this set any more.
    gone: CancellationToken,
}

impl Drop for JwkSet {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

impl JwkSet {
    /// A set, with the keys that an older one knew.
    pub(super) fn new(
        place: JwksPlace,
        algorithm: Algorithm,
        max_age: Duration,
        old: Option<&JwkSet>,
    ) -> JwkSet {
        let old = old.filter(|old| old.place == place && old.algorithm == algorithm);
        let quota = Quota::with_period(ASKED_PAUSE).expect("a pause is not zero").allow_burst(ASKED_BURST);
        JwkSet {
            place,
            algorithm,
            max_age,
            keys: old.map_or_else(ArcSwap::default, |old| ArcSwap::new(old.keys.load_full())),
            changes: AtomicU64::new(0),
            fetches: AtomicU64::new(0),
            fetching: tokio::sync::Mutex::new(()),
            asked: RateLimiter::direct(quota),
            failing: AtomicBool::new(false),
            gone: CancellationToken::new(),
        }
    }

    /// The keys that may have signed a token which names `kid`.
    pub(super) fn candidates(&self, kid: Option<&str>) -> Vec<Arc<VerifyingKey>> {
        let keys = self.keys.load();
        let fits = |named: &&Named| kid.is_none() || named.0.is_none() || named.0.as_deref() == kid;
        keys.iter().filter(fits).take(TRIED_MAX).map(|(_, key)| key.clone()).collect()
    }

    /// All keys.
    pub(super) fn keys(&self) -> Vec<Arc<VerifyingKey>> {
        self.keys.load().iter().map(|(_, key)| key.clone()).collect()
    }

    /// Goes up whenever the keys change.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    /// A token names a key that is not here: fetches the set, unless that was done too often.
    pub(super) async fn ask(&self, kid: Option<&str>) {
        let known = self.keys.load().iter().any(|(have, _)| have.is_some() && have.as_deref() == kid);
        let before = self.fetches.load(Relaxed);
        if known {
            return;
        }
        let _one_at_a_time = self.fetching.lock().await;
        if self.fetches.load(Relaxed) == before && self.asked.check().is_ok() {
            self.fetch().await;
        }
    }

    /// Fetches the set; whoever called holds the lock. Gives how long to wait until the next time.
    async fn fetch(&self) -> Duration {
        let got = fetch(&self.place).await.map_err(SetError::from);
        let keys = got.and_then(|text| keys_of(&text, self.algorithm));
        self.fetches.fetch_add(1, Relaxed);
        match keys {
            Ok(keys) => {
                let digests = |keys: &[Named]| -> Vec<_> {
                    keys.iter().map(|(kid, k)| (kid.clone(), *k.digest())).collect()
                };
                if digests(&keys) != digests(&self.keys.load()) {
                    info!(place = %self.place, keys = keys.len(), "The set of keys is read.");
                    self.keys.store(Arc::new(keys));
                    self.changes.fetch_add(1, Relaxed);
                }
                if self.failing.swap(false, Relaxed) {
                    info!(place = %self.place, "The set of keys can be had again.");
                }
                self.max_age
            }
            Err(error) => {
                if !self.failing.swap(true, Relaxed) {
                    let known = self.keys.load().len();
                    warn!(place = %self.place, %error, known, "The set of keys cannot be had; the known ones go on counting.");
                }
                FAILED_PAUSE.min(self.max_age)
            }
        }
    }

    /// Fetches the set now and whenever it is old, until nobody has it any more.
    pub(super) async fn keep(set: Weak<JwkSet>, closing: CancellationToken) {
        let Some(gone) = set.upgrade().map(|set| set.gone.clone()) else { return };
        let rounds = async {
            while let Some(set) = set.upgrade() {
                let lock = set.fetching.lock().await;
                let pause = set.fetch().await;
                drop(lock);
                drop(set);
                tokio::time::sleep(pause).await;
            }
        };
        closing.run_until_cancelled(gone.run_until_cancelled(rounds)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    fn with(more: &str) -> String {
        ED.replacen('{', &format!("{{{more},"), 1)
    }

    fn count(keys: &[&str], algorithm: Algorithm) -> Option<usize> {
        let text = format!(r#"{{"keys":[{}]}}"#, keys.join(","));
        keys_of(text.as_bytes(), algorithm).ok().map(|keys| keys.len())
    }

    /// A-4.
    #[test]
    fn of_a_set_only_the_keys_of_the_algorithm_count() {
        assert_eq!(count(&[ED], Algorithm::EdDsa), Some(1));
        assert_eq!(count(&[ED], Algorithm::Es256), None);
        for other in [
            with(r#""use":"enc""#),
            with(r#""alg":"HS256""#),
            with(r#""alg":"ES256""#),
            with(r#""key_ops":["sign"]"#),
            ED.replace("Ed25519", "X25519"),
            ED.replace("OKP", "EC"),
            ED.replace("\"x\"", "\"z\""),
            ED.replace("11qY", "1"),
            r#"{"kty":"oct","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTMy"}"#.into(),
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.into(),
            "7".into(),
            "{}".into(),
        ] {
            assert_eq!(count(&[&other], Algorithm::EdDsa), None, "{other}");
            assert_eq!(count(&[&other, ED], Algorithm::EdDsa), Some(1), "{other}");
        }
        let fitting = with(r#""use":"sig","alg":"EdDSA","key_ops":["verify"],"kid":"a","unknown":[1]"#);
        assert_eq!(count(&[&fitting, ED], Algorithm::EdDsa), Some(2));
        assert_eq!(count(&vec![ED; KEYS_MAX + 1], Algorithm::EdDsa), None);
        assert!(keys_of(b"[]", Algorithm::EdDsa).is_err() && keys_of(b"<html>", Algorithm::EdDsa).is_err());
    }

    #[test]
    fn a_set_comes_from_where_nobody_can_change_it_on_its_way() {
        for good in [
            "https://id.example/keys",
            "http://127.0.0.1:1/k",
            "http://localhost/k",
            "http://[::1]:9/",
            "keys.json",
            "/etc/k",
        ] {
            assert_eq!(JwksPlace::parse(good).unwrap().to_string(), good);
        }
        let with_query = JwksPlace::parse("https://id.example/keys?key=abc").unwrap();
        assert_eq!(with_query.to_string(), "https://id.example/keys", "as logs have it");
        for bad in [
            "",
            "http://id.example/keys",
            "http://localhost.evil.example/",
            "ftp://x/",
            "https://",
            "https://a@b/",
            "file:///etc/k",
        ] {
            assert!(JwksPlace::parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_file_is_a_set_too_and_an_outage_keeps_what_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        std::fs::write(&path, format!(r#"{{"keys":[{}]}}"#, with(r#""kid":"a""#))).unwrap();
        let hour = Duration::from_secs(3_600);
        let set = JwkSet::new(JwksPlace::File(path.clone()), Algorithm::EdDsa, hour, None);
        assert!(set.candidates(Some("a")).is_empty());
        set.ask(Some("a")).await;
        assert_eq!(
            (set.candidates(Some("a")).len(), set.candidates(Some("b")).len(), set.changes()),
            (1, 0, 1)
        );
        std::fs::remove_file(&path).unwrap();
        set.ask(Some("b")).await;
        assert_eq!((set.candidates(None).len(), set.changes()), (1, 1), "what is known stays");
        // a configuration that is read again keeps them too
        let next = JwkSet::new(JwksPlace::File(path.clone()), Algorithm::EdDsa, hour, Some(&set));
        assert_eq!(next.candidates(Some("a")).len(), 1);
        let other = JwkSet::new(JwksPlace::File(path), Algorithm::Es256, hour, Some(&set));
        assert!(other.keys().is_empty());
    }

    #[tokio::test]
    async fn who_looks_after_a_set_ends_with_it() {
        let place = JwksPlace::File("/nowhere/at/all".into());
        let set = Arc::new(JwkSet::new(place, Algorithm::EdDsa, Duration::from_secs(86_400), None));
        let kept = tokio::spawn(JwkSet::keep(Arc::downgrade(&set), CancellationToken::new()));
        while set.fetches.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        drop(set);
        // else it would sleep until the set is old
        tokio::time::timeout(Duration::from_secs(60), kept).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn unknown_names_have_the_set_fetched_at_a_bounded_rate() {
        let place = JwksPlace::File("/nowhere/at/all".into());
        let set = JwkSet::new(place, Algorithm::EdDsa, Duration::from_secs(3_600), None);
        for n in 0..100 {
            set.ask(Some(&format!("kid-{n}"))).await;
        }
        assert_eq!(set.fetches.load(Relaxed), u64::from(ASKED_BURST.get()));
    }
}
