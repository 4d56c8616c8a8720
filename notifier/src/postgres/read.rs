//! Reading the journal by offset and by filter. Rows become events without their JSON being looked into.

use super::{Parameter, PgJournal, failed};
use crate::error::NotifierError;
use crate::journal::{self, Entry, EnvelopeOptions, Found, JournalStore, Range};
use minium_bus::Bounds;
use minium_protocol::Filter;
use std::error::Error;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

const WHAT: &str = "read the journal";

/// JSON as its text, borrowed from the row. (The clients' own types would parse it.)
struct JsonText<'a>(&'a str);

impl<'a> FromSql<'a> for JsonText<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<JsonText<'a>, Box<dyn Error + Sync + Send>> {
        Ok(JsonText(std::str::from_utf8(raw)?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSON
    }
}

/// Offsets as PostgreSQL keeps them.
fn offset(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Epoch, first and last offset, from column `from` on.
pub(super) fn bounds(row: &Row, from: usize) -> Result<Bounds, NotifierError> {
    let number = |i| row.try_get::<_, i64>(from + i).map(|n| n as u64).map_err(|e| failed(WHAT, e));
    Ok(Bounds { epoch: number(0)?, first: number(1)?, last: number(2)? })
}

pub(super) async fn current_bounds(journal: &PgJournal) -> Result<Bounds, NotifierError> {
    journal.bounds().await
}

/// Entries from rows whose columns from `from` on are those of `minium.journal_page`.
pub(super) fn entries(
    rows: &[Row],
    from: usize,
    epoch: u64,
    envelope: &EnvelopeOptions,
) -> Result<Vec<Entry>, NotifierError> {
    rows.iter()
        .map(|row| {
            let row = borrow(row, from).map_err(|e| failed(WHAT, e))?;
            Ok(row.entry(epoch, envelope))
        })
        .collect()
}

fn borrow(row: &Row, from: usize) -> Result<journal::Row<'_>, tokio_postgres::Error> {
    Ok(journal::Row {
        offset: row.try_get::<_, i64>(from)? as u64,
        at: row.try_get(from + 1)?,
        id: row.try_get(from + 2)?,
        topic: row.try_get(from + 3)?,
        kind: row.try_get(from + 4)?,
        subject: row.try_get(from + 5)?,
        trace: row.try_get(from + 6)?,
        late: row.try_get::<_, Option<JsonText<'_>>>(from + 7)?.map(|json| json.0),
        data: row.try_get::<_, JsonText<'_>>(from + 8)?.0,
        source: row.try_get(from + 9)?,
    })
}

/// A filter as the functions of the schema take it: the beginning that an index finds, and a pattern for the rest.
fn parts(filter: &Filter) -> (Option<&str>, Option<String>) {
    let prefix = Some(filter.fixed_prefix()).filter(|p| !p.is_empty());
    let pattern = filter.is_wild().then(|| {
        let segments: Vec<String> = filter
            .as_str()
            .split('/')
            .map(|s| if s == "+" { "[^/]+".into() } else { s.replace('.', "\\.") })
            .collect();
        format!("^{}(/|$)", segments.join("/"))
    });
    (prefix, pattern)
}

