//! Tokens good and bad, signed by keys that are made here.

use super::*;
use crate::auth::{SigningKey, build};
use crate::config::{Flags, load_text};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use std::path::Path;

const SECRET: &[u8] = b"a secret of more than thirty-two bytes";
const RSA: &[u8] = include_bytes!("../testdata/rsa_for_tests.pem");
const RSA_PUBLIC: &[u8] = include_bytes!("../testdata/rsa_for_tests.pub.pem");

/// What a SubjectPublicKeyInfo has before the point.
const ED25519_HEAD: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const P256_HEAD: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A key of each kind, its public half in a file.
struct Keys {
    dir: tempfile::TempDir,
    ed: SigningKey,
    ed_public: Vec<u8>,
    es: SigningKey,
    rs: SigningKey,
    hs: SigningKey,
}

impl Keys {
    fn new() -> Keys {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let es = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ed_public = Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap().public_key().as_ref().to_vec();
        let es_pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, es.as_ref(), &random).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        put("ed.pem", pem("PUBLIC KEY", &[ED25519_HEAD, &ed_public].concat()).as_bytes());
        put("es.pem", pem("PUBLIC KEY", &[P256_HEAD, es_pair.public_key().as_ref()].concat()).as_bytes());
        put("rs.pem", RSA_PUBLIC);
        put("hs.key", &[SECRET, b"\n"].concat());
        let private = |der: &[u8]| SigningKey::from_pem(pem("PRIVATE KEY", der).as_bytes()).unwrap();
        Keys {
            ed: private(ed.as_ref()),
            es: private(es.as_ref()),
            rs: SigningKey::from_pem(RSA).unwrap(),
            hs: SigningKey::from_secret(SECRET).unwrap(),
            ed_public,
            dir,
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn text(&self, more: &str) -> String {
        let dir = self.path().display();
        format!(
            r#"
            [auth.keys.ed]
            algorithm = "EdDSA"
            public_key_file = "{dir}/ed.pem"
            [auth.keys.es]
            algorithm = "ES256"
            public_key_file = "{dir}/es.pem"
            [auth.keys.rs]
            algorithm = "RS256"
            public_key_file = "{dir}/rs.pem"
            [auth.keys.hs]
            algorithm = "HS256"
            secret_file = "{dir}/hs.key"
            {more}
            "#
        )
    }

    fn table(&self, more: &str) -> Table {
        table(&self.text(more))
    }
}

fn table(text: &str) -> Table {
    build(&load_text(text, &Flags::default()).unwrap(), None).unwrap()
}

fn soon() -> i64 {
    Timestamp::now().as_second() + 600
}

fn claims() -> Value {
    json!({ "sub": "tester", "exp": soon(), "scope": "sub:livesys/+ jobs:read" })
}

/// A token as an attacker writes it: any header, any claims, any signature.
fn forged(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode(signature))
}

async fn why(table: &Table, token: &str) -> Option<Why> {
    let presented = Presented::Token(token.to_owned().into());
    table.admit(&presented, None).await.err()
}

/// A-1.
#[tokio::test]
async fn a_token_of_each_kind_is_taken() {
    let keys = Keys::new();
    let table = keys.table("");
    for (name, key) in [("ed", &keys.ed), ("es", &keys.es), ("rs", &keys.rs), ("hs", &keys.hs)] {
        for kid in [None, Some(name), Some("unheard-of"), Some("../../../../dev/null"), Some("x' OR 1=1 --")]
        {
            let token = key.sign(kid, &claims()).unwrap();
            let grant = table.admit(&Presented::Token(token.into()), None).await;
            let grant = grant.unwrap_or_else(|why| panic!("{name} {kid:?}: {why}")).unwrap();
            assert_eq!(grant.subject, "tester");
            assert!(grant.key.as_ref().unwrap().starts_with(&format!("{name}:")), "{:?}", grant.key);
            assert!(grant.scopes.allow_jobs_read() && !grant.scopes.allow_jobs_write());
            assert!(grant.expires.is_some() && grant.allowance.is_none());
        }
    }
}

