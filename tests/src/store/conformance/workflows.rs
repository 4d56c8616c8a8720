//! Jobs of one call that wait for each other, and those that run when a parent has failed.

use crate::store::fixture::*;
use minium_protocol::{EnqueueRequest, Phase, State, Unique};
use minium_queue::{QueueError, RetryOptions, Workflow};

fn on_failure(parents: &[i64]) -> EnqueueRequest {
    with(|o| (o.parents, o.on_failure) = (parents.to_vec(), true))
}

async fn enqueue_all(f: &Fixture, flow: &Workflow) -> Vec<i64> {
    f.store().enqueue(flow.jobs()).await.unwrap().into_iter().map(|e| e.id).collect()
}

pub(crate) async fn a_chain_runs_one_after_the_other(f: &Fixture) {
    let mut flow = Workflow::new();
    flow.chain([plain(), plain(), plain()]);
    let all = enqueue_all(f, &flow).await;
    assert_eq!(f.job(all[1]).await.parents, [all[0]]);
    assert_eq!(f.view(all[0]).await.children, [all[1]]);
    for id in all {
        let leased = f.claim_one().await;
        assert_eq!(leased.id, id);
        f.accepted(finish(&leased, "1")).await;
    }
    f.nothing_to_claim().await;
}

pub(crate) async fn the_order_in_the_call_does_not_matter(f: &Fixture) {
    let mut jobs = vec![plain(), plain(), plain()];
    jobs[0].options.after = vec![2];
    jobs[1].options.after = vec![0, 2];
    let all: Vec<i64> = f.store().enqueue(&jobs).await.unwrap().into_iter().map(|e| e.id).collect();
    assert!(all[2] < all[0] && all[0] < all[1], "parents have lower ids: {all:?}");
    assert_eq!(f.job(all[1]).await.parents, [all[0], all[2]]);
    assert_eq!(f.claim_one().await.id, all[2]);
}

pub(crate) async fn a_circle_is_refused(f: &Fixture) {
    let mut jobs = [plain(), plain()];
    jobs[0].options.after = vec![1];
    jobs[1].options.after = vec![0];
    for bad in [&jobs[..], &[with(|o| o.after = vec![0])], &[with(|o| o.after = vec![5])]] {
        let refused = f.store().enqueue(bad).await.unwrap_err();
        assert!(matches!(refused, QueueError::Invalid(_)), "{refused:?}");
    }
    assert!(f.entries().await.is_empty());
}

pub(crate) async fn a_group_is_gathered_with_its_results(f: &Fixture) {
    let mut flow = Workflow::new();
    let first = flow.add(plain());
    let parts: Vec<_> = (0..20).map(|_| flow.after(&[first], plain())).collect();
    flow.after(&parts, plain());
    let all = enqueue_all(f, &flow).await;
    let begun = f.claim_one().await;
    f.accepted(finish(&begun, "0")).await;
    let parts = f.claim(100).await;
    assert_eq!(ids(&parts), all[1..21]);
    let outcomes: Vec<_> = parts.iter().map(|part| finish(part, &part.id.to_string())).collect();
    f.hand_in(&outcomes).await;
    let gather = f.claim_one().await;
    assert_eq!(gather.id, all[21]);
    for parent in f.job(gather.id).await.parents {
        assert_eq!(f.job(parent).await.result.unwrap().get(), parent.to_string());
    }
}

pub(crate) async fn a_workflow_may_hang_on_jobs_with_keys(f: &Fixture) {
    let existing = f.enqueue(keyed("k")).await;
    let mut flow = Workflow::new();
    let held = flow.add(keyed("k"));
    let fresh = flow.add(keyed("l"));
    flow.after(&[held, fresh], plain());
    let all = enqueue_all(f, &flow).await;
    assert_eq!(all[0], existing);
    assert_eq!(f.job(all[2]).await.parents, [existing, all[1]], "it waits for the job that was there");
    assert_eq!(f.phase(all[2]).await, Some(Phase::Blocked));
    for _ in 0..2 {
        let leased = f.claim(1).await.remove(0);
        f.accepted(finish(&leased, "1")).await;
    }
    assert_eq!(f.claim_one().await.id, all[2]);
}

pub(crate) async fn thousands_wait_for_each_other(f: &Fixture) {
    let mut flow = Workflow::new();
    let first = flow.add(plain());
    let parts: Vec<_> = (0..2_500).map(|_| flow.after(&[first], plain())).collect();
    flow.after(&parts, plain());
    let all = enqueue_all(f, &flow).await;
    assert_eq!(f.view(all[0]).await.children.len(), 2_500);
    assert_eq!(f.job(all[2_501]).await.parents.len(), 2_500);
    assert_eq!(f.store().stats().await.unwrap().blocked, 2_501);
}

