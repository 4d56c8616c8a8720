//! Schedules: enqueues what is due, once, however many processes ask.
//!
//! The rows of the schedules are locked while it is decided (by `rules`) what fires, and the jobs are enqueued in the
//! same transaction. A second process waits for the first, and then finds nothing due.

use super::PgStore;
use crate::error::QueueError;
use crate::rules;
use crate::store::Schedule;
use deadpool_postgres::Object;
use jiff::Timestamp;
use minium_protocol::EnqueueRequest;
use std::collections::HashMap;
use std::time::Duration;

const WHAT: &str = "fire schedules";
/// Rows that are not there yet are made, due in the far past: nobody has seen them. Sorted, so that two of us wait for
/// each other in one direction only.
const MAKE: &str = "insert into minium.schedule (name, due) select n, '-infinity' from unnest($1::text[]) n order by n \
                    on conflict do nothing";
const LOCK: &str = "select name, case when due > '-infinity' then due end, clock_timestamp() from minium.schedule \
                    where name = any ($1::text[]) order by name for no key update";
const MOVE: &str = "update minium.schedule set due = $2 where name = $1";

impl PgStore {
    pub(super) async fn fire(&self, schedules: &[Schedule]) -> Result<Option<Duration>, QueueError> {
        rules::check_schedules(schedules)?;
        if schedules.is_empty() {
            return Ok(None);
        }
        let by_name: HashMap<&str, &Schedule> = schedules.iter().map(|s| (s.name.as_str(), s)).collect();
        let by_name = &by_name;
        let fire = |client: Object| self.fire_locked(client, by_name);
        let (fired, next) = self.connections.run(WHAT, fire).await??;
        if fired {
            self.wake(true);
        }
        Ok(next)
    }

    async fn fire_locked(
        &self,
        mut client: Object,
        schedules: &HashMap<&str, &Schedule>,
    ) -> Result<Result<(bool, Option<Duration>), QueueError>, tokio_postgres::Error> {
        let names: Vec<&str> = schedules.keys().copied().collect();
        let transaction = client.transaction().await?;
        transaction.execute(MAKE, &[&names]).await?;
        let mut requests = Vec::new();
        let mut next: Option<i64> = None;
        for row in transaction.query(LOCK, &[&names]).await? {
            let (name, planned, now): (&str, Option<Timestamp>, Timestamp) =
                (row.get(0), row.get(1), row.get(2));
            let schedule = schedules[name];
            let now = now.as_microsecond();
            let every = rules::micros(schedule.every);
            let firing = rules::firing(planned.map(Timestamp::as_microsecond), every, now);
            next = Some(next.map_or(firing.next - now, |n| n.min(firing.next - now)));
            if firing.fires {
                requests.push(named(schedule));
            }
            if planned.map(Timestamp::as_microsecond) != Some(firing.next) {
                let due = Timestamp::from_microsecond(firing.next).unwrap_or(Timestamp::MAX);
                transaction.execute(MOVE, &[&name, &due]).await?;
            }
        }
        if let Err(refusal) = self.enqueue_in(&*transaction, &requests).await {
            return Ok(Err(refusal));
        }
        transaction.commit().await?;
        let next = next.map(|us| Duration::from_micros(u64::try_from(us).unwrap_or(0)));
        Ok(Ok((!requests.is_empty(), next)))
    }
}

/// The job of a firing says which schedule it comes from.
fn named(schedule: &Schedule) -> EnqueueRequest {
    let mut request = schedule.request.clone();
    request.options.schedule = Some(schedule.name.clone());
    request
}