/// A-1, A-3.
#[tokio::test]
async fn forged_tokens_are_refused_each_for_its_reason() {
    let keys = Keys::new();
    let table = keys.table("");
    let signed_by = |secret: &[u8], kid: &str| {
        SigningKey::from_secret(secret).unwrap().sign(Some(kid), &claims()).unwrap()
    };
    let good = keys.es.sign(None, &claims()).unwrap();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let more = URL_SAFE_NO_PAD.encode(json!({ "sub": "x", "exp": soon(), "scope": "admin" }).to_string());
    let stranger =
        SigningKey::from_pem(pem("PRIVATE KEY", Keys::new().stranger().as_ref()).as_bytes()).unwrap();
    let algorithm = |name: &str| Why::Algorithm(name.into());
    let cases = [
        ("no signature at all", forged(&json!({ "alg": "none" }), &claims(), b""), algorithm("none")),
        ("none, spelled otherwise", forged(&json!({ "alg": "nOnE" }), &claims(), b""), algorithm("nOnE")),
        ("an empty algorithm", forged(&json!({ "alg": "" }), &claims(), b""), algorithm("")),
        (
            "none, with a known key",
            forged(&json!({ "alg": "none", "kid": "hs" }), &claims(), b"x"),
            algorithm("none"),
        ),
        ("another algorithm", forged(&json!({ "alg": "HS512" }), &claims(), b"x"), algorithm("HS512")),
        ("an empty signature", forged(&json!({ "alg": "HS256" }), &claims(), b""), Why::Signature),
        ("the public RSA key as a secret", signed_by(RSA_PUBLIC, "rs"), Why::Signature),
        ("the same, trimmed", signed_by(RSA_PUBLIC.trim_ascii(), "rs"), Why::Signature),
        ("the public Ed25519 key as a secret", signed_by(&keys.ed_public, "ed"), Why::Signature),
        ("another secret", signed_by(&[0; 32], "hs"), Why::Signature),
        (
            "zeros, which bad ECDSA takes",
            forged(&json!({ "alg": "ES256" }), &claims(), &[0; 64]),
            Why::Signature,
        ),
        ("zeros for Ed25519", forged(&json!({ "alg": "EdDSA" }), &claims(), &[0; 64]), Why::Signature),
        ("a stranger's key", stranger.sign(Some("ed"), &claims()).unwrap(), Why::Signature),
        (
            "a stranger's key, brought along",
            forged(
                &json!({ "alg": "EdDSA", "jwk": { "kty": "OKP", "crv": "Ed25519", "x": "AAAA" }, "jku": "http://evil.example" }),
                &claims(),
                &[7; 64],
            ),
            Why::Signature,
        ),
        ("other claims", format!("{header}.{more}.{signature}"), Why::Signature),
        (
            "the algorithm of another key",
            {
                let header = URL_SAFE_NO_PAD.encode(json!({ "alg": "EdDSA" }).to_string());
                format!("{header}.{payload}.{signature}")
            },
            Why::Signature,
        ),
        ("a cut signature", format!("{message}.{}", &signature[..80]), Why::Signature),
        ("no token", "hello".into(), Why::Shape),
        ("two tokens", format!("{good} {good}"), Why::Shape),
    ];
    for (name, token, reason) in cases {
        assert_eq!(why(&table, &token).await, Some(reason), "{name}");
    }
    assert_eq!(why(&table, &good).await, None, "the one that they were made of");
}

impl Keys {
    /// A private key that nobody knows.
    fn stranger(&self) -> ring::pkcs8::Document {
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap()
    }
}

