//! TLS, with certificates of our own made for each test: clients that no one here wrote, and ours.

mod clients;
mod database;
mod listener;

pub(crate) use listener::start_on;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// An authority with a directory for its certificate and for those that it issues.
pub(crate) struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Authority { dir: tempfile::tempdir().unwrap(), issuer };
        std::fs::write(authority.path("ca.pem"), authority.issuer.pem()).unwrap();
        authority
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Certificate and key as PEM, for these hosts.
    pub(crate) fn issue(&self, common_name: &str, hosts: &[&str]) -> (String, String) {
        self.issue_until(common_name, hosts, 4096)
    }

    /// The same, good until a year begins.
    fn issue_until(&self, common_name: &str, hosts: &[&str], year: i32) -> (String, String) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// The same, written to `NAME.pem` and `NAME.key`.
    fn write(&self, name: &str, hosts: &[&str]) {
        self.put(name, self.issue(name, hosts));
    }

    fn put(&self, name: &str, (certificate, key): (String, String)) {
        std::fs::write(self.path(&format!("{name}.pem")), certificate).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key).unwrap();
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}
