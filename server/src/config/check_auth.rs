//! What one key of `[auth]` alone cannot say: which of them go together, and what they mean.

use super::check::Findings;
use super::section::path_of;
use super::{AuthKey, Config};
use crate::auth::{Algorithm, JwksPlace};
use crate::http::origin::OriginPattern;
use minium_protocol::Scope;
use std::time::Duration;

/// Clocks that are further apart want mending, not patience.
const LEEWAY_MAX: Duration = Duration::from_secs(300);
/// Each token is tried with each key of its algorithm.
const KEYS_MAX: usize = 64;

/// Looks at `[auth]` and at the rates.
pub(super) fn check(config: &Config, findings: &mut Findings<'_>) {
    let auth = &config.auth;
    for pattern in &auth.allowed_origins {
        if let Err(why) = pattern.parse::<OriginPattern>() {
            findings.add("auth.allowed_origins".into(), why);
        }
    }
    if auth.leeway > LEEWAY_MAX {
        findings.add("auth.leeway".into(), "must be 5m at most");
    }
    if auth.keys.len() > KEYS_MAX {
        findings.add("auth.keys".into(), format!("has {} keys, more than {KEYS_MAX}", auth.keys.len()));
    }
    for (name, key) in &auth.keys {
        check_key(name, key, findings);
    }
    if let Some(scopes) = &auth.anonymous.scopes {
        check_scopes("auth.anonymous.scopes", scopes, findings);
    }
    for (name, certificate) in &auth.certificates {
        let path = path_of(&["auth", "certificates", name]);
        if name.is_empty() {
            findings.add(path.clone(), "must be the name in the certificate");
        }
        check_scopes(&format!("{path}.scopes"), &certificate.scopes, findings);
    }
    let limits = &config.server.limits;
    let rates = [
        ("auth.limits.messages", auth.limits.messages_per_second, auth.limits.messages_burst),
        ("server.limits.session_messages", limits.session_messages_per_second, limits.session_messages_burst),
        ("server.limits.openings", limits.openings_per_second, limits.openings_burst),
    ];
    for (path, per_second, burst) in rates {
        check_rate(path, per_second, burst, findings);
    }
}

fn check_rate(path: &str, per_second: Option<u32>, burst: Option<u32>, findings: &mut Findings<'_>) {
    if per_second == Some(0) {
        findings.add(format!("{path}_per_second"), "must be 1 or more; leave it out for no bound");
    }
    match burst {
        Some(0) => findings.add(format!("{path}_burst"), "must be 1 or more"),
        Some(_) if per_second.is_none() => {
            findings.add(format!("{path}_burst"), format!("means nothing without {path}_per_second"));
        }
        _ => {}
    }
}

fn check_scopes(path: &str, scopes: &[String], findings: &mut Findings<'_>) {
    let wrong: Vec<_> =
        scopes.iter().filter_map(|s| s.parse::<Scope>().err()).map(|e| e.to_string()).collect();
    if !wrong.is_empty() {
        findings.add(path.into(), wrong.join("; "));
    }
}

