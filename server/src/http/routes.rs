//! All routes, each with what it needs. A route is added by [`Routes::at`] and nothing else, so none can forget; the
//! tests read this file to try every one of them with no token, the wrong scope and the right one.

use super::permit::{self, Need};
use super::problem::{self, Refusal};
use super::{
    App, asyncapi, gate, health, history, hooks, jobs, locks, metrics, openapi, page, publish, queues,
    recorders, schedules, schemas, session, sessions, topics, workers,
};
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, delete, get, post, put};
use minium_protocol::ErrorCode;
use minium_protocol::Verb::{Bus, Pub, Pull, Push, Sub};
use std::sync::Arc;

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let routes = guarded(&app).merge(open(&app)).layer(from_fn(metrics::count));
    #[cfg(feature = "otel")]
    let routes = routes.layer(from_fn_with_state(app.clone(), super::trace::follow));
    let routes = routes.with_state(app);
    // Around the whole: a router adds `Allow` to its 405 only after its own layers.
    Router::new().fallback_service(routes).layer(from_fn(problem::finish))
}

/// What messages and jobs go through. Only this asks for an `Origin` where one is required: probes and people who type
/// an address have none.
fn guarded(app: &Arc<App>) -> Router<Arc<App>> {
    Routes::new(app)
        .at("/ws", Need::Session, get(session::talk))
        .at("/pub/", Need::Topic(Pub), get(session::publish).post(publish::publish))
        .at("/pub/{*topic}", Need::Topic(Pub), get(session::publish).post(publish::publish))
        .at("/sub/", Need::Topic(Sub), get(session::subscribe))
        .at("/sub/{*topic}", Need::Topic(Sub), get(session::subscribe))
        .at("/push/", Need::Topic(Push), get(session::push).post(publish::push))
        .at("/push/{*topic}", Need::Topic(Push), get(session::push).post(publish::push))
        .at("/pull/", Need::Topic(Pull), get(session::pull))
        .at("/pull/{*topic}", Need::Topic(Pull), get(session::pull))
        .at("/bus/", Need::Topic(Bus), get(session::peer).post(publish::send))
        .at("/bus/{*topic}", Need::Topic(Bus), get(session::peer).post(publish::send))
        .at("/history/", Need::Topic(Sub), get(history::history))
        .at("/history/{*topic}", Need::Topic(Sub), get(history::history))
        .at("/api/v1/jobs", Need::Jobs, get(jobs::list).post(jobs::enqueue))
        .at("/api/v1/jobs:bulk", Need::Jobs, post(jobs::bulk))
        .at("/api/v1/bulk", Need::Jobs, get(jobs::bulks::list))
        .at("/api/v1/bulk/{id}", Need::Jobs, get(jobs::bulks::show).delete(jobs::bulks::stop))
        .at("/api/v1/jobs/{id}", Need::Jobs, get(jobs::show).patch(jobs::change).delete(jobs::remove))
        .at("/api/v1/jobs/{id}/events", Need::Jobs, get(jobs::events))
        .at("/api/v1/jobs/{id}/parents", Need::Kin, get(jobs::parents))
        .at("/api/v1/jobs/{id}/wait", Need::Jobs, get(jobs::wait))
        .at("/api/v1/jobs/{id}/retry", Need::Jobs, post(jobs::retry))
        .at("/api/v1/jobs/{id}/cancel", Need::Jobs, post(jobs::cancel))
        .at("/api/v1/jobs/{id}/failures", Need::Jobs, get(jobs::failures))
        .at("/api/v1/jobs/{id}/log", Need::Jobs, get(jobs::log))
        .at("/api/v1/locks", Need::Jobs, get(locks::list))
        .at("/api/v1/locks/{name}", Need::Jobs, post(locks::take).patch(locks::extend).delete(locks::release))
        .at("/api/v1/recorders", Need::Figures, get(recorders::list))
        .at("/api/v1/recorders/{name}", Need::Session, put(recorders::confirm).delete(recorders::forget))
        .at("/api/v1/schedules", Need::Jobs, get(schedules::list))
        .at(
            "/api/v1/schedules/{name}",
            Need::Jobs,
            get(schedules::show).put(schedules::put).delete(schedules::remove),
        )
        .at("/api/v1/schedules/{name}/pause", Need::Jobs, post(schedules::pause))
        .at("/api/v1/schedules/{name}/resume", Need::Jobs, post(schedules::resume))
        .at("/api/v1/schedules/{name}/run", Need::Jobs, post(schedules::run))
        .at("/api/v1/stats", Need::Figures, get(jobs::stats))
        .at("/api/v1/history", Need::Figures, get(queues::history))
        .at("/api/v1/queues", Need::Figures, get(queues::list))
        .at("/api/v1/queues/{queue}/pause", Need::Jobs, post(queues::pause))
        .at("/api/v1/queues/{queue}/resume", Need::Jobs, post(queues::resume))
        .at("/api/v1/limits", Need::Figures, get(queues::limits))
        .at("/api/v1/workers", Need::Figures, get(workers::list))
        .at("/api/v1/workers/{id}", Need::Figures, get(workers::show))
        .at("/api/v1/workers/{id}/command", Need::Admin, post(workers::command))
        .at("/api/v1/workers:broadcast", Need::Admin, post(workers::broadcast))
        .at("/api/v1/sessions", Need::Figures, get(sessions::list))
        .at("/api/v1/sessions/{id}", Need::Admin, delete(sessions::close))
        .at("/api/v1/topics", Need::Figures, get(topics::list))
        .at("/api/v1/schemas", Need::Figures, get(schemas::list))
        .at("/api/v1/schemas:test", Need::Figures, post(schemas::test))
        .router
        .layer(from_fn_with_state((app.clone(), true), gate))
}

/// The rest.
fn open(app: &Arc<App>) -> Router<Arc<App>> {
    Routes::new(app)
        .at("/", Need::Open, get(page::index))
        .at("/console/{*file}", Need::Open, get(page::file))
        .at("/sdk.js", Need::Open, get(page::sdk))
        .at("/favicon.ico", Need::Open, get(page::icon))
        .at("/healthz", Need::Open, get(health::healthz))
        .at("/readyz", Need::Open, get(health::readyz))
        .at("/hooks/{name}", Need::Signed, post(hooks::receive))
        .at("/metrics", Need::Figures, get(metrics::metrics))
        .at("/asyncapi.json", Need::Session, get(asyncapi::document))
        .at("/openapi.json", Need::Open, get(openapi::document))
        .at("/schemas/{*path}", Need::Open, get(schemas::schema))
        .at("/problems/{code}", Need::Open, get(problem::page))
        .router
        .fallback(nothing_here)
        .layer(from_fn_with_state((app.clone(), false), gate))
}

/// A router that takes no route without its need.
struct Routes {
    app: Arc<App>,
    router: Router<Arc<App>>,
}

impl Routes {
    fn new(app: &Arc<App>) -> Routes {
        Routes { app: app.clone(), router: Router::new() }
    }

    fn at(mut self, path: &str, need: Need, handlers: MethodRouter<Arc<App>>) -> Routes {
        let before = from_fn_with_state((self.app.clone(), need), permit::stand_before);
        self.router = self.router.route(path, handlers.route_layer(before));
        self
    }
}

async fn nothing_here() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "nothing is at this path")
}
