//! `minium token`: makes tokens, and looks at them. Neither needs a node.

use crate::auth::{Algorithm, Claims, Jws, SigningKey, Table, VerifyingKey, Why, build, read_secret};
use crate::config::{Config, Flags, load};
use crate::exit::{Exit, fault};
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use minium_protocol::{Scope, format_duration, parse_duration};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde_json::{Value, json};
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Nothing longer is read from a pipe.
const INPUT_BYTES_MAX: u64 = 64 << 10;

/// Subcommands of `minium token`.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token, and print it
    Mint(Mint),
    /// Show what a token claims, and whether a node with this configuration would take it
    Inspect(Inspect),
}

/// Arguments of `minium token mint`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  minium token mint --key ops --subject alice --scope 'sub:livesys/+' --scope jobs:read
  minium token mint --private-key image.pem --subject livesys/7 --scope pull:livesys/7 --expires 30d")]
pub(crate) struct Mint {
    /// A key of [auth.keys]: its secret, or with --private-key its name and its claims
    #[arg(long, value_name = "NAME", required_unless_present_any = ["secret_file", "private_key"])]
    key: Option<String>,
    /// Sign with this shared secret (HS256)
    #[arg(long, value_name = "FILE", conflicts_with = "private_key")]
    secret_file: Option<PathBuf>,
    /// Sign with this private key in PEM (Ed25519, P256 or RSA)
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    /// Whom the token is for
    #[arg(long, value_name = "NAME")]
    subject: String,
    /// What it allows, as sub:livesys/+ or jobs:read; may be given several times
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ' ')]
    scopes: Vec<Scope>,
    /// How long it is good, as 90s, 1h or 30d
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1h")]
    expires: Duration,
    /// Whom it is meant for; with --key what auth.audience says
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// Who made it; with --key what auth.issuer says
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Configuration file, as for serve
    #[arg(long, value_name = "FILE", env = "MINIUM_CONFIG", hide_env = true)]
    config: Option<PathBuf>,
}

/// Arguments of `minium token inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The token; - reads it from stdin, and without it MINIUM_TOKEN counts
    #[arg(value_name = "TOKEN")]
    token: Option<String>,
    /// Check it with this shared secret in place of the configuration's keys
    #[arg(long, value_name = "FILE", conflicts_with = "public_key")]
    secret_file: Option<PathBuf>,
    /// Check it with this public key in PEM in place of the configuration's keys
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Configuration file, as for serve
    #[arg(long, value_name = "FILE", env = "MINIUM_CONFIG", hide_env = true)]
    config: Option<PathBuf>,
}

impl Token {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Token::Mint(mint) => mint.run(),
            Token::Inspect(inspect) => inspect.run().await,
        }
    }
}

fn configured(file: Option<PathBuf>) -> anyhow::Result<Config> {
    Ok(load(&Flags { config: file, ..Flags::default() })?.config)
}

fn wrong(words: impl Into<String>) -> anyhow::Error {
    fault(Exit::Usage, words)
}

fn secret(path: &Path) -> anyhow::Result<SecretSlice<u8>> {
    read_secret(path).map_err(|error| wrong(format!("{} cannot be read: {error}", path.display())))
}

impl Mint {
    fn run(self) -> anyhow::Result<()> {
        let config = self.key.as_ref().map(|_| configured(self.config.clone())).transpose()?;
        let key = self.signing_key(config.as_ref())?;
        let now = Timestamp::now();
        let expires = SignedDuration::try_from(self.expires).ok().and_then(|d| now.checked_add(d).ok());
        let expires = expires.ok_or_else(|| wrong("--expires is too far away"))?;
        let scopes: Vec<String> = self.scopes.iter().map(Scope::to_string).collect();
        let auth = config.as_ref().map(|c| &c.auth);
        let mut claims = json!({
            "sub": self.subject,
            "iat": now.as_second(),
            "exp": expires.as_second(),
            "jti": uuid::Uuid::new_v4(),
            "scope": scopes.join(" "),
        });
        let issuer = self.issuer.or_else(|| auth.and_then(|a| a.issuer.clone()));
        let audience = self.audience.or_else(|| auth.and_then(|a| a.audience.clone()));
        for (name, value) in [("iss", issuer), ("aud", audience)] {
            if let Some(value) = value {
                claims[name] = value.into();
            }
        }
        let token = key.sign(self.key.as_deref(), &claims)?;
        writeln!(std::io::stdout(), "{token}")?;
        Ok(())
    }

