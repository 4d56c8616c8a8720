//! Jobs: enqueue, look, change, and many at once.

use super::operation::{Operation, Scope, operation};
use minium_protocol::ErrorCode::{
    Conflict, EpochChanged, LeaseLost, NotFound, OffsetExpired, PayloadTooLarge, SchemaViolation,
    StorageFull, Timeout, TopicInvalid,
};
use utoipa::openapi::Required;
use utoipa::openapi::path::HttpMethod::{self, Delete, Get, Patch, Post};

const READ: Scope = Scope::Of("jobs:read");
const WRITE: Scope = Scope::Of("jobs:write");

pub(super) fn operations() -> Vec<Operation> {
    let mut all = lists();
    all.extend(one());
    all.extend(changes());
    all.extend(bulk());
    all
}

fn jobs(
    method: HttpMethod,
    path: &'static str,
    id: &'static str,
    scope: Scope,
    summary: &'static str,
) -> Operation {
    operation(method, path, ("jobs", id), scope, summary).asks_the_store()
}

/// One job, by its number in the path.
fn job(
    method: HttpMethod,
    path: &'static str,
    id: &'static str,
    scope: Scope,
    summary: &'static str,
) -> Operation {
    jobs(method, path, id, scope, summary).of("id", "Number", "The job.").refuses(&[NotFound])
}

fn lists() -> Vec<Operation> {
    vec![
        jobs(Get, "/api/v1/jobs", "listJobs", READ, "A page of jobs, newest first.")
            .query("state", "States", "Any of these states; repeated, or parted by commas.")
            .query("phase", "Phases", "Waits for any of these reasons.")
            .query("task", "Texts", "Any of these tasks.")
            .query("queue", "Texts", "Any of these queues.")
            .query("note", "NoteConditions", "Has this note; with `=`, with this value, as `rack=3`. Repeated: all of them.")
            .query("arg", "Arguments", "Has this value in its arguments: a JSON pointer, `=` and the value as text, as `/0/serial=ABC`.")
            .query("q", "SearchText", "Has this text in its task, arguments, notes or error; ASCII letters of either case are one.")
            .query("enqueued_after", "Moment", "Enqueued at that moment or later.")
            .query("enqueued_before", "Moment", "Enqueued before that moment.")
            .query("ended_after", "Moment", "Ended at that moment or later.")
            .query("ended_before", "Moment", "Ended before that moment.")
            .query("id", "Numbers", "Any of these jobs.")
            .query("origin", "Number", "Enqueued by this job.")
            .query("before", "Number", "Only lower numbers: the cursor.")
            .query("limit", "Limit", "At most so many.")
            .may_be_too_long()
            .answers(200, "The page. It may be short or empty and still have a `next`.", "JobPage"),
        jobs(Post, "/api/v1/jobs", "enqueue", WRITE, "Enqueues one job, or all of an array or none.")
            .header("Idempotency-Key", "Key", "The key of one job that brings none.")
            .takes("Enqueue", Required::True)
            .answers(200, "A living job has the key already.", "Enqueued")
            .answers_as(201, "Enqueued.", &[("application/json", "Enqueued")], &[("Location", "Text")])
            .refuses(&[SchemaViolation, StorageFull]),
        jobs(Post, "/api/v1/jobs:bulk", "bulk", WRITE, "Acts on the jobs that a filter finds.")
            .takes("BulkRequest", Required::True)
            .answers(200, "What one piece brought; `next` leads to the others.", "BulkPiece")
            .answers_as(202, "All of them, behind this request.", &[("application/json", "Bulk")], &[("Location", "Text")])
            .refuses(&[StorageFull]),
    ]
}

