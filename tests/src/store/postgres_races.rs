//! What PostgreSQL has to get right when two are at one job at the same moment, or a parent has very many children.

use super::fixture::*;
use crate::support::wait;
use minium_protocol::{Phase, State};
use minium_queue::postgres::{PgOptions, PgStore};
use minium_queue::{Backend, Claim, DatabaseUrl, Extension, RetryOptions, Store, UpkeepRules, Verdict};
use tokio_postgres::Client;

const CHILDREN: usize = 120;
const PIECE: usize = 5;

/// A store that takes few at once, so that some children are many.
fn small(f: &Fixture) -> PgStore {
    let DatabaseUrl::Postgres(url) = f.url() else { panic!("this fixture is on PostgreSQL") };
    let Backend::Postgres(_) = &f.backend else { panic!("this fixture is on PostgreSQL") };
    PgStore::open(url, PgOptions { batch_max: PIECE, ..PgOptions::default() }).unwrap()
}

/// Makes every statement fail that changes more edges than one piece has; without a number, any that changes one.
async fn forbid(client: &Client, edges_max: usize) {
    let sql = format!(
        "create or replace function forbid() returns trigger language plpgsql as $$
         begin if (select count(*) from changed) > {edges_max} then raise 'sabotage'; end if; return null; end $$;
         create or replace trigger forbid after update on minium.edge referencing new table as changed
         for each statement execute function forbid()"
    );
    client.batch_execute(&sql).await.unwrap();
}

async fn allow(client: &Client) {
    client.batch_execute("drop trigger forbid on minium.edge").await.unwrap();
}

async fn blocked(f: &Fixture) -> usize {
    usize::try_from(f.store().stats().await.unwrap().blocked).unwrap()
}

/// Without upkeep.
async fn until_none_is_blocked(f: &Fixture) {
    wait::until("all children to be ready", async || (blocked(f).await == 0).then_some(())).await;
}