    fn signing_key(&self, config: Option<&Config>) -> anyhow::Result<SigningKey> {
        let named = match (&self.key, config) {
            (Some(name), Some(config)) => {
                let known = || config.auth.keys.keys().cloned().collect::<Vec<_>>().join(", ");
                let words = || format!("there is no key {name:?} in [auth.keys]; there are: {}", known());
                Some(config.auth.keys.get(name).ok_or_else(|| wrong(words()))?)
            }
            _ => None,
        };
        let shared = self.secret_file.as_deref().or_else(|| named.and_then(|key| key.secret_file.as_deref()));
        let key = match (&self.private_key, shared) {
            (Some(path), _) => SigningKey::from_pem(secret(path)?.expose_secret())
                .map_err(|error| wrong(format!("{} {error}", path.display())))?,
            (None, Some(path)) => SigningKey::from_secret(secret(path)?.expose_secret())
                .map_err(|error| wrong(format!("{} {error}", path.display())))?,
            (None, None) => {
                return Err(wrong(
                    "the configuration knows only the public half of this key; say --private-key FILE",
                ));
            }
        };
        let wanted = named.and_then(|key| key.algorithm.as_deref()).and_then(Algorithm::named);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != key.algorithm()) {
            let have = key.algorithm().as_str();
            return Err(wrong(format!(
                "the key signs {have}, and the configuration says {}",
                wanted.as_str()
            )));
        }
        Ok(key)
    }
}

/// What a look at a token brought.
struct Look {
    algorithm: Option<String>,
    kid: Option<String>,
    payload: Option<Value>,
    claims: Option<Claims>,
    key: Option<String>,
    /// Nothing: no key was there to check it with.
    verdict: Option<Result<(), Why>>,
}

impl Inspect {
    async fn run(self) -> anyhow::Result<()> {
        let table = self.table()?;
        let token = self.token()?;
        let look = look(token.expose_secret().trim(), &table).await;
        let text = if self.json { format!("{}\n", look.json()) } else { look.text(Timestamp::now()) };
        std::io::stdout().write_all(text.as_bytes())?;
        match look.verdict {
            Some(Err(why)) => Err(fault(Exit::NotAllowed, format!("The token is not valid: {why}"))),
            Some(Ok(())) | None => Ok(()),
        }
    }

    fn table(&self) -> anyhow::Result<Table> {
        let from = |path: &PathBuf, read: &dyn Fn(&[u8]) -> Option<VerifyingKey>| {
            let bytes = secret(path)?;
            let key = read(bytes.expose_secret())
                .ok_or_else(|| wrong(format!("{} is no such key", path.display())))?;
            Ok(Table::of_key(key))
        };
        match (&self.secret_file, &self.public_key) {
            (Some(path), _) => from(path, &|bytes| VerifyingKey::from_secret(bytes).ok()),
            (_, Some(path)) => from(path, &|bytes| {
                let kinds = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256];
                kinds.into_iter().find_map(|kind| VerifyingKey::from_pem(kind, bytes).ok())
            }),
            (None, None) => {
                build(&configured(self.config.clone())?, None).map_err(|faults| wrong(faults.join("; ")))
            }
        }
    }

    fn token(&self) -> anyhow::Result<SecretString> {
        let named = self.token.clone().filter(|token| token != "-");
        let set = std::env::var("MINIUM_TOKEN").ok().filter(|_| self.token.is_none());
        if let Some(token) = named.or(set) {
            return Ok(token.into());
        }
        if self.token.is_none() && std::io::stdin().is_terminal() {
            return Err(wrong("no token: say TOKEN, - for stdin, or set MINIUM_TOKEN"));
        }
        let mut text = String::new();
        std::io::stdin().lock().take(INPUT_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text.into())
    }
}

async fn look(token: &str, table: &Table) -> Look {
    let mut look = Look { algorithm: None, kid: None, payload: None, claims: None, key: None, verdict: None };
    let jws = match Jws::parse(token) {
        Ok(jws) => jws,
        Err(why) => return Look { verdict: Some(Err(why)), ..look },
    };
    look.algorithm = Some(jws.algorithm.clone());
    look.kid = jws.kid.clone();
    look.payload = serde_json::from_slice(jws.payload()).ok();
    let claims = Claims::parse(jws.payload());
    look.claims = claims.as_ref().ok().cloned();
    let good = claims.and_then(|claims| claims.check(table.rules(), Timestamp::now()));
    if table.has_keys() {
        let signer = table.signer(&jws).await.map(|(name, _)| name.to_owned());
        look.key = signer.as_ref().ok().cloned();
        look.verdict = Some(signer.and(good));
    } else {
        look.verdict = good.err().map(Err);
    }
    look
}

