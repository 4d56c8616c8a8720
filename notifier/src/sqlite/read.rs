//! Reading the journal on SQLite.

use super::retention::{self, Floor};
use crate::journal::{Entry, EnvelopeOptions, Found, JournalOptions, Lag, Range, Row};
use jiff::Timestamp;
use minium_bus::Bounds;
use minium_protocol::Filter;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, params};
use std::time::Duration;
use uuid::Uuid;

/// So many entries of one filter are found by the index on topics; more are found by walking the table.
const FEW: u32 = 1_000;

/// `?1` and everything below it: the byte behind `/` is `0`. The `+` keeps SQLite from walking the index on topics,
/// which is not in the order of offsets.
const BELOW: &str = "(+topic = ?1 or (+topic > ?1 || '/' and +topic < ?1 || '0'))";

const COLUMNS: &str = "seq, at, id, topic, type, subject, trace, late, data";

/// What reads need besides the connection.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) envelope: EnvelopeOptions,
    pub(super) options: JournalOptions,
}

pub(super) fn bounds(conn: &Connection) -> rusqlite::Result<Bounds> {
    let sql = "select (select epoch from journal_cursor),
                      coalesce((select seq from sqlite_sequence where name = 'entry'), 0),
                      (select min(seq) from entry)";
    conn.prepare_cached(sql)?.query_row([], |row| {
        let (epoch, last, first): (i64, i64, Option<i64>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Bounds { epoch: epoch as u64, first: first.unwrap_or(last + 1) as u64, last: last as u64 })
    })
}

/// What lies beyond `relayed`. Everything has its number.
pub(super) fn lag(conn: &Connection, relayed: Option<u64>) -> rusqlite::Result<Lag> {
    let last = bounds(conn)?.last;
    let relayed = relayed.map_or(last, |offset| offset.min(last));
    let sql = "select at from entry where seq > ?1 order by seq limit 1";
    let oldest =
        conn.prepare_cached(sql)?.query_row([relayed as i64], |row| row.get::<_, i64>(0)).optional()?;
    let age_us = oldest.map_or(0, |at| Timestamp::now().as_microsecond().saturating_sub(at));
    Ok(Lag { events: last - relayed, age: Duration::from_micros(u64::try_from(age_us).unwrap_or(0)) })
}

/// What there is of what a filter matches: from `first` on all of it, which is the greatest floor of the channels that
/// it reaches.
pub(super) fn bounds_of(conn: &Connection, filter: &Filter) -> rusqlite::Result<Bounds> {
    let bounds = bounds(conn)?;
    let first = first_of(filter, &retention::floors(conn)?);
    Ok(Bounds { first: u64::try_from(first).unwrap_or(1), ..bounds })
}

fn first_of(filter: &Filter, floors: &[Floor]) -> i64 {
    let fixed = filter.fixed_prefix();
    let below = floors.iter().filter(|floor| {
        let own = floor.prefix.split('/').filter(|segment| !segment.is_empty());
        let agrees = own.zip(filter.as_str().split('/')).all(|(own, wanted)| own == wanted || wanted == "+");
        retention::reaches(fixed, &floor.prefix) && agrees
    });
    below.map(|floor| floor.first).chain([retention::floor_of(floors, fixed)]).max().unwrap_or(1)
}

