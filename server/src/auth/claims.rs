//! What a token claims (RFC 7519), and what it must.

use super::{Why, tame};
use jiff::{SignedDuration, Timestamp};
use minium_protocol::{Scope, Scopes};
use serde::Deserialize;
use std::time::Duration;

/// Scopes in one token; more are not looked at.
const SCOPES_MAX: usize = 256;
/// A subject is for logs and lists.
const SUBJECT_CHARS_MAX: usize = 128;

/// One text or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Texts {
    fn iter(&self) -> impl Iterator<Item = &str> {
        let all = match self {
            Texts::One(text) => std::slice::from_ref(text),
            Texts::Many(texts) => texts.as_slice(),
        };
        all.iter().map(String::as_str)
    }
}

/// The claims that mean something here. A member that stands twice, or has the wrong kind, makes the token none.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Claims {
    sub: Option<String>,
    iss: Option<String>,
    aud: Option<Texts>,
    exp: Option<serde_json::Number>,
    nbf: Option<serde_json::Number>,
    scope: Option<Texts>,
    scopes: Option<Texts>,
}

/// What every token must claim.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClaimRules {
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) leeway: Duration,
}

impl Claims {
    /// Reads a payload.
    pub(crate) fn parse(payload: &[u8]) -> Result<Claims, Why> {
        serde_json::from_slice(payload).map_err(|_| Why::Json("payload"))
    }

    /// Whom it names.
    pub(crate) fn subject(&self) -> Option<String> {
        self.sub.as_deref().filter(|s| !s.is_empty()).map(|s| tame(s, SUBJECT_CHARS_MAX))
    }

    /// When it ends.
    pub(crate) fn expires(&self) -> Result<Timestamp, Why> {
        time(self.exp.as_ref().ok_or(Why::NoExpiry)?, "exp")
    }

    /// When it begins.
    pub(crate) fn begins(&self) -> Result<Option<Timestamp>, Why> {
        self.nbf.as_ref().map(|n| time(n, "nbf")).transpose()
    }

    /// What it grants. Scopes that mean something to somebody else grant nothing here.
    pub(crate) fn scopes(&self) -> Scopes {
        let texts = [&self.scope, &self.scopes].into_iter().flatten().flat_map(Texts::iter);
        let words = texts.flat_map(str::split_ascii_whitespace).take(SCOPES_MAX);
        words.filter_map(|word| word.parse::<Scope>().ok()).collect()
    }

    /// Scopes that mean nothing here, for whoever inspects the token.
    pub(crate) fn foreign_scopes(&self) -> Vec<String> {
        let texts = [&self.scope, &self.scopes].into_iter().flatten().flat_map(Texts::iter);
        let words = texts.flat_map(str::split_ascii_whitespace).take(SCOPES_MAX);
        words.filter(|word| word.parse::<Scope>().is_err()).map(|word| tame(word, 80)).collect()
    }

    /// Is it good now?
    pub(crate) fn check(&self, rules: &ClaimRules, now: Timestamp) -> Result<(), Why> {
        let leeway = SignedDuration::try_from(rules.leeway).unwrap_or_default();
        let expires = self.expires()?;
        if now >= expires.saturating_add(leeway).unwrap_or(expires) {
            return Err(Why::Expired);
        }
        if let Some(begins) = self.begins()?
            && now.saturating_add(leeway).unwrap_or(now) < begins
        {
            return Err(Why::NotYet);
        }
        if rules.issuer.is_some() && self.iss != rules.issuer {
            return Err(Why::Issuer);
        }
        match &rules.audience {
            Some(wanted) if !self.aud.iter().flat_map(Texts::iter).any(|a| a == wanted) => Err(Why::Audience),
            _ => Ok(()),
        }
    }
}

