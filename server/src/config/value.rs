//! The kinds of values that a configuration key can have, each with the words that say what is allowed.
//!
//! A value comes from TOML, or as text from the environment and from flags. Defaults are text too, so that the
//! reference shows them as one would write them.

use minium_bus::Slow;
use minium_protocol::{Missed, Topic, format_duration, parse_bytes, parse_duration};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// A kind of value.
pub(crate) trait Value: Sized {
    /// What is allowed, in words that go after "must be".
    const ALLOWED: &'static str;

    /// From text: the environment, a flag or a default.
    fn from_text(text: &str) -> Option<Self>;

    /// From the file. Most kinds are strings there.
    fn from_toml(value: &toml::Value) -> Option<Self> {
        Self::from_text(value.as_str()?)
    }

    /// As it would stand in the file; `None` if it would be left out.
    fn to_toml(&self) -> Option<toml::Value>;
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl Size {
    /// As memory is counted.
    pub(crate) fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Value for Size {
    const ALLOWED: &'static str = "a size, as in 65536 or \"256KiB\"";
    fn from_text(text: &str) -> Option<Size> {
        parse_bytes(text).ok().map(Size)
    }
    fn from_toml(value: &toml::Value) -> Option<Size> {
        match value {
            toml::Value::Integer(n) => u64::try_from(*n).ok().map(Size),
            other => Size::from_text(other.as_str()?),
        }
    }
    fn to_toml(&self) -> Option<toml::Value> {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let unit = units.iter().find(|(shift, _)| self.0 > 0 && self.0.trailing_zeros() >= *shift);
        Some(match unit {
            Some((shift, name)) => format!("{}{name}", self.0 >> shift).into(),
            None => toml::Value::Integer(i64::try_from(self.0).unwrap_or(i64::MAX)),
        })
    }
}

impl Value for Duration {
    const ALLOWED: &'static str = "a duration, as in 90, \"90s\", \"5m\" or \"30d\"";
    fn from_text(text: &str) -> Option<Duration> {
        parse_duration(text).ok()
    }
    fn from_toml(value: &toml::Value) -> Option<Duration> {
        match value {
            toml::Value::Integer(n) => parse_duration(&n.to_string()).ok(),
            toml::Value::Float(n) => parse_duration(&n.to_string()).ok(),
            other => Duration::from_text(other.as_str()?),
        }
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some(format_duration(*self).into())
    }
}

impl Value for bool {
    const ALLOWED: &'static str = "true or false";
    fn from_text(text: &str) -> Option<bool> {
        text.parse().ok()
    }
    fn from_toml(value: &toml::Value) -> Option<bool> {
        value.as_bool()
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some((*self).into())
    }
}

impl Value for u32 {
    const ALLOWED: &'static str = "a whole number from 0 to 4294967295";
    fn from_text(text: &str) -> Option<u32> {
        text.parse().ok()
    }
    fn from_toml(value: &toml::Value) -> Option<u32> {
        u32::try_from(value.as_integer()?).ok()
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some(i64::from(*self).into())
    }
}

impl Value for i32 {
    const ALLOWED: &'static str = "a whole number";
    fn from_text(text: &str) -> Option<i32> {
        text.parse().ok()
    }
    fn from_toml(value: &toml::Value) -> Option<i32> {
        i32::try_from(value.as_integer()?).ok()
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some(i64::from(*self).into())
    }
}

impl Value for String {
    const ALLOWED: &'static str = "a text";
    fn from_text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some(self.clone().into())
    }
}

impl Value for PathBuf {
    const ALLOWED: &'static str = "a path";
    fn from_text(text: &str) -> Option<PathBuf> {
        (!text.is_empty()).then(|| text.into())
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some(self.display().to_string().into())
    }
}

/// What happens to a subscriber that falls behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlowPolicy(pub(crate) Slow);

const SLOW: [(&str, Slow); 3] = [("replay", Slow::Replay), ("close", Slow::Close), ("gap", Slow::Gap)];

impl Value for SlowPolicy {
    const ALLOWED: &'static str = "\"replay\", \"close\" or \"gap\"";
    fn from_text(text: &str) -> Option<SlowPolicy> {
        SLOW.iter().find(|(word, _)| *word == text).map(|(_, slow)| SlowPolicy(*slow))
    }
    fn to_toml(&self) -> Option<toml::Value> {
        SLOW.iter().find(|(_, slow)| *slow == self.0).map(|(word, _)| (*word).into())
    }
}

impl Value for Missed {
    const ALLOWED: &'static str = "\"fold\" or \"all\"";
    fn from_text(text: &str) -> Option<Missed> {
        text.parse().ok()
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some(self.as_str().into())
    }
}

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) SocketAddr);

impl Value for Listen {
    const ALLOWED: &'static str =
        "an address with a port, as in \"127.0.0.1:3000\", \"[::1]:3000\" or \"localhost:3000\"";
    fn from_text(text: &str) -> Option<Listen> {
        let named = |port: &str| Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?));
        text.parse().ok().or_else(|| named(text.strip_prefix("localhost:")?)).map(Listen)
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some(self.0.to_string().into())
    }
}

/// An absolute URL without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseUrl(pub(crate) String);