/// Offsets as SQLite keeps them.
pub(super) fn offset(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn strange(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

impl Reader {
    fn entry(&self, row: &rusqlite::Row<'_>, epoch: u64) -> rusqlite::Result<Entry> {
        let text = |column| row.get_ref(column)?.as_str().map_err(|e| strange(column, e));
        let maybe = |column| row.get_ref(column)?.as_str_or_null().map_err(|e| strange(column, e));
        let row = Row {
            offset: row.get::<_, i64>(0)? as u64,
            at: Timestamp::from_microsecond(row.get(1)?).map_err(|e| strange(1, e))?,
            id: Uuid::try_parse(text(2)?).map_err(|e| strange(2, e))?,
            topic: text(3)?,
            kind: text(4)?,
            subject: text(5)?,
            trace: maybe(6)?,
            late: maybe(7)?,
            data: text(8)?,
            source: None,
        };
        Ok(row.entry(epoch, &self.envelope))
    }

    /// Entries behind an offset, in order.
    pub(super) fn page(&self, conn: &Connection, epoch: u64, after: u64) -> rusqlite::Result<Vec<Entry>> {
        let mut query = conn
            .prepare_cached(&format!("select {COLUMNS} from entry where seq > ?1 order by seq limit ?2"))?;
        let mut rows = query.query(params![offset(after), self.options.page_count_max])?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        while bytes < self.options.page_bytes_max
            && let Some(row) = rows.next()?
        {
            let entry = self.entry(row, epoch)?;
            bytes += entry.relayed.as_ref().map_or(0, |r| r.event.len());
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Entries by filter: by the index when they are few and far, by walking otherwise.
    pub(super) fn read(&self, conn: &Connection, range: &Range) -> rusqlite::Result<Found> {
        let bounds = bounds_of(conn, &range.filter)?;
        let low = range.after.max(bounds.first.saturating_sub(1));
        let high = range.to.min(bounds.last);
        let far = high.saturating_sub(low) > u64::from(self.options.walk_count_max);
        let mut read = Read { reader: self, range, bounds, entries: Vec::new(), bytes: 0, full: None };
        let few = if far { self.few(conn, &range.filter)? } else { None };
        let end = match few {
            Some(offsets) => {
                let mut query =
                    conn.prepare_cached(&format!("select {COLUMNS} from entry where seq = ?1"))?;
                for seq in offsets.into_iter().filter(|seq| (low + 1..=high).contains(seq)) {
                    let mut rows = query.query(params![offset(seq)])?;
                    if let Some(row) = rows.next()?
                        && !read.take(row)?
                    {
                        break;
                    }
                }
                high
            }
            None => {
                let end = high.min(low.saturating_add(u64::from(self.options.walk_count_max)));
                let sql = format!(
                    "select {COLUMNS} from entry
                      where (?1 = '' or {BELOW}) and seq > ?2 and seq <= ?3 order by seq"
                );
                let mut query = conn.prepare_cached(&sql)?;
                let mut rows = query.query(params![range.filter.fixed_prefix(), offset(low), offset(end)])?;
                while let Some(row) = rows.next()? {
                    if !read.take(row)? {
                        break;
                    }
                }
                end
            }
        };
        let scanned_to = read.full.unwrap_or(end.max(low));
        Ok(Found { bounds, entries: read.entries, scanned_to })
    }

    /// All offsets of a filter, ascending, if there are few.
    fn few(&self, conn: &Connection, filter: &Filter) -> rusqlite::Result<Option<Vec<u64>>> {
        let prefix = filter.fixed_prefix();
        if prefix.is_empty() {
            return Ok(None);
        }
        // each branch is one range of the index, read without touching the table
        let sql = "select seq, topic from (
                     select seq, topic from entry where topic = ?1
                     union all
                     select seq, topic from entry where topic > ?1 || '/' and topic < ?1 || '0')
                   limit ?2";
        let mut query = conn.prepare_cached(sql)?;
        let mut rows = query.query(params![prefix, FEW + 1])?;
        let mut offsets = Vec::new();
        let mut looked = 0;
        while let Some(row) = rows.next()? {
            looked += 1;
            if filter.matches_str(row.get_ref(1)?.as_str().map_err(|e| strange(1, e))?) {
                offsets.push(row.get::<_, i64>(0)? as u64);
            }
        }
        offsets.sort_unstable();
        Ok((looked <= FEW).then_some(offsets))
    }

    /// The offset behind which the last `count` entries that match begin.
    pub(super) fn before_last(
        &self,
        conn: &Connection,
        filter: &Filter,
        count: u32,
    ) -> rusqlite::Result<u64> {
        let bounds = bounds_of(conn, filter)?;
        let lowest = bounds.first.saturating_sub(1);
        if let Some(mut offsets) = self.few(conn, filter)? {
            // what stands below the floor belongs to a channel that keeps more than another that is reached
            offsets.retain(|offset| *offset > lowest);
            let nth = offsets.len().checked_sub(count as usize).and_then(|i| offsets.get(i));
            return Ok(match nth {
                Some(seq) => seq - 1,
                None if count == 0 => bounds.last,
                None => lowest,
            });
        }
        let low = lowest.max(bounds.last.saturating_sub(u64::from(self.options.last_walk_count_max)));
        let sql =
            format!("select seq, topic from entry where (?1 = '' or {BELOW}) and seq > ?2 order by seq desc");
        let mut query = conn.prepare_cached(&sql)?;
        let mut rows = query.query(params![filter.fixed_prefix(), offset(low)])?;
        let mut left = count;
        let mut found = bounds.last;
        while left > 0 {
            let Some(row) = rows.next()? else { return Ok(low) };
            if filter.matches_str(row.get_ref(1)?.as_str().map_err(|e| strange(1, e))?) {
                found = (row.get::<_, i64>(0)? as u64).saturating_sub(1);
                left -= 1;
            }
        }
        Ok(found)
    }
}

/// A read on its way.
struct Read<'a> {
    reader: &'a Reader,
    range: &'a Range,
    bounds: Bounds,
    entries: Vec<minium_bus::Relayed>,
    bytes: usize,
    /// The last offset that was taken, once there is room for no more.
    full: Option<u64>,
}

impl Read<'_> {
    /// Takes a row if it matches; false when there is room for no more.
    fn take(&mut self, row: &rusqlite::Row<'_>) -> rusqlite::Result<bool> {
        let topic = row.get_ref(3)?.as_str().map_err(|e| strange(3, e))?;
        if !self.range.filter.matches_str(topic) {
            return Ok(true);
        }
        let entry = self.reader.entry(row, self.bounds.epoch)?;
        if let Some(relayed) = entry.relayed {
            self.bytes += relayed.event.len();
            self.entries.push(relayed);
        }
        let full = self.entries.len() >= self.range.count_max as usize || self.bytes >= self.range.bytes_max;
        self.full = full.then_some(entry.offset);
        Ok(!full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_kept_from_the_greatest_floor_of_the_channels_it_reaches() {
        let floor = |(prefix, first): (&str, i64)| Floor { prefix: prefix.into(), first, active: true };
        let floors = [("", 9), ("a", 5), ("a/b", 7), ("a/c/d", 3)].map(floor);
        let of = |filter: &str| first_of(&filter.parse().unwrap(), &floors);
        assert_eq!(["a/b", "a/b/x", "a/c", "a/x", "a", "b"].map(of), [7, 7, 5, 5, 7, 9]);
        assert_eq!(["a/+/d", "a/+/x", "a/c/+", "+"].map(of), [7, 7, 5, 9]);
    }
}
