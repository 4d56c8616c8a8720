//! Who a client is by its certificate. The handshake has verified the certificate; here it is only read.

use crate::auth::ClientIdentity;
use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::{DirectoryString, GeneralName};

/// Longer names are nobody's.
const NAME_BYTES_MAX: usize = 255;

/// The name in a client's verified certificate: the common name; without one, the first alternative name that is a DNS
/// name or a URI. Nothing when there is none, or one that could be taken for another: two common names, control
/// characters, more than 255 bytes.
pub(crate) fn identity_of(certificate: &CertificateDer<'_>) -> Option<ClientIdentity> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let name = common_name(&certificate)?.or_else(|| alternative(&certificate))?;
    let good = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control);
    good.then(|| ClientIdentity::from(name.as_str()))
}

/// The outer `None`: there is something that is no single name.
fn common_name(certificate: &Certificate) -> Option<Option<String>> {
    let mut names = certificate.tbs_certificate().subject().iter().filter(|a| a.oid == COMMON_NAME);
    match (names.next(), names.next()) {
        (None, _) => Some(None),
        (Some(one), None) => Some(Some(DirectoryString::try_from(&one.value).ok()?.into())),
        (Some(_), Some(_)) => None,
    }
}

fn alternative(certificate: &Certificate) -> Option<String> {
    let (_, names) = certificate.tbs_certificate().get_extension::<SubjectAltName>().ok()??;
    names.0.iter().find_map(|name| match name {
        GeneralName::DnsName(name) | GeneralName::UniformResourceIdentifier(name) => Some(name.to_string()),
        GeneralName::OtherName(_)
        | GeneralName::Rfc822Name(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::IpAddress(_)
        | GeneralName::RegisteredId(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn name(common: &[&str], alternatives: &[SanType]) -> Option<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "somebody else");
        for name in common {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.subject_alt_names = alternatives.to_vec();
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        identity_of(made.der()).map(|identity| identity.name.to_string())
    }

    #[test]
    fn the_common_name_is_the_name_and_else_the_first_dns_name_or_uri() {
        let dns = SanType::DnsName("seven.example".try_into().unwrap());
        let uri = SanType::URI("spiffe://example/seven".try_into().unwrap());
        let mail = SanType::Rfc822Name("seven@example.org".try_into().unwrap());
        let seven = Some("livesys-7".to_owned());
        assert_eq!(name(&["livesys-7"], &[]), seven);
        assert_eq!(name(&["livesys-7"], std::slice::from_ref(&dns)), seven);
        assert_eq!(name(&["Zoë"], &[]).as_deref(), Some("Zoë"));
        assert_eq!(name(&[], &[mail.clone(), dns.clone(), uri.clone()]).as_deref(), Some("seven.example"));
        assert_eq!(name(&[], &[uri, dns.clone()]).as_deref(), Some("spiffe://example/seven"));
        assert_eq!(name(&[], &[mail]), None);
        for bad in ["", "two\nlines", &"x".repeat(256)] {
            assert_eq!(name(&[bad], std::slice::from_ref(&dns)), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_nobody() {
        assert_eq!(identity_of(&CertificateDer::from(vec![0x30, 3, 1, 2, 3])), None);
    }
}
