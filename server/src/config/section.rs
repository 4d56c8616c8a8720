//! Sections: tables of the configuration, declared once and then read, shown and documented by the same words.
//!
//! serde stops at the first mistake; whoever configures a node wants to hear all of them at once. So a [`Reader`]
//! goes through a table key by key, notes what is wrong, and goes on with the default.

use super::value::Value;
use std::collections::BTreeMap;
use std::fmt;

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Dotted path of the key.
    pub(crate) path: String,
    /// Where it was said, if not in the file.
    pub(crate) origin: Option<String>,
    /// What is wrong, and what is allowed.
    pub(crate) what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{} (from {origin}): {}", self.path, self.what),
            None => write!(f, "{}: {}", self.path, self.what),
        }
    }
}

/// A key, for the reference.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Its name within the section.
    pub(crate) name: &'static str,
    /// What it means.
    pub(crate) doc: &'static str,
    /// Its default, as text; empty when there is none.
    pub(crate) default: &'static str,
    /// What is allowed.
    pub(crate) allowed: &'static str,
}

/// A table with known keys.
pub(crate) trait Section: Sized {
    /// Its keys.
    const KEYS: &'static [Key];
    /// Reads it.
    fn read(reader: &mut Reader<'_>) -> Self;
    /// As it would stand in the file.
    fn show(&self) -> toml::Table;
}

/// Sections with names, as they would stand in the file.
pub(crate) fn show_named<S: Section>(sections: &BTreeMap<String, S>) -> toml::Table {
    sections.iter().map(|(name, section)| (name.clone(), section.show().into())).collect()
}

/// What was said outside of the file: dotted path to where it came from. Such values are text.
pub(crate) type Origins = BTreeMap<String, String>;

/// Reads one table and takes out of it what it knows.
pub(crate) struct Reader<'a> {
    path: String,
    table: toml::Table,
    known: Vec<&'static str>,
    origins: &'a Origins,
    mistakes: &'a mut Vec<Mistake>,
}

impl<'a> Reader<'a> {
    /// A reader for the table at `path`; the root's path is empty.
    pub(crate) fn new(
        path: &str,
        table: toml::Table,
        origins: &'a Origins,
        mistakes: &'a mut Vec<Mistake>,
    ) -> Reader<'a> {
        Reader { path: path.to_owned(), table, known: Vec::new(), origins, mistakes }
    }

    fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Notes a mistake at a key of this table.
    pub(crate) fn mistake(&mut self, key: &str, what: impl Into<String>) {
        let path = self.path_of(key);
        let origin = self.origins.get(&path).cloned();
        self.mistakes.push(Mistake { path, origin, what: what.into() });
    }

    /// The value at `key`, or its default.
    pub(crate) fn value<T: Value>(&mut self, key: &'static str, default: &str) -> T {
        self.known.push(key);
        let usual = || T::from_text(default).expect("a default is valid");
        let Some(raw) = self.table.remove(key) else { return usual() };
        let text = raw.as_str().filter(|_| self.origins.contains_key(&self.path_of(key)));
        let read = match text {
            Some(text) => T::from_text(text),
            None => T::from_toml(&raw),
        };
        read.unwrap_or_else(|| {
            self.mistake(key, format!("{} must be {}", short(&raw), T::ALLOWED));
            usual()
        })
    }

    /// The table at `key`; empty when it is absent.
    fn sub_table(&mut self, key: &str) -> toml::Table {
        match self.table.remove(key) {
            None => toml::Table::new(),
            Some(toml::Value::Table(table)) => table,
            Some(other) => {
                self.mistake(key, format!("{} must be a table", short(&other)));
                toml::Table::new()
            }
        }
    }

    /// The section at `key`.
    pub(crate) fn section<S: Section>(&mut self, key: &'static str) -> S {
        self.known.push(key);
        let table = self.sub_table(key);
        let path = self.path_of(key);
        let mut reader = Reader::new(&path, table, self.origins, self.mistakes);
        let section = S::read(&mut reader);
        reader.finish();
        section
    }

    /// Sections with names that the user chose.
    pub(crate) fn named<S: Section>(&mut self, key: &'static str) -> BTreeMap<String, S> {
        self.known.push(key);
        let table = self.sub_table(key);
        let path = self.path_of(key);
        let mut outer = Reader::new(&path, table, self.origins, self.mistakes);
        let names: Vec<String> = outer.table.keys().cloned().collect();
        let read = |name: String| {
            let inner = outer.sub_table(&name);
            let path = outer.path_of(&name);
            let mut reader = Reader::new(&path, inner, outer.origins, outer.mistakes);
            let section = S::read(&mut reader);
            reader.finish();
            (name, section)
        };
        names.into_iter().map(read).collect()
    }

    /// Whatever is left is unknown.
    pub(crate) fn finish(mut self) {
        let left: Vec<String> = self.table.keys().cloned().collect();
        let known = self.known.join(", ");
        for key in left {
            self.mistake(&key, format!("there is no such key; the keys here are {known}"));
        }
    }
}

/// `a` and `b` joined as TOML writes dotted keys.
fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// The names of a key and of the sections around it, as one dotted key.
pub(super) fn path_of(names: &[&str]) -> String {
    names.iter().fold(String::new(), |path, name| join(&path, name))
}

/// A value for a message: never a whole table.
fn short(value: &toml::Value) -> String {
    match value {
        toml::Value::Table(_) => "a table".into(),
        toml::Value::Array(_) => "a list".into(),
        other => {
            let text = other.to_string();
            let cut: String = text.chars().take(60).collect();
            if cut.len() < text.len() { format!("{cut}…") } else { cut }
        }
    }
}

/// Declares a section: a struct, its reader, its printer and its part of the reference.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident {
        $($(#[doc = $text:literal])+ $key:ident: $kind:ty = $default:literal;)*
        $(inside { $($(#[doc = $inner_text:literal])+ $inner:ident: $section:ty;)* })?
        $(named { $($(#[doc = $named_text:literal])+ $named:ident: $each:ty;)* })?
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub(crate) struct $name {
            $($(#[doc = $text])+ pub(crate) $key: $kind,)*
            $($($(#[doc = $inner_text])+ pub(crate) $inner: $section,)*)?
            $($($(#[doc = $named_text])+ pub(crate) $named: std::collections::BTreeMap<String, $each>,)*)?
        }
        impl $crate::config::section::Section for $name {
            const KEYS: &'static [$crate::config::section::Key] = &[$($crate::config::section::Key {
                name: stringify!($key),
                doc: concat!($($text, "\n"),+),
                default: $default,
                allowed: <$kind as $crate::config::value::Value>::ALLOWED,
            },)*];
            fn read(reader: &mut $crate::config::section::Reader<'_>) -> $name {
                $name {
                    $($key: reader.value(stringify!($key), $default),)*
                    $($($inner: reader.section(stringify!($inner)),)*)?
                    $($($named: reader.named(stringify!($named)),)*)?
                }
            }
            fn show(&self) -> toml::Table {
                let mut table = toml::Table::new();
                $(if let Some(value) = $crate::config::value::Value::to_toml(&self.$key) {
                    table.insert(stringify!($key).into(), value);
                })*
                $($(
                    let inner = $crate::config::section::Section::show(&self.$inner);
                    if !inner.is_empty() {
                        table.insert(stringify!($inner).into(), inner.into());
                    }
                )*)?
                $($(
                    let named = $crate::config::section::show_named(&self.$named);
                    if !named.is_empty() {
                        table.insert(stringify!($named).into(), named.into());
                    }
                )*)?
                table
            }
        }
    };
}
pub(crate) use section;