fn one() -> Vec<Operation> {
    vec![
        job(Get, "/api/v1/jobs/{id}", "getJob", READ, "One job.")
            .header("If-None-Match", "Text", "The tag of what is known already.")
            .answers_as(200, "The job.", &[("application/json", "JobView")], &[("ETag", "Text")])
            .answers_as(304, "Nothing has changed.", &[], &[("ETag", "Text")]),
        job(
            Get,
            "/api/v1/jobs/{id}/events",
            "jobEvents",
            READ,
            "Its history, from the journal, oldest first.",
        )
        .query("task", "Text", "Its task, for one that was removed.")
        .query("after", "Text", "Behind this position.")
        .query("limit", "LimitOfEvents", "At most so many.")
        .answers_as(
            200,
            "The history.",
            &[("application/json", "EventPage"), ("application/x-ndjson", "Text")],
            &[("Minium-Next", "Text"), ("Minium-Earliest", "Text")],
        )
        .refuses(&[TopicInvalid, OffsetExpired, EpochChanged]),
        job(
            Get,
            "/api/v1/jobs/{id}/parents",
            "jobParents",
            READ,
            "What those have brought that it waited for.",
        )
        .query("from", "Place", "From this place on.")
        .query("lease", "Uuid", "The lease under which the job runs, in place of the scope.")
        .answers(200, "A page of results.", "ParentPage")
        .refuses(&[LeaseLost]),
        job(Get, "/api/v1/jobs/{id}/wait", "waitForJob", READ, "The job, once it has ended.")
            .query("timeout", "Span", "How long to wait, at most 5m; 30s when left out.")
            .answers(200, "It has ended.", "JobView")
            .refuses(&[Timeout, TopicInvalid]),
        job(Get, "/api/v1/jobs/{id}/failures", "jobFailures", READ, "Why each run failed that did.").answers(
            200,
            "The first one first.",
            "Failures",
        ),
        job(Get, "/api/v1/jobs/{id}/log", "jobLog", READ, "What it has said, line by line.")
            .query("after", "Place", "Behind this line.")
            .query("limit", "Limit", "At most so many.")
            .answers(200, "A page of lines.", "LogPage"),
    ]
}

fn changes() -> Vec<Operation> {
    vec![
        job(
            Patch,
            "/api/v1/jobs/{id}",
            "changeJob",
            WRITE,
            "Merges notes into it, member by member, and changes when it runs, how urgently and where, if it waits.",
        )
        .takes("Amendment", Required::True)
        .answers(200, "The job as it is then.", "JobView")
        .refuses(&[Conflict, StorageFull]),
        job(Delete, "/api/v1/jobs/{id}", "removeJob", WRITE, "Deletes a job that does not run.")
            .answers_nothing(204, "Deleted.")
            .refuses(&[Conflict, StorageFull]),
        job(
            Post,
            "/api/v1/jobs/{id}/retry",
            "retryJob",
            WRITE,
            "Makes an ended job wait again, or a waiting one ready.",
        )
        .takes("RetryOptions", Required::False)
        .answers(200, "The job as it is then.", "JobView")
        .refuses(&[Conflict, StorageFull, PayloadTooLarge]),
        job(
            Post,
            "/api/v1/jobs/{id}/cancel",
            "cancelJob",
            WRITE,
            "Calls it off, and with `cascade` all that it enqueued.",
        )
        .takes("Cancel", Required::False)
        .answers(200, "The job as it is then; with `cascade`, how many were called off.", "Cancelled")
        .refuses(&[Conflict, StorageFull]),
    ]
}

fn bulk() -> Vec<Operation> {
    let one = |method, id, scope, summary| {
        operation(method, "/api/v1/bulk/{id}", ("jobs", id), scope, summary)
            .of("id", "Uuid", "The bulk action.")
            .answers(200, "How far it is.", "Bulk")
            .refuses(&[NotFound])
    };
    vec![
        operation(
            Get,
            "/api/v1/bulk",
            ("jobs", "listBulks"),
            READ,
            "Bulk actions that run on this node, and the last that have ended.",
        )
        .answers(200, "The newest first.", "Bulks"),
        one(Get, "getBulk", READ, "How far a bulk action is."),
        one(Delete, "stopBulk", WRITE, "Stops a bulk action before its next piece."),
    ]
}