/// A-2, A-3.
#[tokio::test]
async fn signed_tokens_are_refused_for_what_they_claim() {
    let keys = Keys::new();
    let table = keys.table("[auth]\nissuer = \"me\"\naudience = \"you\"");
    let now = Timestamp::now().as_second();
    let with = |members: Value| {
        let mut all = json!({ "sub": "t", "iss": "me", "aud": "you", "exp": soon() });
        for (name, value) in members.as_object().unwrap() {
            all[name] = value.clone();
        }
        keys.hs.sign(None, &all).unwrap()
    };
    for (members, reason) in [
        (json!({}), None),
        (json!({ "exp": null }), Some(Why::NoExpiry)),
        (json!({ "exp": now - 1 }), Some(Why::Expired)),
        (json!({ "exp": "soon" }), Some(Why::Json("payload"))),
        (json!({ "exp": 1e300 }), Some(Why::Time("exp"))),
        (json!({ "nbf": now + 300 }), Some(Why::NotYet)),
        (json!({ "iss": "them" }), Some(Why::Issuer)),
        (json!({ "iss": null }), Some(Why::Issuer)),
        (json!({ "aud": "them" }), Some(Why::Audience)),
        (json!({ "aud": ["them", "you"] }), None),
        (json!({ "aud": null }), Some(Why::Audience)),
    ] {
        assert_eq!(why(&table, &with(members.clone())).await, reason, "{members}");
    }
    let critical = {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","crit":["exp"]}"#);
        format!("{header}.e30.e30")
    };
    assert_eq!(why(&table, &critical).await, Some(Why::Critical));
}

#[tokio::test]
async fn who_shows_nothing_is_anonymous_and_who_shows_rubbish_is_nobody() {
    let keys = Keys::new();
    let table = keys.table("[auth.anonymous]\nscopes = [\"sub:public\"]\n[auth.certificates.\"image 7\"]\nscopes = [\"pull:livesys/7\"]");
    let nobody = table.admit(&Presented::Nothing, None).await.unwrap().unwrap();
    assert_eq!(
        (nobody.subject.as_str(), nobody.key.as_deref(), nobody.scopes.iter().count()),
        ("anonymous", None, 1)
    );
    assert_eq!(table.admit(&Presented::Unusable, None).await.unwrap_err(), Why::Presented);
    let image = ClientIdentity::from("image 7");
    let certified = table.admit(&Presented::Nothing, Some(&image)).await.unwrap().unwrap();
    assert_eq!((certified.subject.as_str(), certified.key.as_deref()), ("image 7", Some("certificate")));
    let unknown =
        table.admit(&Presented::Nothing, Some(&ClientIdentity::from("image 8"))).await.unwrap().unwrap();
    assert_eq!(unknown.subject, "anonymous");
    // a token counts before a certificate, and a bad one is not made up for by it
    let bad = Presented::Token("a.b.c".to_owned().into());
    assert!(table.admit(&bad, Some(&image)).await.is_err());
    assert!(Table::open().admit(&bad, None).await.unwrap().is_none(), "an open node asks for nothing");
}

#[tokio::test]
async fn a_token_has_one_rate_for_all_that_it_is_used_for() {
    let keys = Keys::new();
    let table = keys.table("[auth.limits]\nmessages_per_second = 1\nmessages_burst = 2");
    let token = keys.hs.sign(None, &claims()).unwrap();
    let admit = async || table.admit(&Presented::Token(token.clone().into()), None).await.unwrap().unwrap();
    let (one, other) = (admit().await, admit().await);
    assert!(Arc::ptr_eq(&one, &other), "it is remembered");
    let (one, other) = (one.allowance.clone().unwrap(), other.allowance.clone().unwrap());
    assert!(one.take(1).is_ok() && other.take(1).is_ok() && one.take(1).is_err() && other.take(1).is_err());
}