pub(crate) async fn a_handler_runs_once_a_parent_has_failed(f: &Fixture) {
    let parents = [f.enqueue(plain()).await, f.enqueue(with(|o| o.queue = "later".into())).await];
    let handler = f.enqueue(on_failure(&parents)).await;
    assert_eq!(f.phase(handler).await, Some(Phase::Blocked));
    let leased = f.claim_one().await;
    f.accepted(fail_for_good(&leased, "no")).await;
    assert_eq!(f.claim_one().await.id, handler, "the other parent is not waited for");
}

pub(crate) async fn a_handler_waits_while_a_parent_is_retried(f: &Fixture) {
    let mut request = plain();
    (request.options.attempts, request.options.backoff) = (2, Some(seconds(0)));
    let parent = f.enqueue(request).await;
    let handler = f.enqueue(on_failure(&[parent])).await;
    let leased = f.claim_one().await;
    f.accepted(fail(&leased, "no")).await;
    let again = f.claim_one().await;
    assert_eq!(again.id, parent, "not the handler");
    f.accepted(fail(&again, "no")).await;
    assert_eq!(f.claim_one().await.id, handler);
}

pub(crate) async fn a_handler_is_called_off_when_nothing_failed(f: &Fixture) {
    let parents = [f.enqueue(plain()).await, f.enqueue(plain()).await];
    let handler = f.enqueue(on_failure(&parents)).await;
    f.entries().await;
    let jobs = f.claim(2).await;
    f.accepted(finish(&jobs[0], "1")).await;
    assert_eq!(f.job(handler).await.state, State::Inactive);
    f.entries().await;
    f.store().cancel(jobs[1].id).await.unwrap();
    f.upkeep().await;
    assert_eq!(f.job(handler).await.state, State::Cancelled);
    f.wrote(&[(jobs[1].id, "task.cancelled"), (handler, "task.cancelled")]).await;
    // by hand it runs all the same
    f.store().retry(handler, &RetryOptions::default()).await.unwrap();
    assert_eq!(f.claim_one().await.id, handler);
}

pub(crate) async fn a_handler_of_what_has_ended_is_judged_at_once(f: &Fixture) {
    let failed = f.failed(plain()).await;
    let finished = f.finished(plain()).await;
    let runs = f.enqueue(on_failure(&[finished, failed])).await;
    let called_off = f.enqueue(on_failure(&[finished])).await;
    let of_nobody = f.enqueue(on_failure(&[1_000_000])).await;
    f.upkeep().await;
    assert_eq!(f.claim_one().await.id, runs);
    assert_eq!(f.job(called_off).await.state, State::Cancelled);
    assert_eq!(f.job(of_nobody).await.state, State::Cancelled);
}

pub(crate) async fn a_handler_that_is_called_off_calls_off_its_own(f: &Fixture) {
    let parent = f.enqueue(plain()).await;
    let handler = f.enqueue(on_failure(&[parent])).await;
    let second = f.enqueue(on_failure(&[handler])).await;
    let lax = f.enqueue(lax_after(&[handler])).await;
    let leased = f.claim_one().await;
    f.accepted(finish(&leased, "1")).await;
    f.upkeep().await;
    f.upkeep().await;
    assert_eq!(f.job(second).await.state, State::Cancelled);
    assert_eq!(f.claim_one().await.id, lax);
}

pub(crate) async fn a_handler_in_one_call_with_its_parents(f: &Fixture) {
    let mut flow = Workflow::new();
    let parts: Vec<_> = (0..3).map(|_| flow.add(plain())).collect();
    flow.after(&parts, with(|o| o.priority = 5));
    flow.on_failure(&parts, with(|o| o.priority = 9));
    let all = enqueue_all(f, &flow).await;
    let parts = f.claim(10).await;
    assert_eq!(ids(&parts), all[..3]);
    f.hand_in(&[finish(&parts[0], "1"), fail_for_good(&parts[1], "no"), finish(&parts[2], "1")]).await;
    assert_eq!(f.claim_one().await.id, all[4], "the handler, and not what gathers");
    assert_eq!(f.phase(all[3]).await, Some(Phase::Blocked));
}