impl Value for BaseUrl {
    const ALLOWED: &'static str = "a URL that begins with http:// or https://";
    fn from_text(text: &str) -> Option<BaseUrl> {
        let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
        let good = !host.is_empty() && !host.starts_with('/') && !host.contains(char::is_whitespace);
        good.then(|| BaseUrl(text.trim_end_matches('/').to_owned()))
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some(self.0.clone().into())
    }
}

impl Value for Topic {
    const ALLOWED: &'static str = "a topic, as in \"minion\" or \"livesys/7\"";
    fn from_text(text: &str) -> Option<Topic> {
        text.parse().ok()
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some(self.to_string().into())
    }
}

impl Value for Vec<String> {
    const ALLOWED: &'static str = "a list of texts (in the environment: separated by commas)";
    fn from_text(text: &str) -> Option<Vec<String>> {
        Some(text.split(',').map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect())
    }
    fn from_toml(value: &toml::Value) -> Option<Vec<String>> {
        value.as_array()?.iter().map(|v| v.as_str().map(str::to_owned)).collect()
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some(self.clone().into())
    }
}

/// Ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ports(pub(crate) Vec<u16>);

impl Value for Ports {
    const ALLOWED: &'static str =
        "a list of ports, as in [443, 5432] (in the environment: separated by commas, or none)";
    fn from_text(text: &str) -> Option<Ports> {
        // as text nothing at all means that nothing was said, which would be the opposite
        if text.trim() == "none" {
            return Some(Ports(Vec::new()));
        }
        let ports = text.split(',').map(str::trim).filter(|t| !t.is_empty());
        ports.map(|t| t.parse().ok()).collect::<Option<_>>().map(Ports)
    }
    fn from_toml(value: &toml::Value) -> Option<Ports> {
        let ports = value.as_array()?.iter();
        ports.map(|v| u16::try_from(v.as_integer()?).ok()).collect::<Option<_>>().map(Ports)
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some(self.0.iter().map(|port| i64::from(*port)).collect::<Vec<_>>().into())
    }
}

/// Any JSON; in the environment and in text as JSON text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Json(pub(crate) serde_json::Value);

impl Value for Json {
    const ALLOWED: &'static str = "any value without dates (in the environment: JSON)";
    fn from_text(text: &str) -> Option<Json> {
        serde_json::from_str(text).ok().map(Json)
    }
    fn from_toml(value: &toml::Value) -> Option<Json> {
        fn plain(value: &toml::Value) -> bool {
            match value {
                toml::Value::Datetime(_) => false,
                toml::Value::Float(f) => f.is_finite(),
                toml::Value::Array(items) => items.iter().all(plain),
                toml::Value::Table(members) => members.iter().all(|(_, v)| plain(v)),
                toml::Value::String(_) | toml::Value::Integer(_) | toml::Value::Boolean(_) => true,
            }
        }
        plain(value).then(|| serde_json::to_value(value).ok().map(Json)).flatten()
    }
    fn to_toml(&self) -> Option<toml::Value> {
        // A JSON null has no TOML; then the text stands for it.
        Some(toml::Value::try_from(&self.0).unwrap_or_else(|_| self.0.to_string().into()))
    }
}

impl<T: Value> Value for Option<T> {
    const ALLOWED: &'static str = T::ALLOWED;
    fn from_text(text: &str) -> Option<Option<T>> {
        if text.is_empty() { Some(None) } else { T::from_text(text).map(Some) }
    }
    fn from_toml(value: &toml::Value) -> Option<Option<T>> {
        T::from_toml(value).map(Some)
    }
    fn to_toml(&self) -> Option<toml::Value> {
        self.as_ref().and_then(T::to_toml)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back_the_same() {
        fn there_and_back<T: Value + PartialEq + std::fmt::Debug>(text: &str) {
            let value = T::from_text(text).expect(text);
            let shown = value.to_toml().expect(text);
            assert_eq!(T::from_toml(&shown), Some(value), "{text} was shown as {shown}");
        }
        there_and_back::<Size>("256KiB");
        there_and_back::<Size>("0");
        there_and_back::<Size>("1000");
        there_and_back::<Duration>("90s");
        there_and_back::<Listen>("localhost:3000");
        there_and_back::<Listen>("[::1]:0");
        there_and_back::<BaseUrl>("https://minium.example/under");
        there_and_back::<Vec<String>>("a, b");
        there_and_back::<Ports>("443, 5432");
        there_and_back::<Option<Ports>>("none");
        there_and_back::<Json>(r#"[{"a":1.5},"x",true]"#);
        there_and_back::<Option<Topic>>("livesys/7");
        there_and_back::<SlowPolicy>("gap");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Listen::from_text("3000").is_none());
        assert!(Listen::from_text("example.com:3000").is_none());
        assert!(BaseUrl::from_text("ftp://x").is_none());
        assert!(BaseUrl::from_text("http://").is_none());
        assert!(Size::from_toml(&toml::Value::Integer(-1)).is_none());
        assert!(u32::from_toml(&toml::Value::String("5".into())).is_none());
        assert!(Json::from_toml(&toml::Value::Float(f64::NAN)).is_none());
    }
}
