//! TLS against real listeners: what is trusted, what is refused and by which word, and what is waited for.

use crate::connection::{Kept, all_arrives, at_once};
use crate::script::{Brittle, Server, answer, said, say, shake, until_closed};
use minium_client::plain::SubscribeOptions;
use minium_client::{
    Client, ClientError, ClientOptions, ConnectOptions, Event, Identity, State, TlsFault, TlsOptions,
};
use minium_protocol::{After, ErrorCode, Filter, Problem, TLS_ONLY, Topic};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Longer than all that ends by itself.
const DEADLINE: Duration = Duration::from_secs(30);

/// Who issues certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key for these hosts, as PEM.
    fn issue(&self, hosts: &[&str], alter: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params =
            CertificateParams::new(hosts.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a server");
        alter(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn trusted(&self) -> TlsOptions {
        TlsOptions { authorities: Some(self.0.pem().into()), identity: None }
    }
}

const HOSTS: &[&str] = &["localhost", "127.0.0.1"];

fn good(authority: &Authority) -> (String, String) {
    authority.issue(HOSTS, |_| {})
}

fn expired(authority: &Authority) -> (String, String) {
    authority.issue(HOSTS, |params| params.not_after = date_time_ymd(2020, 1, 1))
}

/// As a node has it; with `clients`, a certificate of this authority is required.
fn config((certificate, key): (String, String), clients: Option<&Authority>) -> Arc<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A listener that speaks TLS and runs `script(n, session)` for the n-th connection. Ends when dropped.
struct Secure {
    port: u16,
    /// For the next connection.
    config: Arc<Mutex<Arc<ServerConfig>>>,
    /// Connections that came, and those among them with which a session came about.
    came: Arc<AtomicUsize>,
    sessions: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Secure {
    async fn start<F, Fut>(config: Arc<ServerConfig>, script: F) -> Secure
    where
        F: Fn(usize, TlsStream<TcpStream>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Arc::new(Mutex::new(config));
        let (came, sessions) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (current, counted, told) = (config.clone(), came.clone(), sessions.clone());
        let script = Arc::new(script);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let n = counted.fetch_add(1, Ordering::Relaxed);
                let acceptor = TlsAcceptor::from(current.lock().unwrap().clone());
                let (script, told) = (script.clone(), told.clone());
                connections.spawn(async move {
                    match acceptor.accept(socket).into_fallible().await {
                        Ok(session) => {
                            told.fetch_add(1, Ordering::Relaxed);
                            script(n, session).await;
                        }
                        Err((_, mut socket)) => {
                            // what was unread would reset the connection, and take our alert along
                            socket.shutdown().await.ok();
                            socket.read_to_end(&mut Vec::new()).await.ok();
                        }
                    }
                });
            }
        });
        Secure { port, config, came, sessions, _tasks: tasks }
    }

    /// One where each session is answered once with JSON.
    async fn answering(config: Arc<ServerConfig>) -> Secure {
        Secure::start(config, |_, mut session| async move {
            assert_eq!(session.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(session.read_u8().await.unwrap());
            }
            session
                .write_all(answer("200 OK", "application/json", r#"{"active":7}"#).as_bytes())
                .await
                .unwrap();
            session.shutdown().await.ok();
        })
        .await
    }

    fn url(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}:{}", self.port)
    }
}

fn client(url: &str, tls: TlsOptions) -> Client {
    let options = ClientOptions { tls, ..ClientOptions::default() };
    Client::with_options(url, Some("secret".into()), options).unwrap()
}

fn topic() -> Topic {
    "kept".parse().unwrap()
}

fn filter() -> Filter {
    "kept".parse().unwrap()
}

/// How each way to a server ends that cannot be trusted. None is tried again, however patient one is.
async fn every_way(client: &Client) -> Vec<ClientError> {
    let patient = ConnectOptions { patient: true, ..at_once() };
    let connection = client.connect(patient).unwrap();
    let plain = SubscribeOptions { patient: true, ..SubscribeOptions::default() };
    let all = async {
        vec![
            client.stats().await.unwrap_err(),
            client.plain_publisher(&topic()).await.unwrap_err(),
            client.plain_subscribe(&filter(), plain).await.unwrap_err(),
            connection.subscribe(&filter(), After::Latest).await.unwrap_err(),
            connection.publish(&topic(), json!(1), None).await.unwrap_err(),
        ]
    };
    tokio::time::timeout(DEADLINE, all).await.expect("each is told at once")
}

fn all_are(errors: &[ClientError], fault: TlsFault, exit_code: u8, whose: &str) {
    for error in errors {
        let said = error.to_string();
        assert_eq!((error.tls_fault(), error.exit_code()), (Some(fault), exit_code), "{whose}: {said}");
        assert!(said.starts_with(fault.code()), "{whose}: {said}");
    }
}

#[tokio::test]
async fn requests_and_websockets_go_over_tls_by_names_and_addresses() {
    let authority = Authority::new("ours");
    let config = config(good(&authority), None);
    let http = Secure::answering(config.clone()).await;
    let kept = Kept::new();
    let sockets = Secure::start(config, move |_, session| {
        let kept = kept.clone();
        async move {
            assert_eq!(session.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            let (session, uri) = shake(session).await.unwrap();
            if uri.starts_with("/ws") {
                kept.serve(session, &mut fastrand::Rng::with_seed(1)).await;
            }
        }
    })
    .await;
    for (scheme, host) in [("https", "localhost"), ("wss", "127.0.0.1")] {
        let asked = client(&http.url(scheme, host), authority.trusted());
        assert_eq!(asked.stats().await.unwrap().active, 7);
        let connection = client(&sockets.url(scheme, host), authority.trusted()).connect(at_once()).unwrap();
        connection.publish(&topic(), json!({ "x": "y".repeat(100_000) }), None).await.unwrap();
        let mut events = connection.subscribe(&filter(), After::Earliest).await.unwrap();
        let first = futures::StreamExt::next(&mut events).await.unwrap().unwrap();
        assert!(matches!(first, Event::Message(_)), "{first:?}");
        connection.close().await;
    }
}

#[tokio::test]
async fn certificates_that_cannot_be_trusted_are_refused_at_once_and_nothing_is_sent() {
    let (ours, other, namesake) = (Authority::new("ours"), Authority::new("other"), Authority::new("ours"));
    let elsewhere = ours.issue(&["hub.example", "127.0.0.2"], |_| {});
    let later = ours.issue(HOSTS, |params| params.not_before = date_time_ymd(3000, 1, 1));
    let own_authority = ours.issue(HOSTS, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let cases = [
        ("of another authority", &other, good(&ours), "localhost", TlsFault::UnknownAuthority),
        ("of one with the same name", &namesake, good(&ours), "localhost", TlsFault::UnknownAuthority),
        ("for another name", &ours, elsewhere.clone(), "localhost", TlsFault::WrongName),
        ("for another address", &ours, elsewhere, "127.0.0.1", TlsFault::WrongName),
        ("for a name only", &ours, ours.issue(&["localhost"], |_| {}), "127.0.0.1", TlsFault::WrongName),
        ("that has expired", &ours, expired(&ours), "localhost", TlsFault::Expired),
        ("of the future", &ours, later, "localhost", TlsFault::NotYetValid),
        ("of an authority itself", &ours, own_authority, "localhost", TlsFault::Certificate),
    ];
    for (whose, trusted, certificate, host, fault) in cases {
        let server = Secure::answering(config(certificate, None)).await;
        let errors = every_way(&client(&server.url("https", host), trusted.trusted())).await;
        all_are(&errors, fault, 5, whose);
        assert_eq!(server.came.load(Ordering::Relaxed), errors.len(), "{whose}: nothing is tried twice");
        assert_eq!(server.sessions.load(Ordering::Relaxed), 0, "{whose}");
    }
}

#[tokio::test]
async fn the_wrong_scheme_is_told_from_a_server_that_is_away() {
    let secure = Server::start(|_, incoming| async move {
        drop(incoming.http(&[&answer("400 Bad Request", "text/plain", TLS_ONLY)]).await);
    })
    .await;
    all_are(&every_way(&secure.client()).await, TlsFault::Wanted, 2, "plain HTTP at a port of TLS");
    for words in ["HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n"] {
        let plain = Server::start(move |_, mut incoming| async move {
            incoming.socket.write_all(words.as_bytes()).await.unwrap();
            incoming.socket.shutdown().await.ok();
            incoming.socket.read_to_end(&mut Vec::new()).await.ok();
        })
        .await;
        let url = plain.url.replace("http", "https");
        let errors = every_way(&client(&url, Authority::new("ours").trusted())).await;
        all_are(&errors, TlsFault::NotSpoken, 2, words);
    }
    let gone = Server::start(|_, incoming| async move { drop(incoming.socket) }).await;
    let away = client(&gone.url.replace("http", "https"), Authority::new("ours").trusted());
    let error = away.stats().await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}: it may come back");
}

#[tokio::test]
async fn a_certificate_is_shown_to_who_asks_for_it() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let server = Secure::answering(config(good(&ours), Some(&ours))).await;
    let with = |(certificate, key): (String, String)| TlsOptions {
        identity: Some(Identity::new(certificate, key)),
        ..ours.trusted()
    };
    let url = server.url("https", "localhost");
    let image = |authority: &Authority| authority.issue(&[], |_| {});
    assert_eq!(client(&url, with(image(&ours))).stats().await.unwrap().active, 7);
    all_are(&every_way(&client(&url, ours.trusted())).await, TlsFault::Refused, 4, "none");
    all_are(&every_way(&client(&url, with(image(&other)))).await, TlsFault::Refused, 4, "another's");
    let past = with(expired(&ours));
    all_are(&every_way(&client(&url, past)).await, TlsFault::Refused, 4, "an expired one");
}

#[tokio::test]
async fn what_has_expired_meanwhile_is_waited_for_and_another_authority_is_not() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let (cut, cuts) = tokio::sync::watch::channel(0);
    let server = Secure::start(config(good(&ours), None), move |_, session| {
        let mut cuts = cuts.clone();
        async move {
            let Some((mut session, _)) = shake(session).await else { return };
            let sub = said(&mut session).await.unwrap();
            say(&mut session, [json!({ "op": "ok", "ref": sub["ref"], "epoch": 1, "offset": 0 })]).await;
            cuts.mark_unchanged();
            tokio::select! {
                _ = cuts.changed() => {}
                _ = until_closed(&mut session) => {}
            }
        }
    })
    .await;
    let change = |certificate| *server.config.lock().unwrap() = config(certificate, None);
    let client = client(&server.url("wss", "localhost"), ours.trusted());
    let connection = client.connect(at_once()).unwrap();
    let mut events = connection.subscribe(&filter(), After::Earliest).await.unwrap();
    let mut state = connection.state();
    change(expired(&ours));
    cut.send_replace(1);
    let waits =
        |s: &State| matches!(s, State::Connecting { last: Some(why), .. } if why.starts_with("tls_expired"));
    tokio::time::timeout(DEADLINE, state.wait_for(waits)).await.expect("it is waited for").unwrap();
    change(good(&ours));
    let open = |s: &State| matches!(s, State::Open { .. });
    tokio::time::timeout(DEADLINE, state.wait_for(open)).await.expect("it comes back").unwrap();
    change(good(&other));
    let ended = async {
        loop {
            // a session that has just begun may not wait for its cut yet
            cut.send_modify(|n| *n += 1);
            match tokio::time::timeout(Duration::from_millis(20), futures::StreamExt::next(&mut events)).await
            {
                Ok(Some(Err(error))) => return error,
                Ok(None) => panic!("it ended without a word"),
                Ok(Some(Ok(_))) | Err(_) => {}
            }
        }
    };
    let error = tokio::time::timeout(DEADLINE, ended).await.expect("it ends");
    assert_eq!(error.tls_fault(), Some(TlsFault::UnknownAuthority), "{error}");
}

