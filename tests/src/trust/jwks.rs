//! Keys as a set, served by a small HTTP server in here: rotation, outage, and tokens that ask for too much.

use super::{bearer, now, part};
use crate::support::node::{Node, Options};
use crate::support::wait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, crypto};

/// A key pair with a name.
struct Named {
    kid: &'static str,
    pair: Ed25519KeyPair,
}

impl Named {
    fn new(kid: &'static str) -> Named {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Named { kid, pair: Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap() }
    }

    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.kid, "use": "sig", "alg": "EdDSA" })
    }

    /// As it stands in `Authorization`.
    fn bearer(&self) -> String {
        // each is another token, so that nothing is remembered of it
        let claims = json!({
            "sub": self.kid,
            "aud": "minium",
            "exp": now() + 600,
            "scope": "jobs:read",
            "jti": fastrand::u64(..),
        });
        let message = format!("{}.{}", part(&json!({ "alg": "EdDSA", "kid": self.kid })), part(&claims));
        bearer(&format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes()))))
    }
}

/// What the provider answers; `None` is 503.
#[derive(Default)]
struct Served {
    body: Option<String>,
    count: usize,
}

/// An identity provider, as far as a set of keys goes.
struct Provider {
    url: String,
    served: Arc<Mutex<Served>>,
}

impl Provider {
    async fn start() -> Provider {
        Provider::listen("http", None).await
    }

    /// With TLS, by a certificate of its own; gives that as PEM, too.
    async fn start_tls() -> (Provider, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        (Provider::listen("https", Some(TlsAcceptor::from(Arc::new(config)))).await, made.cert.pem())
    }

    async fn listen(scheme: &str, tls: Option<TlsAcceptor>) -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://localhost:{}/keys", listener.local_addr().unwrap().port());
        let served = Arc::new(Mutex::new(Served::default()));
        let state = served.clone();
        // ends with the test's runtime
        drop(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                match &tls {
                    None => answer(stream, &state).await,
                    // whoever does not trust the certificate goes away
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => answer(stream, &state).await,
                        Err(_) => continue,
                    },
                }
            }
        }));
        Provider { url, served }
    }

    fn serve(&self, keys: &[&Named]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        self.serve_text(Some(json!({ "keys": keys }).to_string()));
    }

    fn serve_text(&self, body: Option<String>) {
        self.served.lock().unwrap().body = body;
    }

    fn count(&self) -> usize {
        self.served.lock().unwrap().count
    }

    async fn node(&self) -> Node {
        self.node_with(Vec::new()).await
    }

    async fn node_with(&self, env: Vec<(&'static str, String)>) -> Node {
        let config = format!(
            "[auth]\naudience = \"minium\"\n[auth.keys.idp]\nalgorithm = \"EdDSA\"\njwks = \"{}\"\njwks_max_age = \"1h\"",
            self.url
        );
        Node::start(Options { env, ..Options::memory() }.config(&config)).await
    }
}

/// Answers one request.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: &Mutex<Served>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let answer = {
        let mut state = state.lock().unwrap();
        state.count += 1;
        match &state.body {
            Some(body) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
            None => "HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n".into(),
        }
    };
    // one that has gone has its answer
    stream.write_all(answer.as_bytes()).await.ok();
    stream.shutdown().await.ok();
}

async fn status(node: &Node, key: &Named) -> u16 {
    status_of(node, &key.bearer()).await
}

async fn status_of(node: &Node, bearer: &str) -> u16 {
    node.request(Method::GET, "/api/v1/jobs", &[("authorization", bearer)], "").await.status
}

/// A-4.
#[tokio::test]
async fn a_key_that_is_new_in_the_set_is_found_by_the_token_that_names_it() {
    let (first, second, stranger) = (Named::new("first"), Named::new("second"), Named::new("second"));
    let provider = Provider::start().await;
    provider.serve(&[&first]);
    let node = provider.node().await;
    let remembered = first.bearer();
    assert_eq!(status_of(&node, &remembered).await, 200);
    // both for a while, then the new one alone
    provider.serve(&[&first, &second]);
    assert_eq!(status(&node, &second).await, 200);
    assert_eq!(status(&node, &first).await, 200);
    assert_eq!(status(&node, &stranger).await, 401, "a name is not enough");
    let third = Named::new("third");
    provider.serve(&[&third]);
    assert_eq!(status(&node, &third).await, 200);
    assert_eq!(
        status(&node, &first).await,
        401,
        "a key that left the set is gone, also for tokens that were good"
    );
}

/// A-4.
#[tokio::test]
async fn while_the_set_cannot_be_had_the_known_keys_count() {
    let (known, new) = (Named::new("known"), Named::new("new"));
    let provider = Provider::start().await;
    provider.serve(&[&known]);
    let node = provider.node().await;
    assert_eq!(status(&node, &known).await, 200);
    for outage in [None, Some("<html>".to_owned()), Some(r#"{"keys":[]}"#.to_owned())] {
        provider.serve_text(outage.clone());
        let before = provider.count();
        assert_eq!(status(&node, &new).await, 401, "{outage:?}");
        assert_eq!(provider.count(), before + 1, "it was asked for");
        assert_eq!(status(&node, &known).await, 200, "{outage:?}");
    }
    assert!(node.log().contains("the known ones go on counting"), "{}", node.log());
    node.assert_well().await;
}

/// A-4.
#[tokio::test]
async fn a_node_starts_without_the_set_and_takes_tokens_when_it_is_there() {
    let key = Named::new("key");
    let provider = Provider::start().await;
    let node = provider.node().await;
    assert_eq!(status(&node, &key).await, 401);
    provider.serve(&[&key]);
    wait::until("the set to be read", async || (status(&node, &key).await == 200).then_some(())).await;
}

/// A-4: nobody has the provider flooded.
#[tokio::test]
async fn unknown_keys_have_the_set_fetched_at_a_bounded_rate() {
    let known = Named::new("known");
    let provider = Provider::start().await;
    provider.serve(&[&known]);
    let node = provider.node().await;
    assert_eq!(status(&node, &known).await, 200);
    let before = provider.count();
    let strangers = (0..60).map(|_| async {
        assert_eq!(status(&node, &Named::new("stranger")).await, 401);
    });
    futures::future::join_all(strangers).await;
    // a burst, and one more for each 10 s that a slow machine may have taken
    assert!(provider.count() - before <= 10, "{} fetches", provider.count() - before);
    assert_eq!(status(&node, &known).await, 200);
}

/// A-4: over TLS, by what the system trusts and nothing else.
#[tokio::test]
async fn a_set_over_https_is_read_only_from_whom_the_system_trusts() {
    let key = Named::new("key");
    let (provider, certificate) = Provider::start_tls().await;
    provider.serve(&[&key]);
    let trusted = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(trusted.path(), certificate).unwrap();
    let node = provider.node_with(vec![("SSL_CERT_FILE", trusted.path().display().to_string())]).await;
    assert_eq!(status(&node, &key).await, 200);

    let (impostor, _) = Provider::start_tls().await;
    impostor.serve(&[&key]);
    let node = impostor.node_with(vec![("SSL_CERT_FILE", trusted.path().display().to_string())]).await;
    assert_eq!(status(&node, &key).await, 401);
    assert!(node.log().contains("The set of keys cannot be had"), "{}", node.log());
    assert_eq!(impostor.count(), 0, "nothing was said to it");
}
