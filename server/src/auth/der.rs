//! Public keys out of their DER: SubjectPublicKeyInfo (RFC 5280) of the three kinds that are used here.
//!
//! What names an algorithm is compared byte by byte, so nothing but exactly these three is read.

/// The contents of an AlgorithmIdentifier.
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
const P256: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07,
];
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// A public key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PublicKey<'a> {
    /// The point of an Ed25519 key.
    Ed25519(&'a [u8]),
    /// The uncompressed point of a P256 key.
    P256(&'a [u8]),
    /// Modulus and exponent.
    Rsa(&'a [u8], &'a [u8]),
}

/// Reads a SubjectPublicKeyInfo.
pub(super) fn public_key(der: &[u8]) -> Option<PublicKey<'_>> {
    let body = whole(element(der, SEQUENCE)?)?;
    let (algorithm, rest) = element(body, SEQUENCE)?;
    let bits = whole(element(rest, BIT_STRING)?)?.strip_prefix(&[0])?;
    match algorithm {
        ED25519 => Some(PublicKey::Ed25519(bits)),
        P256 => Some(PublicKey::P256(bits)),
        RSA => {
            let body = whole(element(bits, SEQUENCE)?)?;
            let (modulus, rest) = element(body, INTEGER)?;
            let exponent = whole(element(rest, INTEGER)?)?;
            Some(PublicKey::Rsa(modulus, exponent))
        }
        _ => None,
    }
}

/// The point of an Ed25519 key, if it is one.
pub(crate) fn ed25519_point(der: &[u8]) -> Option<[u8; 32]> {
    match public_key(der)? {
        PublicKey::Ed25519(point) => point.try_into().ok(),
        PublicKey::P256(_) | PublicKey::Rsa(..) => None,
    }
}

/// The contents of the first element, which must have this tag, and what comes behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[tag])?;
    let (length, rest) = match rest {
        [short @ 0..=0x7f, rest @ ..] => (usize::from(*short), rest),
        [0x81, length, rest @ ..] if *length >= 0x80 => (usize::from(*length), rest),
        [0x82, high, low, rest @ ..] if *high > 0 => (usize::from(*high) << 8 | usize::from(*low), rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Nothing comes behind.
fn whole<'a>((contents, rest): (&'a [u8], &'a [u8])) -> Option<&'a [u8]> {
    rest.is_empty().then_some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ed25519() -> Vec<u8> {
        [&[0x30, 0x2a, 0x30, 0x05][..], ED25519, &[0x03, 0x21, 0x00], &[7; 32]].concat()
    }

    #[test]
    fn a_key_is_read_whole_or_not_at_all() {
        let key = ed25519();
        assert_eq!(public_key(&key), Some(PublicKey::Ed25519(&[7; 32])));
        for end in 0..key.len() {
            assert_eq!(public_key(&key[..end]), None, "cut at {end}");
        }
        assert_eq!(public_key(&[key.as_slice(), &[0]].concat()), None, "something behind it");
        for at in 0..12 {
            let mut wrong = key.clone();
            wrong[at] ^= 0x40;
            assert_eq!(public_key(&wrong), None, "byte {at}");
        }
    }

    #[test]
    fn lengths_have_one_spelling() {
        assert_eq!(element(&[4, 1, 9], 4), Some((&[9][..], &[][..])));
        for bad in
            [&[4, 0x81, 1, 9][..], &[4, 0x82, 0, 1, 9], &[4, 0x80, 9], &[4, 0x84, 0xff, 0xff, 0xff, 0xff]]
        {
            assert_eq!(element(bad, 4), None, "{bad:?}");
        }
    }
}