/// Seconds since 1970, whole ones.
fn time(number: &serde_json::Number, name: &'static str) -> Result<Timestamp, Why> {
    let seconds = number.as_i64().or_else(|| {
        // RFC 7519 allows fractions; what is no time at all is refused below
        number.as_f64().filter(|f| f.abs() < 1e12).map(|f| f.floor() as i64)
    });
    seconds.and_then(|s| Timestamp::from_second(s).ok()).ok_or(Why::Time(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    fn judged(claims: &str, rules: &ClaimRules) -> Result<(), Why> {
        Claims::parse(claims.as_bytes())?.check(rules, Timestamp::from_second(NOW).unwrap())
    }

    /// A-2.
    #[test]
    fn times_are_checked_to_the_second() {
        let rules = ClaimRules::default();
        let lenient = ClaimRules { leeway: Duration::from_secs(10), ..ClaimRules::default() };
        for (claims, strict, patient) in [
            ("{}", Err(Why::NoExpiry), Err(Why::NoExpiry)),
            (r#"{"exp":null}"#, Err(Why::NoExpiry), Err(Why::NoExpiry)),
            (r#"{"exp":1000001}"#, Ok(()), Ok(())),
            (r#"{"exp":1000000}"#, Err(Why::Expired), Ok(())),
            (r#"{"exp":1000000.9}"#, Err(Why::Expired), Ok(())),
            (r#"{"exp":999990}"#, Err(Why::Expired), Err(Why::Expired)),
            (r#"{"exp":-1}"#, Err(Why::Expired), Err(Why::Expired)),
            (r#"{"exp":1000001,"nbf":1000000}"#, Ok(()), Ok(())),
            (r#"{"exp":1000001,"nbf":1000001}"#, Err(Why::NotYet), Ok(())),
            (r#"{"exp":1000099,"nbf":1000011}"#, Err(Why::NotYet), Err(Why::NotYet)),
            (r#"{"exp":1e30}"#, Err(Why::Time("exp")), Err(Why::Time("exp"))),
            (r#"{"exp":"1000001"}"#, Err(Why::Json("payload")), Err(Why::Json("payload"))),
            (r#"{"exp":1,"exp":1000001}"#, Err(Why::Json("payload")), Err(Why::Json("payload"))),
            ("[]", Err(Why::Json("payload")), Err(Why::Json("payload"))),
        ] {
            assert_eq!(judged(claims, &rules), strict, "{claims}");
            assert_eq!(judged(claims, &lenient), patient, "{claims} with leeway");
        }
    }

    /// A-2.
    #[test]
    fn issuer_and_audience_are_asked_for_where_they_are_configured() {
        let rules =
            ClaimRules { issuer: Some("me".into()), audience: Some("you".into()), ..ClaimRules::default() };
        for (claims, verdict) in [
            (r#""iss":"me","aud":"you""#, Ok(())),
            (r#""iss":"me","aud":["them","you"]"#, Ok(())),
            (r#""iss":"me","aud":["them"]"#, Err(Why::Audience)),
            (r#""iss":"me","aud":[]"#, Err(Why::Audience)),
            (r#""iss":"me""#, Err(Why::Audience)),
            (r#""iss":"ME","aud":"you""#, Err(Why::Issuer)),
            (r#""aud":"you""#, Err(Why::Issuer)),
            (r#""iss":["me"],"aud":"you""#, Err(Why::Json("payload"))),
        ] {
            assert_eq!(judged(&format!(r#"{{"exp":2000000,{claims}}}"#), &rules), verdict, "{claims}");
        }
        assert_eq!(judged(r#"{"exp":2000000,"aud":"x","iss":"y"}"#, &ClaimRules::default()), Ok(()));
    }

    /// A-2.
    #[test]
    fn scopes_come_as_one_text_or_as_several() {
        let scopes = |claims: &str| {
            let claims = Claims::parse(claims.as_bytes()).unwrap();
            let scopes: Vec<_> = claims.scopes().iter().map(Scope::to_string).collect();
            (scopes.join(" "), claims.foreign_scopes().join(" "))
        };
        for (claims, ours, others) in [
            (r#"{"scope":"sub:a  pub:b openid"}"#, "sub:a pub:b", "openid"),
            (r#"{"scopes":["sub:a","pub:b"]}"#, "sub:a pub:b", ""),
            (r#"{"scope":["sub:a"],"scopes":"pub:b"}"#, "sub:a pub:b", ""),
            (r#"{"scope":"ADMIN admin:x"}"#, "", "ADMIN admin:x"),
            ("{}", "", ""),
        ] {
            assert_eq!(scopes(claims), (ours.into(), others.into()), "{claims}");
        }
    }

    #[test]
    fn a_subject_is_cut_and_tamed() {
        let claims = Claims::parse(br#"{"sub":"a\u001b[2Jb\n"}"#).unwrap();
        assert_eq!(claims.subject().unwrap(), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(Claims::parse(br#"{"sub":""}"#).unwrap().subject(), None);
    }
}