pub(crate) async fn a_cascade_is_called_off(f: &Fixture) {
    let root = f.enqueue(plain()).await;
    let of = |origin: i64| with(|o| o.origin = Some(origin));
    let (a, b) = (f.enqueue(of(root)).await, f.enqueue(of(root)).await);
    let (c, d) = (f.enqueue(of(a)).await, f.enqueue(of(a)).await);
    let stranger = f.enqueue(plain()).await;
    let running = f.claim(2).await;
    assert_eq!(ids(&running), [root, a]);
    f.accepted(finish(&running[0], "1")).await;
    f.entries().await;
    assert_eq!(f.store().cancel_cascade(root).await.unwrap(), 4);
    f.wrote_by_job(&[a, b, c, d].map(|id| (id, "task.cancelled"))).await;
    assert_eq!(f.job(root).await.state, State::Finished, "what has ended stays");
    assert_eq!(f.job(stranger).await.state, State::Inactive);
    let late = f.hand_in(&[finish(&running[1], "1")]).await;
    assert_eq!(late, [minium_queue::Verdict::LeaseLost]);
    assert_eq!(f.store().cancel_cascade(root).await.unwrap(), 0);
    let nobody = f.store().cancel_cascade(1_000_000).await.unwrap_err();
    assert!(matches!(nobody, QueueError::NotFound(1_000_000)));
}

pub(crate) async fn children_of_what_a_cascade_calls_off_are_judged(f: &Fixture) {
    let root = f.enqueue(plain()).await;
    let cascaded = f.enqueue(with(|o| o.origin = Some(root))).await;
    let lax = f.enqueue(lax_after(&[cascaded])).await;
    assert_eq!(f.phase(lax).await, Some(Phase::Blocked));
    assert_eq!(f.store().cancel_cascade(root).await.unwrap(), 2);
    f.upkeep().await;
    assert_eq!(f.claim_one().await.id, lax);
}

pub(crate) async fn a_handler_hears_of_parents_that_go(f: &Fixture) {
    let removed = f.enqueue(plain()).await;
    let of_removed = f.enqueue(on_failure(&[removed])).await;
    let expired = f.enqueue(with(|o| o.expire = Some(seconds(10)))).await;
    let of_expired = f.enqueue(on_failure(&[expired])).await;
    f.store().remove(removed).await.unwrap();
    f.pass(seconds(10)).await;
    assert_eq!(f.upkeep().await.expired, 1);
    f.upkeep().await;
    assert_eq!(f.job(of_removed).await.state, State::Cancelled);
    assert_eq!(f.job(of_expired).await.state, State::Cancelled);
}

pub(crate) async fn a_handler_that_may_run_stays_so_when_its_parent_is_removed(f: &Fixture) {
    let parent = f.failed(plain()).await;
    let handler = f.enqueue(on_failure(&[parent])).await;
    f.upkeep().await;
    f.store().remove(parent).await.unwrap();
    f.upkeep().await;
    assert_eq!(f.claim_one().await.id, handler);
}

pub(crate) async fn a_handler_that_may_run_stays_so_while_its_other_parents_go_on(f: &Fixture) {
    let failed = f.failed(plain()).await;
    let other = f.enqueue(with(|o| o.delay = LEASE)).await;
    let handler = f.enqueue(on_failure(&[failed, other])).await;
    f.store().remove(failed).await.unwrap();
    f.upkeep().await;
    assert_eq!(f.claim_one().await.id, handler);
}

pub(crate) async fn a_handler_waits_again_when_its_parent_is_retried(f: &Fixture) {
    let parent = f.failed(plain()).await;
    let handler = f.enqueue(on_failure(&[parent])).await;
    f.upkeep().await;
    f.store().retry(parent, &RetryOptions::default()).await.unwrap();
    assert_eq!(f.phase(handler).await, Some(Phase::Blocked));
    let again = f.claim_one().await;
    assert_eq!(again.id, parent);
    f.accepted(finish(&again, "1")).await;
    f.upkeep().await;
    assert_eq!(f.job(handler).await.state, State::Cancelled);
}

pub(crate) async fn a_handler_of_one_that_was_there_is_judged_at_once(f: &Fixture) {
    let failed = f.failed(with(|o| (o.key, o.unique) = (Some("k".into()), Unique::For(LEASE)))).await;
    let mut jobs = [with(|o| (o.key, o.unique) = (Some("k".into()), Unique::For(LEASE))), plain()];
    (jobs[1].options.after, jobs[1].options.on_failure) = (vec![0], true);
    let all = f.store().enqueue(&jobs).await.unwrap();
    assert_eq!((all[0].id, all[0].existing), (failed, true));
    assert_eq!(f.claim_one().await.id, all[1].id);
}

pub(crate) async fn parents_stand_as_they_were_given_whichever_were_there(f: &Fixture) {
    let there = f.enqueue(keyed("k")).await;
    let mut jobs = [keyed("k"), plain(), plain()];
    jobs[2].options.after = vec![1, 0];
    let all = f.store().enqueue(&jobs).await.unwrap();
    assert_eq!(f.job(all[2].id).await.parents, [all[1].id, there]);
}
