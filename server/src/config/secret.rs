//! Secrets that stand in the configuration itself: kept so that no log shows them, and masked where it is printed.

use super::value::Value;
use secrecy::{ExposeSecret, SecretString};

/// What is shown in place of a secret.
const MASK: &str = "***";

/// Several secrets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets(Vec<SecretString>);

impl Secrets {
    /// Each of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(ExposeSecret::expose_secret)
    }

    /// Was none said?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Value for Secrets {
    const ALLOWED: &'static str = Vec::<String>::ALLOWED;
    fn from_text(text: &str) -> Option<Secrets> {
        let all = Vec::<String>::from_text(text)?;
        Some(Secrets(all.into_iter().map(SecretString::from).collect()))
    }
    fn from_toml(value: &toml::Value) -> Option<Secrets> {
        // one that is no list is taken, too: the words about what is no list would show it
        let all = match value {
            toml::Value::String(one) => vec![one.clone()],
            other => Vec::<String>::from_toml(other)?,
        };
        Some(Secrets(all.into_iter().map(SecretString::from).collect()))
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some(vec![MASK; self.0.len()].into()).filter(|_| !self.0.is_empty())
    }
}

/// One secret.
#[derive(Debug, Clone)]
pub(crate) struct Secret(pub(crate) SecretString);

impl Value for Secret {
    const ALLOWED: &'static str = String::ALLOWED;
    fn from_text(text: &str) -> Option<Secret> {
        Some(Secret(SecretString::from(text)))
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some(MASK.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_read_and_never_shown() {
        let secrets = Secrets::from_text("one, two").unwrap();
        assert_eq!(secrets.iter().collect::<Vec<_>>(), ["one", "two"]);
        let shown = format!("{:?} {:?}", secrets.to_toml(), secrets);
        assert!(!shown.contains("one") && !shown.contains("two"), "{shown}");
        let single = Secrets::from_toml(&"three, four".into()).unwrap();
        assert_eq!(single.iter().collect::<Vec<_>>(), ["three, four"]);
        let one = Secret::from_text("tok").unwrap();
        assert!(!format!("{one:?} {:?}", one.to_toml()).contains("tok"));
    }
}
