//! What stands around the jobs: queues and figures, schedules, locks, workers.

use super::operation::{Operation, Scope, operation};
use minium_protocol::ErrorCode::{Conflict, NotFound, SchemaViolation, StorageFull};
use utoipa::openapi::Required;
use utoipa::openapi::path::HttpMethod::{self, Delete, Get, Patch, Post, Put};

const READ: Scope = Scope::Of("jobs:read");
const WRITE: Scope = Scope::Of("jobs:write");
const ADMIN: Scope = Scope::Of("admin");

pub(super) fn operations() -> Vec<Operation> {
    [queues(), schedules(), locks(), workers()].into_iter().flatten().collect()
}

fn figures(path: &'static str, id: &'static str, summary: &'static str, schema: &str) -> Operation {
    operation(Get, path, ("queues", id), READ, summary).asks_the_store().answers(200, "All of them.", schema)
}

fn queues() -> Vec<Operation> {
    let one = |path, id, summary| {
        operation(Post, path, ("queues", id), WRITE, summary)
            .asks_the_store()
            .of("queue", "Name", "The queue; what it has of slashes is percent-encoded.")
            .answers(200, "How it is then.", "QueueWord")
            .refuses(&[StorageFull])
    };
    vec![
        figures("/api/v1/stats", "stats", "Figures of the whole queue, and of this node.", "Stats"),
        figures(
            "/api/v1/history",
            "hours",
            "What each of the last 24 hours brought, the oldest first.",
            "Hours",
        ),
        figures(
            "/api/v1/queues",
            "listQueues",
            "Queues with jobs that are ready, and those that are paused.",
            "Queues",
        ),
        one("/api/v1/queues/{queue}/pause", "pauseQueue", "Nothing is claimed from it any more."),
        one("/api/v1/queues/{queue}/resume", "resumeQueue", "It is claimed from again."),
        figures("/api/v1/limits", "listLimits", "Limits, each with how many run under it.", "Limits"),
        operation(Get, "/metrics", ("queues", "metrics"), READ, "All metrics, for Prometheus.").answers_as(
            200,
            "Prometheus text.",
            &[("text/plain", "Text")],
            &[],
        ),
    ]
}

fn schedules() -> Vec<Operation> {
    let one = |method: HttpMethod, path, id, scope, summary| {
        operation(method, path, ("schedules", id), scope, summary)
            .asks_the_store()
            .of("name", "AnyName", "The schedule; what it has of slashes is percent-encoded.")
            .refuses(&[NotFound])
    };
    let path = "/api/v1/schedules/{name}";
    let shown = "The schedule as it is then.";
    vec![
        operation(
            Get,
            "/api/v1/schedules",
            ("schedules", "listSchedules"),
            READ,
            "A page of schedules, by name.",
        )
        .asks_the_store()
        .query("after", "Text", "Behind this name: the cursor.")
        .query("limit", "Limit", "At most so many.")
        .answers(200, "The page.", "SchedulePage"),
        one(Get, path, "getSchedule", READ, "One schedule.").answers(200, "The schedule.", "Schedule"),
        one(Put, path, "putSchedule", WRITE, "Makes a schedule, or changes it.")
            .takes("ScheduleRequest", Required::True)
            .answers(200, "Changed.", "Schedule")
            .answers(201, "Made.", "Schedule")
            .refuses(&[Conflict, SchemaViolation, StorageFull]),
        one(Delete, path, "removeSchedule", WRITE, "Removes it; its jobs stay.")
            .answers_nothing(204, "Removed.")
            .refuses(&[Conflict, StorageFull]),
        one(Post, "/api/v1/schedules/{name}/pause", "pauseSchedule", WRITE, "It fires no more.")
            .answers(200, shown, "Schedule")
            .refuses(&[StorageFull]),
        one(Post, "/api/v1/schedules/{name}/resume", "resumeSchedule", WRITE, "It fires again.")
            .answers(200, shown, "Schedule")
            .refuses(&[StorageFull]),
        one(Post, "/api/v1/schedules/{name}/run", "runSchedule", WRITE, "Enqueues its job now.")
            .answers(200, "A living job has the key already.", "Enqueued")
            .answers(201, "Enqueued.", "Enqueued")
            .refuses(&[StorageFull]),
    ]
}

fn locks() -> Vec<Operation> {
    let path = "/api/v1/locks/{name}";
    let one = |method: HttpMethod, id, summary| {
        operation(method, path, ("schedules", id), WRITE, summary)
            .asks_the_store()
            .of("name", "AnyName", "The lock; what it has of slashes is percent-encoded.")
            .refuses(&[Conflict, StorageFull])
    };
    vec![
        operation(Get, "/api/v1/locks", ("schedules", "listLocks"), READ, "A page of holds.")
            .asks_the_store()
            .query("name", "Texts", "Any of these locks; repeated.")
            .may_be_too_long()
            .query("after", "NumberFromOne", "Behind this hold: the cursor.")
            .query("limit", "Limit", "At most so many.")
            .answers(200, "The page.", "LockPage"),
        one(Post, "takeLock", "Takes a lock for a time, or asks whether it could be had.")
            .takes("LockRequest", Required::True)
            .answers(200, "It could be had.", "LockHold")
            .answers(201, "It is held.", "LockHold"),
        one(Patch, "extendLock", "Extends one's own hold.").takes("LockExtension", Required::True).answers(
            200,
            "It holds until then.",
            "LockHold",
        ),
        one(Delete, "releaseLock", "Ends one's own hold, or without a token all of them.")
            .query("lock_token", "Uuid", "Whose hold it is.")
            .answers(200, "How many were ended.", "Released"),
    ]
}

fn workers() -> Vec<Operation> {
    let workers = |method, path, id, scope, summary| {
        operation(method, path, ("workers", id), scope, summary).asks_the_store()
    };
    vec![
        workers(
            Get,
            "/api/v1/workers",
            "listWorkers",
            READ,
            "A page of workers, those that came last first.",
        )
        .query("state", "WorkerStates", "Any of these states; repeated, or parted by commas.")
        .query("before", "Number", "Only lower numbers: the cursor.")
        .query("limit", "Limit", "At most so many.")
        .answers(200, "The page.", "WorkerPage"),
        workers(Get, "/api/v1/workers/{id}", "getWorker", READ, "One worker.")
            .of("id", "Number", "The worker.")
            .answers(200, "The worker.", "Worker")
            .refuses(&[NotFound]),
        workers(Post, "/api/v1/workers/{id}/command", "commandWorker", ADMIN, "Tells one worker something.")
            .of("id", "Number", "The worker.")
            .takes("Command", Required::True)
            .answers(200, "It stands in its inbox.", "Sent")
            .refuses(&[NotFound, Conflict, StorageFull]),
        workers(
            Post,
            "/api/v1/workers:broadcast",
            "broadcast",
            ADMIN,
            "Tells all workers something, or some.",
        )
        .takes("Broadcast", Required::True)
        .answers(200, "In so many inboxes.", "Sent")
        .refuses(&[StorageFull]),
    ]
}
