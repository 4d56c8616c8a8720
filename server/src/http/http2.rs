//! A connection that speaks HTTP/2, which only TLS negotiates. WebSockets stay on HTTP/1.1.

use super::connection::Carrier;
use super::limit::Remote;
use super::upgrade::Slot;
use crate::auth::ClientIdentity;
use crate::listener::Service;
use axum::body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::debug;

/// Requests at one moment on one connection; event streams are such requests.
const STREAMS_MAX: u32 = 128;
/// Between pings to a client that says nothing, and how long the answer may take.
const PING: Duration = Duration::from_secs(20);

/// Serves one connection until it ends. One without requests is told to end after as long as a head may take, as with
/// HTTP/1.1, and has as long once more to do so.
pub(super) async fn serve(
    stream: impl Carrier,
    remote: SocketAddr,
    service: Service,
    identity: Option<ClientIdentity>,
) {
    let Service { router, options, closing, .. } = service;
    let requests = Requests::default();
    let handler = service_fn(|request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        // never filled: a request for an upgrade is malformed here
        request.extensions_mut().insert(Slot::default());
        request.extensions_mut().insert(Remote(remote));
        if let Some(identity) = &identity {
            request.extensions_mut().insert(identity.clone());
        }
        let (router, running) = (router.clone(), requests.begin());
        async move {
            let response = router.oneshot(request).await?;
            Ok::<_, Infallible>(response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _until_the_body_ends = &running;
                    frame
                }))
            }))
        }
    });
    let tasks = Tasks(TaskTracker::new());
    let connection = http2::Builder::new(tasks.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(options.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .serve_connection(TokioIo::new(stream), handler);
    // boxed, so that it can be dropped before its tasks are waited for
    let mut connection = Box::pin(connection);
    let end = async {
        tokio::select! {
            () = closing.cancelled() => {}
            () = requests.none_for(options.header_timeout) => {}
        }
    };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = end => {
            connection.as_mut().graceful_shutdown();
            // A client that has never said a word does not hear that either, and hyper would wait for its first one
            // without end. Requests that came at the last moment are still answered.
            tokio::select! {
                ended = &mut connection => ended,
                () = requests.none_for(options.header_timeout) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "An HTTP/2 connection ended.");
    }
    drop(connection);
    tasks.0.close();
    tasks.0.wait().await;
}

/// What runs for the requests of one connection; it is gone before the connection counts as ended.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// How many requests run.
#[derive(Default)]
struct Requests(Arc<watch::Sender<usize>>);

/// One that runs; over when dropped.
struct Running(Arc<watch::Sender<usize>>);

impl Requests {
    fn begin(&self) -> Running {
        self.0.send_modify(|n| *n += 1);
        Running(self.0.clone())
    }

    /// Waits until there has been none for so long.
    async fn none_for(&self, span: Duration) {
        let mut running = self.0.subscribe();
        loop {
            // the sender is ours, so these cannot fail
            drop(running.wait_for(|n| *n == 0).await);
            if tokio::time::timeout(span, running.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}
