//! One step of the numbering: one REPEATABLE READ transaction, committed synchronously before anything is published.

use super::{PgJournal, failed, gave_way, read};
use crate::error::NotifierError;
use crate::journal::{Outcome, Step};
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

const WHAT: &str = "number the journal";

/// A node that stops between the step and its commit must not hold the others up.
const BEGIN: &str =
    "begin isolation level repeatable read; set local idle_in_transaction_session_timeout = '10s'";

const STEP: &str = "select * from minium.journal_step($1, $2, $3, $4 * interval '1 millisecond')";

/// How the three statements of a step went.
enum Sent {
    Done(Vec<Row>),
    GaveWay,
}

impl PgJournal {
    /// Numbers what has waited for `patience`.
    pub(super) async fn number(&self, patience: Duration) -> Result<Step, NotifierError> {
        let mut relay = self.relay.lock().await;
        let client = match relay.take() {
            Some(client) => client,
            None => self.connection(WHAT).await?,
        };
        // The connection is put back only when the whole transaction is known to be over.
        let sent = self.patiently(WHAT, self.send(&client, patience)).await;
        match sent {
            Ok(Sent::Done(rows)) => {
                *relay = Some(client);
                self.step_of(&rows)
            }
            Ok(Sent::GaveWay) => {
                *relay = Some(client);
                drop(relay);
                let bounds = read::current_bounds(self).await?;
                Ok(nothing(Outcome::Busy, bounds.epoch, bounds.last))
            }
            Err(error) => super::settle(client, Err(error)),
        }
    }

    /// The three go out together, so that a step takes one round trip. Each ends on its own: when the middle one
    /// fails, the commit of what failed is a rollback.
    async fn send(
        &self,
        client: &deadpool_postgres::Object,
        patience: Duration,
    ) -> Result<Sent, tokio_postgres::Error> {
        let count = i32::try_from(self.options.step_count_max).unwrap_or(i32::MAX - 1);
        let page = i32::try_from(self.options.page_count_max).unwrap_or(i32::MAX);
        let bytes = i64::try_from(self.options.page_bytes_max).unwrap_or(i64::MAX);
        let waited_ms = patience.as_secs_f64() * 1e3;
        let parameters: [super::Parameter<'_>; 4] =
            [(&count, Type::INT4), (&page, Type::INT4), (&bytes, Type::INT8), (&waited_ms, Type::FLOAT8)];
        let (begun, rows, committed) = tokio::join!(
            biased;
            client.batch_execute(BEGIN),
            client.query_typed(STEP, &parameters),
            client.batch_execute("commit"),
        );
        begun?;
        match (rows, committed) {
            (Err(error), _) | (_, Err(error)) if gave_way(&error) => Ok(Sent::GaveWay),
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(rows), Ok(())) => Ok(Sent::Done(rows)),
        }
    }

    fn step_of(&self, rows: &[Row]) -> Result<Step, NotifierError> {
        let (head, entries) =
            rows.split_first().ok_or_else(|| NotifierError::Schema("a step answered nothing".into()))?;
        let outcome = match head.try_get(0).map_err(|e| failed(WHAT, e))? {
            "idle" => Outcome::Idle,
            "numbered" => Outcome::Numbered,
            "busy" => Outcome::Busy,
            "moved" => Outcome::Moved,
            other => return Err(NotifierError::Schema(format!("a step answered {other:?}"))),
        };
        let bounds = read::bounds(head, 1)?;
        let mut step = nothing(outcome, bounds.epoch, bounds.last);
        if outcome == Outcome::Numbered {
            step.numbered = bounds.last + 1 - bounds.first;
            step.more = head.try_get(4).map_err(|e| failed(WHAT, e))?;
            step.entries = read::entries(entries, 5, bounds.epoch, &self.envelope)?;
        }
        Ok(step)
    }
}

fn nothing(outcome: Outcome, epoch: u64, last: u64) -> Step {
    Step { outcome, epoch, last, numbered: 0, more: false, entries: Vec::new() }
}