/// Waits until a statement of somebody else waits for a lock, or `done`.
async fn until_somebody_waits(client: &Client, done: impl Fn() -> bool) {
    wait::until("somebody to wait for a lock", async || {
        let sql = "select exists (select from pg_stat_activity
                     where datname = current_database() and wait_event_type = 'Lock')";
        let waits: bool = client.query_one(sql, &[]).await.unwrap().get(0);
        (waits || done()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn children_become_ready_in_pieces() {
    let f = Fixture::postgres().await;
    let (store, client) = (small(&f), f.client().await);
    let parent = f.running(plain()).await;
    let children = f.store().enqueue(&vec![after(&[parent.id]); CHILDREN]).await.unwrap();
    forbid(&client, PIECE).await;
    store.exchange(&[finish(&parent, "1")], &claim(0)).await.unwrap();
    assert!(blocked(&f).await < CHILDREN, "some at once");
    until_none_is_blocked(&f).await;
    let due: Vec<i64> = children.iter().map(|child| child.id).collect();
    assert_eq!(ids(&f.claim(1_000).await), due, "in the order of their ids");
}

#[tokio::test]
async fn upkeep_releases_children_in_pieces() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    let parent = f.running(plain()).await;
    f.store().enqueue(&vec![after(&[parent.id]); CHILDREN]).await.unwrap();
    forbid(&client, PIECE).await;
    // as if the process had ended right after its commit
    let end = "update minium.job set state = 'finished', finished = now() where id = $1";
    client.execute(end, &[&parent.id]).await.unwrap();
    let rules = UpkeepRules { batch: u32::try_from(PIECE).unwrap(), ..upkeep_rules() };
    let mut released = 0;
    while released < CHILDREN as u64 {
        let more = f.store().upkeep(&rules).await.unwrap().released;
        assert!(more > 0 && more <= PIECE as u64, "{more} after {released}");
        released += more;
    }
    assert_eq!(f.claim(1_000).await.len(), CHILDREN);
}

#[tokio::test]
async fn a_retry_holds_its_children_back_or_is_none() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    let parent = f.finished(plain()).await;
    let child = f.enqueue(after(&[parent])).await;
    f.entries().await;
    forbid(&client, 0).await;
    f.store().retry(parent, &RetryOptions::default()).await.unwrap_err();
    f.wrote(&[]).await;
    assert_eq!(f.job(parent).await.state, State::Finished);
    assert_eq!(f.phase(child).await, Some(Phase::Ready));
    allow(&client).await;
    f.store().retry(parent, &RetryOptions::default()).await.unwrap();
    assert_eq!(f.phase(child).await, Some(Phase::Blocked));
    assert_eq!(f.claim_one().await.id, parent);
}

#[tokio::test]
async fn what_a_retry_leaves_of_very_many_children_upkeep_does() {
    let f = Fixture::postgres().await;
    let (store, client) = (small(&f), f.client().await);
    let parent = f.finished(plain()).await;
    f.store().enqueue(&vec![after(&[parent]); CHILDREN]).await.unwrap();
    forbid(&client, 0).await;
    store.retry(parent, &RetryOptions::default()).await.unwrap();
    assert_eq!(blocked(&f).await, 0, "too many for one commit, and what follows it has failed");
    forbid(&client, PIECE).await;
    store.upkeep(&upkeep_rules()).await.unwrap();
    let first = blocked(&f).await;
    assert!(first > 0 && first < CHILDREN, "{first}: a round has a bound");
    while blocked(&f).await < CHILDREN {
        store.upkeep(&upkeep_rules()).await.unwrap();
    }
    assert_eq!(f.claim_one().await.id, parent);
    let left = "select count(*) from minium.unsettled";
    store.upkeep(&upkeep_rules()).await.unwrap();
    assert_eq!(client.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_retry_of_a_parent_of_very_many_blocks_all_of_them() {
    let f = Fixture::postgres().await;
    let (store, client) = (small(&f), f.client().await);
    let parent = f.finished(plain()).await;
    f.store().enqueue(&vec![after(&[parent]); CHILDREN]).await.unwrap();
    forbid(&client, PIECE).await;
    store.retry(parent, &RetryOptions::default()).await.unwrap();
    assert_eq!(blocked(&f).await, CHILDREN);
}

#[tokio::test]
async fn the_edges_of_a_removed_parent_of_very_many_go_in_pieces() {
    const MANY: usize = 10_001;
    let f = Fixture::postgres().await;
    let client = f.client().await;
    let parent = f.cancelled(plain()).await;
    f.store().enqueue(&vec![after(&[parent]); MANY]).await.unwrap();
    assert_eq!(blocked(&f).await, MANY);
    forbid(&client, 1_000).await;
    f.store().remove(parent).await.unwrap();
    wait::until("all children to be ready", async || {
        f.upkeep().await;
        (blocked(&f).await == 0).then_some(())
    })
    .await;
    f.upkeep().await;
    let left = "select (select count(*) from minium.edge), (select count(*) from minium.unsettled)";
    let row = client.query_one(left, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, 0));
}

#[tokio::test]
async fn a_lease_that_is_being_taken_away_is_not_extended() {
    let f = Fixture::postgres().await;
    let leased = f.running(plain()).await;
    let rescuer = f.client().await;
    // stands for a rescue between its statement and its commit
    let lose = "update minium.job set state = 'failed', finished = now(), lease = null, lease_until = null where id = $1";
    rescuer.batch_execute("begin").await.unwrap();
    rescuer.execute(lose, &[&leased.id]).await.unwrap();
    let extend = async || f.store().extend(&[(leased.id, leased.lease)], LEASE).await.unwrap();
    assert_eq!(wait::within("an extension", extend()).await, [Extension::Later]);
    rescuer.batch_execute("commit").await.unwrap();
    assert_eq!(extend().await, [Extension::Lost]);
}

#[tokio::test]
async fn a_job_whose_lease_is_being_extended_is_not_lost() {
    let f = Fixture::postgres().await;
    let leased = f.running(plain()).await;
    f.pass(LEASE).await;
    let client = f.client().await;
    // stands for an extension between its statement and its commit
    client.batch_execute("begin").await.unwrap();
    client.execute("select from minium.job where id = $1 for no key update", &[&leased.id]).await.unwrap();
    let extend = "insert into minium.renewal (job, lease, until) values ($1, $2, now() + interval '1 hour')";
    client.execute(extend, &[&leased.id, &leased.lease.0]).await.unwrap();
    assert_eq!(wait::within("a round beside an extension", f.upkeep()).await.rescued, 0);
    client.batch_execute("commit").await.unwrap();
    assert_eq!(f.upkeep().await.rescued, 0);
    f.accepted(finish(&leased, "1")).await;
}

async fn lanes(client: &Client) -> Vec<(String, i32)> {
    let sql = "select queue, priority from minium.lane order by queue, priority";
    client.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// A round by somebody who has not looked at lanes yet.
async fn fresh_round(f: &Fixture) {
    f.second().await.upkeep(&upkeep_rules()).await.unwrap();
}

#[tokio::test]
async fn lanes_that_nobody_has_used_for_long_go() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    let of = |queue: &str, priority| with(|o| (o.queue, o.priority) = (queue.into(), priority));
    f.store().enqueue(&[of("used", 1), of("idle", 2), of("idle", 3), of("late", 4)]).await.unwrap();
    let ended = f.exchange(&[], Claim { queues: vec!["idle".into()], ..claim(5) }).await.jobs;
    assert_eq!(ended.len(), 2);
    let late = f.exchange(&[], Claim { queues: vec!["late".into()], ..claim(5) }).await.jobs;
    fresh_round(&f).await;
    assert_eq!(lanes(&client).await.len(), 4, "they have only just become idle");
    f.store().release(&[(late[0].id, late[0].lease)]).await.unwrap();
    let hour = "update minium.lane set idle_since = idle_since - interval '1 hour'";
    client.batch_execute(hour).await.unwrap();
    fresh_round(&f).await;
    assert_eq!(lanes(&client).await, [("late".into(), 4), ("used".into(), 1)]);
    f.enqueue(of("idle", 2)).await;
    assert_eq!(f.exchange(&[], Claim { queues: vec!["idle".into()], ..claim(5) }).await.jobs.len(), 1);
}

#[tokio::test]
async fn a_job_whose_lane_went_under_it_is_claimed_after_the_next_round() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    let jobs: Vec<_> = (0..7).map(|n| with(|o| (o.queue, o.priority) = ("default".into(), n))).collect();
    f.store().enqueue(&jobs).await.unwrap();
    // as if each had been enqueued while its lane was still there
    client.batch_execute("delete from minium.lane").await.unwrap();
    f.nothing_to_claim().await;
    let rules = UpkeepRules { batch: 3, ..upkeep_rules() };
    for _ in 0..3 {
        f.store().upkeep(&rules).await.unwrap();
    }
    assert_eq!(f.claim(10).await.len(), 7, "a few lanes each round");
}

#[tokio::test]
async fn errors_show_no_details_of_what_the_database_refused() {
    let f = Fixture::postgres().await;
    let client = f.client().await;
    for (code, detail) in [("23502", "refused"), ("XX001", "broken"), ("53200", "away"), ("53100", "full")] {
        let sql = format!(
            "create or replace function told() returns trigger language plpgsql as $$ begin
               raise exception using errcode = '{code}', message = 'in short', detail = 'the secret', hint = 'a secret';
             end $$;
             create or replace trigger told before insert on minium.job for each row execute function told()"
        );
        client.batch_execute(&sql).await.unwrap();
        let error = f.store().enqueue(&[plain()]).await.unwrap_err();
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
        let told: String = causes.map(|cause| format!("{cause} {cause:?} ")).collect();
        assert!(told.contains(code) && told.contains("in short"), "{detail}: {told}");
        assert!(!told.contains("secret"), "{detail}: {told}");
    }
}

/// Neither the finish, which began before the child was there, nor the enqueue, before the finish was committed, can see it.
#[tokio::test]
async fn a_child_that_comes_while_its_parent_is_being_finished_waits_for_no_upkeep() {
    let f = Fixture::postgres().await;
    let (parent, other) = (f.running(plain()).await, f.running(plain()).await);
    let mut holder = f.client().await;
    let hold = holder.transaction().await.unwrap();
    hold.execute("select from minium.job where id = $1 for update", &[&other.id]).await.unwrap();
    let store = f.shared();
    let outcomes = [finish(&parent, "1"), finish(&other, "1")];
    let finishing = tokio::spawn(async move { store.exchange(&outcomes, &claim(0)).await.unwrap() });
    until_somebody_waits(&f.client().await, || false).await;
    let child = f.enqueue(after(&[parent.id])).await;
    assert_eq!(f.phase(child).await, Some(Phase::Blocked));
    hold.commit().await.unwrap();
    wait::within("the finish", finishing).await.unwrap();
    until_none_is_blocked(&f).await;
    assert_eq!(f.claim_one().await.id, child);
}

/// Their leases run already.
#[tokio::test]
async fn jobs_claimed_beside_the_end_of_a_parent_of_many_do_not_wait_for_its_children() {
    let f = Fixture::postgres().await;
    let store = small(&f);
    let parent = f.running(plain()).await;
    let children = f.store().enqueue(&vec![after(&[parent.id]); CHILDREN]).await.unwrap();
    let waiting = f.enqueue(plain()).await;
    let mut holder = f.client().await;
    let hold = holder.transaction().await.unwrap();
    let last = children[CHILDREN - 1].id;
    hold.execute("select from minium.job where id = $1 for update", &[&last]).await.unwrap();
    let outcomes = [finish(&parent, "1")];
    let exchanged = wait::within("the claim", store.exchange(&outcomes, &claim(1))).await.unwrap();
    assert_eq!(ids(&exchanged.jobs), [waiting]);
    hold.commit().await.unwrap();
    until_none_is_blocked(&f).await;
}

#[tokio::test]
async fn a_lease_whose_job_somebody_holds_costs_no_other_lease() {
    let f = Fixture::postgres().await;
    let (held, free, gone) = (f.running(plain()).await, f.running(plain()).await, f.running(plain()).await);
    f.accepted(finish(&gone, "1")).await;
    let mut holder = f.client().await;
    let hold = holder.transaction().await.unwrap();
    let ids = [held.id, gone.id];
    hold.execute("select from minium.job where id = any ($1) for update", &[&&ids[..]]).await.unwrap();
    let leases = [&held, &free, &gone].map(|leased| (leased.id, leased.lease));
    let answers = wait::within("an extension", f.store().extend(&leases, LEASE)).await.unwrap();
    assert!(matches!(answers[..], [Extension::Later, Extension::Until(_), Extension::Lost]), "{answers:?}");
    hold.commit().await.unwrap();
    let answers = f.store().extend(&leases, LEASE).await.unwrap();
    assert!(
        matches!(answers[..], [Extension::Until(_), Extension::Until(_), Extension::Lost]),
        "{answers:?}"
    );
}

#[tokio::test]
async fn a_lost_job_that_somebody_holds_keeps_no_other_from_being_rescued() {
    let f = Fixture::postgres().await;
    let (held, lost) = (f.running(plain()).await, f.running(plain()).await);
    let mut holder = f.client().await;
    // between them stand more ended leases of jobs that have long finished than one look passes over
    let finished = "insert into minium.job (task, args, state, ready, finished, lease_until)
                    select 't', '[]', 'finished', false, now(), now() - '2 h'::interval + n * '1 us'::interval
                      from generate_series(1, 10001) n";
    holder.batch_execute(finished).await.unwrap();
    let end = "update minium.job set lease_until = now() - $2::text::interval where id = $1";
    holder.execute(end, &[&held.id, &"3 h"]).await.unwrap();
    holder.execute(end, &[&lost.id, &"1 h"]).await.unwrap();
    let hold = holder.transaction().await.unwrap();
    hold.execute("select from minium.job where id = $1 for update", &[&held.id]).await.unwrap();
    assert_eq!(f.upkeep().await.rescued, 1);
    assert_eq!(f.job(lost.id).await.state, State::Failed);
    hold.commit().await.unwrap();
    assert_eq!(f.upkeep().await.rescued, 1, "it was looked at again");
    assert_eq!(f.job(held.id).await.state, State::Failed);
}

#[tokio::test]
async fn a_late_word_about_a_job_that_somebody_holds_keeps_no_claim_waiting() {
    let f = Fixture::postgres().await;
    let late = f.running(plain()).await;
    f.store().cancel(late.id).await.unwrap();
    let waiting = f.enqueue(plain()).await;
    let mut holder = f.client().await;
    let hold = holder.transaction().await.unwrap();
    hold.execute("select from minium.job where id = $1 for update", &[&late.id]).await.unwrap();
    let word = [finish(&late, "1")];
    // the word itself meets the lock only where it is judged: its lease is gone
    let exchanged = wait::within("the claim", f.store().exchange(&word, &claim(1))).await.unwrap();
    assert_eq!((exchanged.verdicts, ids(&exchanged.jobs)), (vec![Verdict::Unjudged], vec![waiting]));
    hold.commit().await.unwrap();
    f.entries().await;
    assert_eq!(f.hand_in(&word).await, [Verdict::LeaseLost]);
    f.wrote(&[(late.id, "task.late_result")]).await;
}