impl Look {
    fn words(&self) -> String {
        match &self.verdict {
            Some(Ok(())) => "valid".into(),
            Some(Err(why)) => format!("not valid: {why}"),
            None => "not checked: there is no key to check it with".into(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "algorithm": self.algorithm,
            "kid": self.kid,
            "claims": self.payload,
            "key": self.key,
            "valid": self.verdict.as_ref().map(Result::is_ok),
            "verdict": self.words(),
        })
    }

    fn text(&self, now: Timestamp) -> String {
        let payload = self.payload.as_ref();
        let word = |name: &str| payload.and_then(|p| p.get(name)).filter(|v| !v.is_null()).map(plain);
        let time = |name: &str| {
            let second = payload.and_then(|p| p.get(name)).and_then(Value::as_f64)?;
            Some(moment(Timestamp::from_second(second as i64).ok()?, now))
        };
        let scopes = |list: Vec<String>| Some(list.join(" ")).filter(|text| !text.is_empty());
        let ours = self.claims.as_ref().map(|c| c.scopes().iter().map(Scope::to_string).collect());
        let rows = [
            ("verdict", Some(self.words())),
            ("key", self.key.clone()),
            ("algorithm", self.algorithm.clone()),
            ("kid", self.kid.as_deref().map(|kid| plain(&kid.into()))),
            ("subject", word("sub")),
            ("scopes", ours.and_then(scopes)),
            ("ignored", self.claims.as_ref().map(Claims::foreign_scopes).and_then(scopes)),
            ("issuer", word("iss")),
            ("audience", word("aud")),
            ("issued", time("iat")),
            ("begins", time("nbf")),
            ("expires", time("exp")),
        ];
        let shown = rows.into_iter().filter_map(|(name, value)| Some((name, value?)));
        shown.map(|(name, value)| format!("{name:<10} {value}\n")).collect()
    }
}

/// A claim on one line. JSON escapes what would move the cursor.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if !text.chars().any(char::is_control) => text.clone(),
        other => other.to_string(),
    }
}

/// A time, and how far it is away.
fn moment(at: Timestamp, now: Timestamp) -> String {
    let away = at.duration_since(now);
    let seconds = away.as_secs().unsigned_abs();
    // two days and an hour are two days
    let unit = [86_400, 3_600, 60].into_iter().find(|unit| seconds >= 2 * unit).unwrap_or(1);
    let about = format_duration(Duration::from_secs(seconds / unit * unit));
    let about = if seconds == 0 { "0s".to_owned() } else { about };
    if away.is_negative() { format!("{at}, {about} ago") } else { format!("{at}, in {about}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_tells_how_far_it_is_away() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (second, told) in [
            (1_000_000, "in 0s"),
            (1_000_059, "in 59s"),
            (1_003_599, "in 59m"),
            (1_000_000 + 26 * 3_600, "in 26h"),
            (1_000_000 + 30 * 86_400 + 5, "in 30d"),
            (999_000, "16m ago"),
        ] {
            let text = moment(Timestamp::from_second(second).unwrap(), now);
            assert!(text.ends_with(&format!(", {told}")), "{text}");
        }
    }

    #[tokio::test]
    async fn a_look_never_fails_and_says_what_is_wrong() {
        let table = Table::open();
        let key = SigningKey::from_secret(&[7; 32]).unwrap();
        let claims = json!({ "sub": "a\u{1b}[2J", "scope": "sub:a openid", "exp": Timestamp::now().as_second() + 3_600 });
        let token = key.sign(Some("k"), &claims).unwrap();
        let unchecked = look(&token, &table).await;
        assert!(unchecked.verdict.is_none());
        let text = unchecked.text(Timestamp::now());
        assert!(text.contains("not checked") && text.contains("scopes     sub:a\n"), "{text}");
        assert!(text.contains("ignored    openid\n") && !text.contains('\u{1b}'), "{text}");

        let checked = look(&token, &Table::of_key(VerifyingKey::from_secret(&[7; 32]).unwrap())).await;
        assert_eq!(checked.verdict, Some(Ok(())));
        assert_eq!(checked.json()["valid"], true);
        let other = look(&token, &Table::of_key(VerifyingKey::from_secret(&[8; 32]).unwrap())).await;
        assert_eq!(other.verdict, Some(Err(Why::Signature)));
        let broken = look("a.b", &table).await;
        assert_eq!(
            (broken.verdict.clone(), broken.json()["claims"].clone()),
            (Some(Err(Why::Shape)), Value::Null)
        );
    }
}
