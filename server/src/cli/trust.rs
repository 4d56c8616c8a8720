//! Whom commands trust where TLS is spoken, and what they show: files by flags and environment.

use crate::exit::{Exit, fault};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use minium_client::{Identity, TlsOptions};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// No file of certificates is longer; what the system trusts is a tenth of it.
const BYTES_MAX: u64 = 4 << 20;

/// Whom to trust, and what to show.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Trust {
    /// With https and wss: PEM file of the authorities that may have issued the server's certificate, in place of those
    /// that the system trusts
    #[arg(long, value_name = "FILE", env = "MINIUM_CA", hide_env_values = true, display_order = 903)]
    #[arg(value_parser = path())]
    pub(crate) ca: Option<PathBuf>,
    /// With https and wss: PEM file of the certificate to show to the server
    #[arg(long, value_name = "FILE", env = "MINIUM_CERT", hide_env_values = true, display_order = 904)]
    #[arg(value_parser = path())]
    pub(crate) cert: Option<PathBuf>,
    /// With --cert: PEM file of its key
    #[arg(long, value_name = "FILE", env = "MINIUM_CERT_KEY", hide_env_values = true, display_order = 905)]
    #[arg(value_parser = path())]
    pub(crate) cert_key: Option<PathBuf>,
}

/// An empty variable is none, so an empty path is none yet.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

impl Trust {
    /// Reads the files. One that is named must be there, whether or not TLS is spoken.
    pub(crate) fn options(&self) -> anyhow::Result<TlsOptions> {
        let named = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        let authorities = named(&self.ca).map(|path| certificates("--ca", &path)).transpose()?;
        let identity = match (named(&self.cert), named(&self.cert_key)) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let key = String::from_utf8(read("--cert-key", &key)?)
                    .map_err(|_| fault(Exit::Usage, format!("--cert-key: {} is no PEM", key.display())))?;
                Some(Identity::new(certificates("--cert", &certificate)?, key))
            }
            _ => return Err(fault(Exit::Usage, "--cert and --cert-key need each other")),
        };
        Ok(TlsOptions { authorities, identity })
    }
}

/// Reads certificates, or says that there are none: a key is soon named in their place.
fn certificates(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = read(flag, path)?;
    let holds = |words: &[u8]| bytes.windows(words.len()).any(|found| found == words);
    if holds(b"-----BEGIN CERTIFICATE-----") {
        return Ok(bytes);
    }
    let hint = if holds(b"PRIVATE KEY-----") { " (is it the key?)" } else { "" };
    Err(fault(Exit::Usage, format!("{flag} {}: there is no certificate in it{hint}", path.display())))
}

fn read(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|e| fault(Exit::Usage, format!("{flag}: {} cannot be read: {e}", path.display())))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(fault(Exit::Usage, format!("{flag}: {} is too long for certificates", path.display())));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_named_are_read_and_an_empty_name_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let text = match name {
                "key" => "-----BEGIN PRIVATE KEY-----",
                "empty" => "",
                _ => "-----BEGIN CERTIFICATE-----",
            };
            std::fs::write(dir.path().join(name), text).unwrap();
            Some(dir.path().join(name))
        };
        let all = Trust { ca: file("ca"), cert: file("cert"), cert_key: file("key") };
        let options = all.options().unwrap();
        assert!(
            options.authorities.is_some_and(|ca| ca.starts_with(b"-----BEGIN CERT"))
                && options.identity.is_some()
        );
        let empty = Trust { ca: Some("".into()), cert: Some("".into()), cert_key: None };
        let options = empty.options().unwrap();
        assert!(options.authorities.is_none() && options.identity.is_none());
        let says = |trust: Trust, word: &str| {
            let error = trust.options().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        says(Trust { ca: Some(dir.path().join("none")), ..Trust::default() }, "--ca: ");
        says(
            Trust { ca: file("key"), ..Trust::default() },
            "/key: there is no certificate in it (is it the key?)",
        );
        says(Trust { ca: file("empty"), ..Trust::default() }, "/empty: there is no certificate in it");
        let swapped = Trust { cert: file("key"), cert_key: file("cert"), ..Trust::default() };
        says(swapped, "(is it the key?)");
        says(Trust { cert: file("cert"), ..Trust::default() }, "need each other");
        says(Trust { ca: Some("/dev/zero".into()), ..Trust::default() }, "too long");
    }
}
