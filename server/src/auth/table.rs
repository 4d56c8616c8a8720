//! From what a request brings to what it may do.

use super::claims::{ClaimRules, Claims};
use super::jwks::JwkSet;
use super::jws::Jws;
use super::key::{Algorithm, VerifyingKey};
use super::known::Known;
use super::{ClientIdentity, Why};
use jiff::{SignedDuration, Timestamp};
use minium_bus::{Allowance, Grant, Rate, Revoked};
use minium_protocol::{Scope, Scopes};
use ring::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Whom a grant of a client certificate names as its key.
const CERTIFICATE: &str = "certificate";

/// What a request brings along to show who asks.
#[derive(Debug)]
pub(crate) enum Presented {
    Nothing,
    Token(SecretString),
    /// Something that is no bearer token, or more than one.
    Unusable,
}

/// Where a key's material is.
pub(super) enum Source {
    Fixed(Arc<VerifyingKey>),
    Set(Arc<JwkSet>),
}

/// A key of the configuration.
pub(super) struct Key {
    pub(super) name: String,
    pub(super) algorithm: Algorithm,
    pub(super) source: Source,
}

impl Key {
    /// What may have signed a token that names `kid`.
    fn candidates(&self, kid: Option<&str>) -> Vec<Arc<VerifyingKey>> {
        match &self.source {
            Source::Fixed(key) => vec![key.clone()],
            Source::Set(set) => set.candidates(kid),
        }
    }

    fn all(&self) -> Vec<Arc<VerifyingKey>> {
        match &self.source {
            Source::Fixed(key) => vec![key.clone()],
            Source::Set(set) => set.keys(),
        }
    }
}

/// Who may do what, as the configuration says.
pub(crate) struct Table {
    /// Is anything asked of anybody?
    pub(super) guarded: bool,
    pub(super) keys: Vec<Key>,
    pub(super) rules: ClaimRules,
    pub(super) anonymous: Arc<Grant>,
    pub(super) certificates: BTreeMap<String, Arc<Grant>>,
    /// For each token.
    pub(super) rate: Option<Rate>,
    pub(super) known: Known,
}

impl Table {
    /// Everybody may do everything.
    pub(crate) fn open() -> Table {
        Table {
            guarded: false,
            keys: Vec::new(),
            rules: ClaimRules::default(),
            anonymous: anonymous(Scopes::default()),
            certificates: BTreeMap::new(),
            rate: None,
            known: Known::default(),
        }
    }

    /// Is anything asked of anybody?
    pub(crate) fn is_guarded(&self) -> bool {
        self.guarded
    }

    /// One key, and nothing asked of the claims but that they are good now; to look at tokens with.
    pub(crate) fn of_key(key: VerifyingKey) -> Table {
        let (name, algorithm) = ("the key given".to_owned(), key.algorithm());
        let source = Source::Fixed(Arc::new(key));
        Table { guarded: true, keys: vec![Key { name, algorithm, source }], ..Table::open() }
    }

    /// What a request may do; nothing where everybody may do everything. What is no good is refused, never taken for
    /// nothing.
    pub(crate) async fn admit(
        &self,
        presented: &Presented,
        identity: Option<&ClientIdentity>,
    ) -> Result<Option<Arc<Grant>>, Why> {
        if !self.guarded {
            return Ok(None);
        }
        match presented {
            Presented::Unusable => Err(Why::Presented),
            Presented::Token(token) => self.verify(token.expose_secret()).await.map(Some),
            Presented::Nothing => {
                let certified = identity.and_then(|id| self.certificates.get(&*id.name));
                Ok(Some(certified.unwrap_or(&self.anonymous).clone()))
            }
        }
    }

