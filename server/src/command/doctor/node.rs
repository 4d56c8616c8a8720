//! What only a node needs: schemas, its port, its certificate, its keys.

use super::finding::Finding;
use crate::auth;
use crate::config::Config;
use crate::listener;
use crate::schema_files::{self, SchemaDir};
use crate::sinks::open_sinks;
use crate::tls::Tls;
use minium_bus::Schemas;
use minium_client::{Client, ClientError, ClientOptions, TlsFault};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// Whoever listens on our port and does not answer within this is no node.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn schemas(config: &Config) -> Finding {
    const NAME: &str = "schemas";
    let Some(dir) = schema_files::place(config.schemas.dir.as_deref()) else {
        return Finding::ok(NAME, "only the built-in ones");
    };
    let files = match SchemaDir::new(dir.to_owned()).read() {
        Ok(files) => files,
        Err(error) => {
            let words = format!("{} cannot be read: {error}", dir.display());
            return Finding::fail(NAME, words, "set schemas.dir, or make the directory");
        }
    };
    let report = Schemas::built_in().replace(files);
    match schema_files::refused(&report, dir) {
        None => Finding::ok(NAME, format!("{}, {} in force", dir.display(), report.in_force)),
        Some(why) => Finding::fail(NAME, why, "`minium schema check` tells of all"),
    }
}

pub(super) fn tls(config: &Config) -> Finding {
    const NAME: &str = "tls";
    let files = [&config.server.tls.certificate_file, &config.server.tls.client_ca_file];
    match Tls::of(&config.server.tls) {
        Ok(None) => Finding::ok(NAME, "none: plain HTTP"),
        Ok(Some(_)) => {
            let files: Vec<String> = files.into_iter().flatten().map(|f| f.display().to_string()).collect();
            Finding::ok(NAME, format!("{}, and the key fits", files.join(", ")))
        }
        Err(why) => Finding::fail(NAME, why, "look at [server.tls]"),
    }
}

pub(super) fn keys(config: &Config) -> Vec<Finding> {
    const NAME: &str = "auth";
    let keys = &config.auth.keys;
    let mut findings = match auth::build(config, None) {
        Err(wrong) => wrong.into_iter().map(|why| Finding::fail(NAME, why, "look at [auth]")).collect(),
        Ok(_) if !config.is_guarded() => {
            vec![Finding::ok(NAME, "none: whoever reaches it may do everything")]
        }
        Ok(_) => vec![Finding::ok(NAME, format!("asked for; keys: {}", keys.len()))],
    };
    // a file that is not there was told of
    let secrets = keys.values().filter_map(|key| key.secret_file.as_ref());
    findings.extend(secrets.filter_map(|path| {
        let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
        let words = format!("{} has the mode {mode:04o}: others can read the secret", path.display());
        (mode & 0o077 != 0).then(|| Finding::warn(NAME, words, format!("chmod 600 {}", path.display())))
    }));
    findings
}

/// Nothing is told where there are none.
pub(super) fn sinks(config: &Config) -> Vec<Finding> {
    const NAME: &str = "sinks";
    let findings: Vec<Finding> = open_sinks(config)
        .into_iter()
        .map(|open| {
            Finding::warn(NAME, open, "use an https:// URL, with ca_file for an authority of your own")
        })
        .collect();
    match findings.is_empty() && !config.sinks.is_empty() {
        true => vec![Finding::ok(NAME, format!("{}, none without TLS", config.sinks.len()))],
        false => findings,
    }
}

pub(super) async fn port(config: &Config) -> Finding {
    const NAME: &str = "port";
    let address = config.server.listen.0;
    let error = match listener::open(address) {
        Ok(_) if !address.ip().is_loopback() && !config.is_guarded() => {
            let hint = "configure [auth.keys], listen on 127.0.0.1, or start with --insecure-no-auth";
            return Finding::warn(NAME, format!("{address} is free, and not loopback"), hint);
        }
        Ok(_) => return Finding::ok(NAME, format!("{address} is free")),
        Err(error) => error,
    };
    match error.kind() {
        io::ErrorKind::AddrInUse if is_minium(address).await => {
            Finding::ok(NAME, format!("{address} is taken by a Minium, which answers"))
        }
        io::ErrorKind::AddrInUse => {
            let words = format!("{address} is taken by something that is no Minium");
            Finding::fail(NAME, words, "stop it, or choose another port by --listen")
        }
        io::ErrorKind::PermissionDenied => {
            let words = format!("{address} cannot be listened on: ports below 1024 need rights");
            Finding::fail(NAME, words, "choose a higher one, or let systemd open it")
        }
        _ => {
            let words = format!("{address} cannot be listened on: {error}");
            Finding::fail(NAME, words, "choose another address or port by --listen")
        }
    }
}

/// Does a node answer there? One that speaks TLS says so to whoever does not.
async fn is_minium(address: SocketAddr) -> bool {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let url = format!("http://{}", SocketAddr::new(ip, address.port()));
    let options =
        ClientOptions { connect_timeout: PATIENCE, request_timeout: PATIENCE, ..ClientOptions::default() };
    let Ok(client) = Client::with_options(&url, None, options) else { return false };
    match client.is_minium().await {
        Ok(is) => is,
        Err(error) => matches!(error, ClientError::Tls { fault: TlsFault::Wanted, .. }),
    }
}