impl PgJournal {
    /// Entries behind an offset, on the relay's connection.
    pub(super) async fn next_page(&self, epoch: u64, after: u64) -> Result<Vec<Entry>, NotifierError> {
        let count = i32::try_from(self.options.page_count_max).unwrap_or(i32::MAX);
        let bytes = i64::try_from(self.options.page_bytes_max).unwrap_or(i64::MAX);
        let parameters: [Parameter<'_>; 3] =
            [(&offset(after), Type::INT8), (&count, Type::INT4), (&bytes, Type::INT8)];
        let rows =
            self.relay_query(WHAT, "select * from minium.journal_page($1, $2, $3)", &parameters).await?;
        entries(&rows, 0, epoch, &self.envelope)
    }

    /// What there is of what a filter matches.
    pub(super) async fn find_bounds(&self, filter: &Filter) -> Result<Bounds, NotifierError> {
        let (below, _) = parts(filter);
        let parameters: [Parameter<'_>; 2] = [(&filter.as_str(), Type::TEXT), (&below, Type::TEXT)];
        let rows = self.query(WHAT, "select * from minium.journal_bounds_of($1, $2)", &parameters).await?;
        let first = rows.first().ok_or_else(|| NotifierError::Schema("the journal has no cursor".into()))?;
        bounds(first, 0)
    }

    /// Entries by filter.
    pub(super) async fn find(&self, range: &Range) -> Result<Found, NotifierError> {
        let (below, pattern) = parts(&range.filter);
        let count = i32::try_from(range.count_max).unwrap_or(i32::MAX);
        let bytes = i64::try_from(range.bytes_max).unwrap_or(i64::MAX);
        let walk = i32::try_from(self.options.walk_count_max).unwrap_or(i32::MAX);
        let parameters: [Parameter<'_>; 8] = [
            (&range.filter.as_str(), Type::TEXT),
            (&below, Type::TEXT),
            (&pattern, Type::TEXT),
            (&offset(range.after), Type::INT8),
            (&offset(range.to), Type::INT8),
            (&count, Type::INT4),
            (&bytes, Type::INT8),
            (&walk, Type::INT4),
        ];
        let sql = "select * from minium.journal_read($1, $2, $3, $4, $5, $6, $7, $8)";
        let rows = self.query(WHAT, sql, &parameters).await?;
        let (head, rest) =
            rows.split_first().ok_or_else(|| NotifierError::Schema("a read answered nothing".into()))?;
        let bounds = bounds(head, 0)?;
        let walked_to = head.try_get::<_, i64>(3).map_err(|e| failed(WHAT, e))? as u64;
        let matched = head.try_get::<_, i32>(4).map_err(|e| failed(WHAT, e))?;
        let found = entries(rest, 5, bounds.epoch, &self.envelope)?;
        // cut short by count or bytes: what was looked at behind the last entry is not in the page
        let cut = matched == count || found.len() < matched as usize;
        let scanned_to = found.last().filter(|_| cut).map_or(walked_to, |entry| entry.offset);
        let entries =
            found.into_iter().filter_map(|e| e.relayed).filter(|r| range.filter.matches(&r.topic)).collect();
        Ok(Found { bounds, entries, scanned_to })
    }

    pub(super) async fn find_before_last(&self, filter: &Filter, count: u32) -> Result<u64, NotifierError> {
        let (below, pattern) = parts(filter);
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        let walk = i32::try_from(self.options.last_walk_count_max).unwrap_or(i32::MAX);
        let parameters: [Parameter<'_>; 5] = [
            (&filter.as_str(), Type::TEXT),
            (&below, Type::TEXT),
            (&pattern, Type::TEXT),
            (&count, Type::INT4),
            (&walk, Type::INT4),
        ];
        let sql = "select minium.journal_before_last($1, $2, $3, $4, $5)";
        let rows = self.query(WHAT, sql, &parameters).await?;
        let first = rows.first().ok_or_else(|| NotifierError::Schema("a read answered nothing".into()))?;
        first.try_get::<_, i64>(0).map(|n| n as u64).map_err(|e| failed(WHAT, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_becomes_one_segment_of_a_pattern() {
        let of = |text: &str| {
            let filter: Filter = text.parse().unwrap();
            let (below, pattern) = parts(&filter);
            (below.map(str::to_owned), pattern)
        };
        assert_eq!(of("task/import"), (Some("task/import".into()), None));
        assert_eq!(of("task/+/4.2"), (Some("task".into()), Some("^task/[^/]+/4\\.2(/|$)".into())));
        assert_eq!(of("+"), (None, Some("^[^/]+(/|$)".into())));
    }
}