    /// What a token grants.
    async fn verify(&self, token: &str) -> Result<Arc<Grant>, Why> {
        let now = Timestamp::now();
        let generation = self.generation();
        let hash: [u8; 32] =
            digest(&SHA256, token.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes");
        if let Some(grant) = self.known.get(&hash, generation, now) {
            return Ok(grant);
        }
        let jws = Jws::parse(token)?;
        let (name, key) = self.signer(&jws).await?;
        let claims = Claims::parse(jws.payload())?;
        claims.check(&self.rules, now)?;
        let leeway = SignedDuration::try_from(self.rules.leeway).unwrap_or_default();
        let expires = claims.expires()?;
        let expires = expires.saturating_add(leeway).unwrap_or(expires);
        let left = || self.rate.map(|rate| Arc::new(Allowance::new(rate)));
        let grant = Arc::new(Grant {
            subject: claims.subject().unwrap_or_else(|| name.to_owned()),
            key: Some(self.id(name, &key)),
            scopes: claims.scopes(),
            expires: Some(expires),
            allowance: self.known.allowance(&hash).or_else(left),
        });
        self.known.put(hash, grant.clone(), expires, generation, now);
        Ok(grant)
    }

    /// The key that signed a token, and its name. Sets that may have got new keys are asked once.
    pub(crate) async fn signer(&self, jws: &Jws<'_>) -> Result<(&str, Arc<VerifyingKey>), Why> {
        let fitting: Vec<&Key> = self.keys.iter().filter(|k| k.algorithm.as_str() == jws.algorithm).collect();
        if fitting.is_empty() {
            return Err(Why::Algorithm(jws.algorithm.clone()));
        }
        if let Some(found) = vouching(&fitting, jws) {
            return Ok(found);
        }
        let mut asked = false;
        for key in &fitting {
            if let Source::Set(set) = &key.source {
                set.ask(jws.kid.as_deref()).await;
                asked = true;
            }
        }
        let found = if asked { vouching(&fitting, jws) } else { None };
        found.ok_or(Why::Signature)
    }

    /// What every token must claim.
    pub(crate) fn rules(&self) -> &ClaimRules {
        &self.rules
    }

    /// Has it any key?
    pub(crate) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The name of a key in grants. It tells keys apart that have the same name one after the other, and what was
    /// asked of the tokens that they signed.
    fn id(&self, name: &str, key: &VerifyingKey) -> String {
        let ClaimRules { issuer, audience, .. } = &self.rules;
        let asked = serde_json::json!([issuer, audience]).to_string();
        let hash = digest(&SHA256, &[key.digest().as_slice(), asked.as_bytes()].concat());
        let short: String = hash.as_ref()[..5].iter().map(|b| format!("{b:02x}")).collect();
        format!("{name}:{short}")
    }

    /// Goes up whenever a set's keys change.
    fn generation(&self) -> u64 {
        let changes = self.keys.iter().map(|key| match &key.source {
            Source::Fixed(_) => 0,
            Source::Set(set) => set.changes(),
        });
        changes.sum()
    }

    /// Does a grant hold, now that these rules do? Nothing is what was granted while everybody could do everything.
    pub(crate) fn judge(&self, grant: Option<&Grant>) -> Result<(), Revoked> {
        if !self.guarded {
            return Ok(());
        }
        let Some(grant) = grant else { return covered(&Scopes::all(), &self.anonymous) };
        match grant.key.as_deref() {
            None => covered(&grant.scopes, &self.anonymous),
            Some(CERTIFICATE) => {
                let now = self.certificates.get(&grant.subject).ok_or(Revoked::Unauthenticated)?;
                covered(&grant.scopes, now)
            }
            Some(id) => {
                let mut keys = self.keys.iter().flat_map(|k| k.all().into_iter().map(|v| (&k.name, v)));
                let counts = keys.any(|(name, key)| self.id(name, &key) == id);
                if counts { Ok(()) } else { Err(Revoked::Unauthenticated) }
            }
        }
    }

    /// Looks after the sets of keys.
    pub(crate) fn keep_sets(&self, tasks: &TaskTracker, closing: &CancellationToken) {
        for key in &self.keys {
            if let Source::Set(set) = &key.source {
                tasks.spawn(JwkSet::keep(Arc::downgrade(set), closing.clone()));
            }
        }
    }

    /// The set of a key, for the table that follows.
    pub(super) fn set(&self, name: &str) -> Option<&JwkSet> {
        self.keys.iter().find(|key| key.name == name).and_then(|key| match &key.source {
            Source::Set(set) => Some(&**set),
            Source::Fixed(_) => None,
        })
    }
}

/// The first key that vouches for the signature.
fn vouching<'k>(keys: &[&'k Key], jws: &Jws<'_>) -> Option<(&'k str, Arc<VerifyingKey>)> {
    keys.iter().find_map(|key| {
        let candidates = key.candidates(jws.kid.as_deref()).into_iter();
        let mut good =
            candidates.filter(|c| c.algorithm() == key.algorithm && c.verify(jws.signed, &jws.signature));
        good.next().map(|found| (key.name.as_str(), found))
    })
}

/// Is all still allowed that was? What is new comes with the next session.
fn covered(had: &Scopes, now: &Grant) -> Result<(), Revoked> {
    let now = &now.scopes;
    let whole = had.iter().all(|scope| match scope {
        Scope::On(verb, filter) => now.allow(*verb, filter),
        Scope::JobsRead => now.allow_jobs_read(),
        Scope::JobsWrite => now.allow_jobs_write(),
        Scope::Admin => now.allow_admin(),
    });
    if whole { Ok(()) } else { Err(Revoked::Changed) }
}

/// What whoever shows nothing may do.
pub(super) fn anonymous(scopes: Scopes) -> Arc<Grant> {
    Arc::new(Grant { subject: "anonymous".into(), key: None, scopes, expires: None, allowance: None })
}

/// What the holder of a certificate may do.
pub(super) fn certified(name: &str, scopes: Scopes) -> Arc<Grant> {
    let key = Some(CERTIFICATE.to_owned());
    Arc::new(Grant { subject: name.into(), key, scopes, expires: None, allowance: None })
}

#[cfg(test)]
mod tests;
