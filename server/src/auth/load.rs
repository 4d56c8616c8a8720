//! The table out of the configuration and the files that it names.

use super::claims::ClaimRules;
use super::jwks::{JwkSet, JwksPlace};
use super::key::{Algorithm, KeyError, VerifyingKey};
use super::known::Known;
use super::table::{Key, Source, Table, anonymous, certified};
use crate::config::{AuthKey, Config, rate};
use minium_protocol::Scopes;
use secrecy::{ExposeSecret, SecretSlice};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tracing::warn;

/// No key is longer.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Reads the files; `old` is the table before, whose sets of keys are kept. All that is wrong is told at once.
pub(crate) fn build(config: &Config, old: Option<&Table>) -> Result<Table, Vec<String>> {
    if !config.is_guarded() {
        return Ok(Table::open());
    }
    let auth = &config.auth;
    let (mut keys, mut wrong) = (Vec::new(), Vec::new());
    for (name, key) in &auth.keys {
        match self::key(name, key, old) {
            Ok(key) => keys.push(key),
            Err(what) => wrong.push(format!("auth.keys.{name}: {what}")),
        }
        if key.jwks.is_some() && auth.audience.is_none() {
            warn!(
                key = name,
                "Tokens for any audience are taken; say auth.audience where the issuer serves others too."
            );
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let granted = |scopes: &[String]| -> Scopes { scopes.iter().filter_map(|s| s.parse().ok()).collect() };
    let certificates = auth
        .certificates
        .iter()
        .map(|(name, c)| (name.clone(), certified(name, granted(&c.scopes))))
        .collect();
    Ok(Table {
        guarded: true,
        keys,
        rules: ClaimRules {
            issuer: auth.issuer.clone(),
            audience: auth.audience.clone(),
            leeway: auth.leeway,
        },
        anonymous: anonymous(granted(auth.anonymous.scopes.as_deref().unwrap_or_default())),
        certificates,
        rate: rate(auth.limits.messages_per_second, auth.limits.messages_burst),
        known: Known::default(),
    })
}

fn key(name: &str, key: &AuthKey, old: Option<&Table>) -> Result<Key, String> {
    // what is missing was refused when the configuration was read
    let algorithm = key.algorithm.as_deref().and_then(Algorithm::named).ok_or("its algorithm is missing")?;
    let fixed = |path: &Path, read: &dyn Fn(&[u8]) -> Result<VerifyingKey, KeyError>| {
        let bytes = read_secret(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
        let key = read(bytes.expose_secret()).map_err(|e| format!("{} {e}", path.display()))?;
        Ok::<_, String>(Source::Fixed(Arc::new(key)))
    };
    let source = match (&key.secret_file, &key.public_key_file, &key.jwks) {
        (Some(path), _, _) => {
            mind_permissions(name, path);
            fixed(path, &VerifyingKey::from_secret)?
        }
        (_, Some(path), _) => fixed(path, &|pem| VerifyingKey::from_pem(algorithm, pem))?,
        (_, _, Some(place)) => {
            let set = JwkSet::new(
                JwksPlace::parse(place)?,
                algorithm,
                key.jwks_max_age,
                old.and_then(|o| o.set(name)),
            );
            Source::Set(Arc::new(set))
        }
        (None, None, None) => return Err("it has no file".into()),
    };
    Ok(Key { name: name.to_owned(), algorithm, source })
}

/// A file that holds a key, without the whitespace around it.
pub(crate) fn read_secret(path: &Path) -> io::Result<SecretSlice<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    let whole = SecretSlice::from(bytes);
    if whole.expose_secret().len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(SecretSlice::from(whole.expose_secret().trim_ascii().to_vec()))
}

fn mind_permissions(name: &str, path: &Path) {
    let mode = std::fs::metadata(path).map_or(0, |m| m.permissions().mode());
    if mode & 0o004 != 0 {
        warn!(key = name, file = %path.display(), "Everybody on this machine can read the secret; chmod o-r it.");
    }
}