/// A-8.
#[tokio::test]
async fn rules_that_are_read_again_judge_who_is_there() {
    let keys = Keys::new();
    let text =
        "[auth.anonymous]\nscopes = [\"sub:public\"]\n[auth.certificates.image]\nscopes = [\"pull:a\"]";
    let before = keys.table(text);
    let token = keys.ed.sign(None, &claims()).unwrap();
    let by_token = before.admit(&Presented::Token(token.into()), None).await.unwrap().unwrap();
    let image = ClientIdentity::from("image");
    let by_certificate = before.admit(&Presented::Nothing, Some(&image)).await.unwrap().unwrap();
    let by_nothing = before.admit(&Presented::Nothing, None).await.unwrap().unwrap();
    let said = |table: &Table, grant: Option<&Arc<Grant>>| match table.judge(grant.map(|g| &**g)) {
        Ok(()) => "stands",
        Err(Revoked::Unauthenticated) => "4501",
        Err(Revoked::Changed) => "4503",
    };
    let all = |table: &Table| {
        [Some(&by_token), Some(&by_certificate), Some(&by_nothing), None]
            .map(|grant| said(table, grant))
            .join(" ")
    };
    assert_eq!(all(&keys.table(text)), "stands stands stands 4503");
    // more is fine, less is not
    assert_eq!(
        all(&keys.table(&text.replace("pull:a", "pull:+\", \"jobs:read"))),
        "stands stands stands 4503"
    );
    assert_eq!(all(&keys.table(&text.replace("pull:a", "pull:a/b"))), "stands 4503 stands 4503");
    assert_eq!(all(&keys.table(&text.replace("sub:public", "pub:public"))), "stands stands 4503 4503");
    assert_eq!(all(&keys.table(&text.replace("sub:public", "admin"))), "stands stands stands stands");
    // without the key and the certificate
    let hs =
        format!("[auth.keys.hs]\nalgorithm = \"HS256\"\nsecret_file = \"{}/hs.key\"", keys.path().display());
    assert_eq!(all(&table(&hs)), "4501 4501 4503 4503");
    // another key of the same name, or other claims asked for, is another key
    assert_eq!(all(&Keys::new().table(text)), "4501 stands stands 4503");
    assert_eq!(all(&keys.table(&format!("[auth]\nissuer = \"me\"\n{text}"))), "4501 stands stands 4503");
    assert_eq!(all(&Table::open()), "stands stands stands stands");
}

#[test]
fn files_that_hold_no_key_are_told_all_at_once() {
    let keys = Keys::new();
    let dir = keys.path();
    std::fs::write(dir.join("short.key"), "too short\n").unwrap();
    let private = dir.join("private.pem");
    std::fs::write(&private, RSA).unwrap();
    for (algorithm, member, file, told) in [
        ("HS256", "secret_file", "short.key", "needs at least 32"),
        ("HS256", "secret_file", "rs.pem", "must never be a public key"),
        ("HS256", "secret_file", "nowhere", "cannot be read"),
        ("RS256", "public_key_file", "private.pem", "private key"),
        ("RS256", "public_key_file", "ed.pem", "holds no key for RS256"),
        ("EdDSA", "public_key_file", "es.pem", "holds no key for EdDSA"),
        ("ES256", "public_key_file", "hs.key", "holds no PUBLIC KEY in PEM"),
    ] {
        let text = format!(
            "[auth.keys.a]\nalgorithm = \"{algorithm}\"\n{member} = \"{0}/{file}\"\n\
             [auth.keys.b]\nalgorithm = \"HS256\"\nsecret_file = \"{0}/missing\"",
            dir.display()
        );
        let wrong = build(&load_text(&text, &Flags::default()).unwrap(), None).err().unwrap();
        assert!(wrong[0].contains(told), "{algorithm} {file}: {wrong:?}");
        assert!(
            wrong.len() == 2
                && wrong[1].contains("auth.keys.b: ")
                && !format!("{wrong:?}").contains("too short")
        );
    }
    assert!(SigningKey::from_pem(RSA_PUBLIC).is_err() && SigningKey::from_secret(b"short").is_err());
}