fn check_key(name: &str, key: &AuthKey, findings: &mut Findings<'_>) {
    let path = |member: &str| path_of(&["auth", "keys", name, member]);
    let good = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(good) {
        let what = "the name of a key must be 1 to 64 of the characters A-Z a-z 0-9 _ - .";
        findings.add(path_of(&["auth", "keys", name]), what);
    }
    let Some(text) = &key.algorithm else {
        findings.add(path("algorithm"), "is missing; it must be EdDSA, ES256, RS256 or HS256");
        return;
    };
    let Some(algorithm) = Algorithm::named(text) else {
        findings.add(path("algorithm"), format!("{text:?} must be EdDSA, ES256, RS256 or HS256"));
        return;
    };
    let public = [("public_key_file", key.public_key_file.is_some()), ("jwks", key.jwks.is_some())];
    if algorithm == Algorithm::Hs256 {
        if key.secret_file.is_none() {
            findings.add(path("secret_file"), "is missing; HS256 needs a shared secret");
        }
        for (member, _) in public.iter().filter(|(_, there)| *there) {
            findings.add(path(member), "does not go with HS256, whose secret is in secret_file");
        }
    } else {
        if key.secret_file.is_some() {
            findings.add(path("secret_file"), format!("does not go with {text}, which has public keys"));
        }
        match public.map(|(_, there)| there) {
            [false, false] => findings.add(path("public_key_file"), "is missing; or say jwks"),
            [true, true] => findings.add(path("jwks"), "excludes public_key_file"),
            _ => {}
        }
    }
    if let Some(Err(why)) = key.jwks.as_deref().map(JwksPlace::parse) {
        findings.add(path("jwks"), why);
    }
    if key.jwks_max_age < Duration::from_secs(10) || key.jwks_max_age > Duration::from_secs(86_400) {
        findings.add(path("jwks_max_age"), "must be 10s to 1d");
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::from_text;

    fn wrong(text: &str) -> String {
        from_text(text).unwrap_err().iter().map(|m| format!("{m}\n")).collect()
    }

    #[test]
    fn each_key_has_one_algorithm_and_what_goes_with_it() {
        for (members, told) in [
            ("secret_file = \"s\"", "auth.keys.k.algorithm: is missing"),
            ("algorithm = \"none\"", "\"none\" must be EdDSA, ES256, RS256 or HS256"),
            ("algorithm = \"hs256\"\nsecret_file = \"s\"", "\"hs256\" must be EdDSA"),
            ("algorithm = \"HS256\"", "auth.keys.k.secret_file: is missing"),
            (
                "algorithm = \"HS256\"\nsecret_file = \"s\"\npublic_key_file = \"p\"",
                "auth.keys.k.public_key_file: does not go with HS256",
            ),
            (
                "algorithm = \"HS256\"\nsecret_file = \"s\"\njwks = \"j\"",
                "auth.keys.k.jwks: does not go with",
            ),
            ("algorithm = \"RS256\"\nsecret_file = \"s\"", "auth.keys.k.secret_file: does not go with RS256"),
            ("algorithm = \"EdDSA\"", "auth.keys.k.public_key_file: is missing"),
            ("algorithm = \"EdDSA\"\npublic_key_file = \"p\"\njwks = \"j\"", "excludes public_key_file"),
            ("algorithm = \"ES256\"\njwks = \"http://example.com/keys\"", "auth.keys.k.jwks: "),
            ("algorithm = \"ES256\"\njwks = \"https://me:pw@example.com/keys\"", "auth.keys.k.jwks: "),
            ("algorithm = \"ES256\"\njwks = \"j\"\njwks_max_age = \"1s\"", "must be 10s to 1d"),
            ("algorithm = \"HS256\"\nsecret = \"inline\"", "there is no such key"),
        ] {
            let told_of = wrong(&format!("[auth.keys.k]\n{members}"));
            assert!(told_of.contains(told), "{members}: {told_of}");
        }
        assert!(
            wrong("[auth.keys.\"a b\"]\nalgorithm = \"HS256\"\nsecret_file = \"s\"").contains("the name")
        );
    }

    #[test]
    fn scopes_origins_and_rates_are_read_at_start() {
        assert!(wrong("[auth]\nallowed_origins = [\"*\"]").contains("auth.allowed_origins: "));
        assert!(wrong("[auth]\nleeway = \"1h\"").contains("auth.leeway: must be 5m at most"));
        let told = wrong("[auth.anonymous]\nscopes = [\"sub:a//b\", \"all\", \"sub:public\"]");
        assert!(told.contains("a//b") && told.contains("\"all\" is no scope"), "{told}");
        let told = wrong("[auth.certificates.\"image 7\"]\nscopes = [\"pull\"]");
        assert!(told.starts_with("auth.certificates.\"image 7\".scopes: "), "{told}");
        assert!(wrong("[auth.limits]\nmessages_per_second = 0").contains("must be 1 or more"));
        assert!(wrong("[server.limits]\nopenings_burst = 5").contains("means nothing without"));
    }

    #[test]
    fn a_node_is_guarded_by_keys_certificates_or_a_list_for_everybody() {
        let guarded = |text: &str| from_text(text).unwrap().is_guarded();
        assert!(!guarded("") && !guarded("[auth]\nallowed_origins = [\"example.com\"]"));
        assert!(guarded("[auth.anonymous]\nscopes = []") && guarded("[auth.certificates.x]\nscopes = []"));
        assert!(guarded("[auth.keys.ops]\nalgorithm = \"HS256\"\nsecret_file = \"ops.key\""));
    }
}