#[tokio::test]
async fn a_long_refusal_of_a_websocket_is_read_whole() {
    let authority = Authority::new("ours");
    let mut problem = Problem::new(ErrorCode::Forbidden, "because ".repeat(2_500));
    problem.earliest = Some("the end".into());
    let body = serde_json::to_string(&problem).unwrap();
    let server = Secure::start(config(good(&authority), None), move |_, mut session| {
        let whole = answer("403 Forbidden", "application/problem+json", &body);
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(session.read_u8().await.unwrap());
            }
            session.write_all(whole.as_bytes()).await.unwrap();
            session.shutdown().await.ok();
        }
    })
    .await;
    let client = client(&server.url("https", "localhost"), authority.trusted());
    let error = client.plain_publisher(&topic()).await.unwrap_err();
    assert_eq!(error.problem().unwrap().earliest.as_deref(), Some("the end"), "{error}");
}

#[tokio::test]
async fn sixty_cuts_at_random_bytes_of_tls_lose_nothing_and_double_nothing() {
    const MESSAGES: u64 = 400;
    const CUTS: usize = 60;
    let authority = Authority::new("ours");
    let acceptor = TlsAcceptor::from(config(good(&authority), None));
    let cuts = Arc::new(AtomicUsize::new(0));
    let (counted, kept) = (cuts.clone(), Kept::new());
    let server = Server::start(move |n, incoming| {
        let (cuts, kept, acceptor) = (counted.clone(), kept.clone(), acceptor.clone());
        async move {
            let mut random = fastrand::Rng::with_seed(n as u64);
            // a handshake takes some 1,500 bytes
            let budget = if n < CUTS { random.usize(0..6_000) } else { usize::MAX };
            let socket = Brittle::new(incoming.socket, budget, n % 2 == 0);
            if let Ok(session) = acceptor.accept(socket).await
                && let Some((session, _)) = shake(session).await
            {
                kept.serve(session, &mut random).await;
            }
            cuts.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
    let client = client(&server.url.replace("http", "wss"), authority.trusted());
    let connection = client.connect(ConnectOptions { patient: true, ..at_once() }).unwrap();
    let all = all_arrives(&connection, MESSAGES, "over TLS");
    tokio::time::timeout(2 * DEADLINE, all).await.expect("all arrives");
    assert!(cuts.load(Ordering::Relaxed) > CUTS / 4, "{cuts:?} cuts are no test");
}
