//! Counting what is kept, and letting go of the rest, on SQLite: as the functions of PostgreSQL's schema do it
//! (`migrations/postgres/0003_channels.sql`), in short transactions, since writers wait for them.

use super::read::offset;
use crate::retention::{Retention, Trim, Trimmed};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::collections::BTreeMap;
use std::time::Duration;

/// A channel's newest span grows until it is so wide.
const SPAN_WIDTH: i64 = 5_000;

/// So many entries of other channels are passed at most in one step.
const WALK_COUNT_MAX: i64 = 5_000;

fn begin(conn: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    conn.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Is a topic this prefix, or below it? Everything is below the empty one.
pub(super) fn reaches(prefix: &str, topic: &str) -> bool {
    prefix.is_empty()
        || topic.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The configured channels, the longest prefix first.
fn channels(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "select prefix from journal_channel where active order by length(prefix) desc";
    conn.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect()
}

/// Whose entry is it? The empty prefix, which is always there, is the last of them.
fn channel_of<'a>(channels: &'a [String], topic: &str) -> &'a str {
    channels.iter().find(|prefix| reaches(prefix, topic)).map_or("", |prefix| prefix)
}

/// Says which channels are configured. When they are not those that were, what is kept is counted anew. A new channel
/// begins with the floor of the one that its entries belonged to.
pub(super) fn assign(conn: &mut Connection, prefixes: &[String]) -> rusqlite::Result<()> {
    let transaction = begin(conn)?;
    let mut configured = channels(&transaction)?;
    configured.retain(|prefix| !prefix.is_empty());
    configured.sort_unstable();
    if configured == prefixes {
        return Ok(());
    }
    let floors = floors(&transaction)?;
    transaction.execute("update journal_channel set active = prefix = ''", [])?;
    for prefix in prefixes {
        let sql = "insert into journal_channel (prefix, first) values (?1, ?2)
                   on conflict (prefix) do update set active = 1, first = excluded.first";
        transaction.execute(sql, params![prefix, floor_of(&floors, prefix)])?;
    }
    transaction.execute("delete from journal_span", [])?;
    let sql = "update journal_count set counted_to = coalesce((select min(seq) from entry) - 1, counted_to)";
    transaction.execute(sql, [])?;
    transaction.commit()
}

/// A channel that says something, configured or not any more.
#[derive(Debug, Clone)]
pub(super) struct Floor {
    pub(super) prefix: String,
    pub(super) first: i64,
    pub(super) active: bool,
}

/// All of them.
pub(super) fn floors(conn: &Connection) -> rusqlite::Result<Vec<Floor>> {
    let mut query = conn.prepare_cached("select prefix, first, active from journal_channel")?;
    let floor =
        |row: &rusqlite::Row<'_>| Ok(Floor { prefix: row.get(0)?, first: row.get(1)?, active: row.get(2)? });
    query.query_map([], floor)?.collect()
}

/// What belongs to a topic or prefix is kept from this offset on, as far as its channel says, and those between the two
/// that are not configured any more.
pub(super) fn floor_of(floors: &[Floor], topic: &str) -> i64 {
    let line = || floors.iter().filter(|floor| reaches(&floor.prefix, topic));
    let channel = line().filter(|floor| floor.active).map(|floor| floor.prefix.len()).max().unwrap_or(0);
    line().filter(|floor| floor.prefix.len() >= channel).map(|floor| floor.first).max().unwrap_or(1)
}

#[derive(Debug, Clone, Copy)]
struct Span {
    first: i64,
    last: i64,
    count: i64,
    bytes: i64,
}

/// Counts the next entries for their channels, and says how many offsets were looked at.
pub(super) fn count(conn: &mut Connection, batch: u32) -> rusqlite::Result<u64> {
    let transaction = begin(conn)?;
    let low: i64 =
        transaction.prepare_cached("select counted_to from journal_count")?.query_row([], |r| r.get(0))?;
    let sql = "select min(?1 + ?2, coalesce((select seq from sqlite_sequence where name = 'entry'), 0))";
    let high: i64 = transaction.prepare_cached(sql)?.query_row(params![low, batch], |r| r.get(0))?;
    if high <= low {
        return Ok(0);
    }
    let channels = channels(&transaction)?;
    let mut fresh: BTreeMap<&str, Span> = BTreeMap::new();
    {
        let sql =
            "select seq, topic, octet_length(data) from entry where seq > ?1 and seq <= ?2 order by seq";
        let mut query = transaction.prepare_cached(sql)?;
        let mut rows = query.query(params![low, high])?;
        while let Some(row) = rows.next()? {
            let (seq, bytes): (i64, i64) = (row.get(0)?, row.get(2)?);
            let prefix = channel_of(&channels, row.get_ref(1)?.as_str()?);
            let span = fresh.entry(prefix).or_insert(Span { first: seq, last: seq, count: 0, bytes: 0 });
            span.last = seq;
            span.count += 1;
            span.bytes += bytes;
        }
    }
    for (prefix, span) in fresh {
        grow(&transaction, prefix, span)?;
    }
    transaction.execute("update journal_count set counted_to = ?1", params![high])?;
    transaction.commit()?;
    Ok((high - low) as u64)
}

/// Adds to a channel's newest span, or begins a new one when that is wide enough.
fn grow(conn: &Connection, prefix: &str, fresh: Span) -> rusqlite::Result<()> {
    let sql = "update journal_span set last = ?2, count = count + ?3, bytes = bytes + ?4
                where prefix = ?1 and first = (select max(first) from journal_span where prefix = ?1)
                  and ?2 - first < ?5";
    let Span { first, last, count, bytes } = fresh;
    let grown = conn.prepare_cached(sql)?.execute(params![prefix, last, count, bytes, SPAN_WIDTH])?;
    if grown == 0 {
        let sql = "insert into journal_span (prefix, first, last, count, bytes) values (?1, ?2, ?3, ?4, ?5)";
        conn.prepare_cached(sql)?.execute(params![prefix, first, last, count, bytes])?;
    }
    Ok(())
}

/// Lets go of the oldest entries of a channel, within its oldest span.
pub(super) fn trim(
    conn: &mut Connection,
    prefix: &str,
    retention: &Retention,
    trim: Trim,
) -> rusqlite::Result<Trimmed> {
    let transaction = begin(conn)?;
    let sql = "select first, last, count, bytes from journal_span where prefix = ?1 order by first limit 1";
    let span = transaction.prepare_cached(sql)?.query_row(params![prefix], |row| {
        Ok(Span { first: row.get(0)?, last: row.get(1)?, count: row.get(2)?, bytes: row.get(3)? })
    });
    let Some(span) = span.optional()? else { return Ok(Trimmed::default()) };
    let sql = "select total(count), total(bytes) from journal_span where prefix = ?1";
    let (count, bytes): (f64, f64) =
        transaction.prepare_cached(sql)?.query_row(params![prefix], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let now = Timestamp::now().as_microsecond();
    let ago = |span: Duration| now.saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX));
    let bounds = Bounds {
        before: ago(retention.age),
        young: ago(trim.grace),
        to: offset(trim.to),
        count_over: count - retention.count as f64,
        bytes_over: bytes - retention.bytes as f64,
    };
    let walked = walk(&transaction, prefix, span, &bounds, trim.batch)?;
    let mut delete = transaction.prepare_cached("delete from entry where seq = ?1")?;
    for seq in &walked.gone {
        delete.execute(params![seq])?;
    }
    drop(delete);
    if walked.to >= span.last {
        let sql = "delete from journal_span where prefix = ?1 and first = ?2";
        transaction.prepare_cached(sql)?.execute(params![prefix, span.first])?;
    } else if walked.to >= span.first {
        let sql = "update journal_span set first = ?3, count = count - ?4, bytes = bytes - ?5
                    where prefix = ?1 and first = ?2";
        let gone = walked.gone.len() as i64;
        let changed = params![prefix, span.first, walked.to + 1, gone, walked.bytes];
        transaction.prepare_cached(sql)?.execute(changed)?;
    }
    if let Some(last) = walked.gone.last() {
        let sql = "update journal_channel set first = max(first, ?2) where prefix = ?1";
        transaction.prepare_cached(sql)?.execute(params![prefix, last + 1])?;
    }
    transaction.commit()?;
    Ok(Trimmed { gone: walked.gone.len() as u64, more: !walked.stays })
}

/// What lets an entry go, and what keeps it.
struct Bounds {
    before: i64,
    young: i64,
    to: i64,
    /// So many entries and bytes are too many.
    count_over: f64,
    bytes_over: f64,
}

impl Bounds {
    fn goes(&self, seq: i64, at: i64, gone: usize, lighter: i64) -> bool {
        let beyond =
            at < self.before || gone as f64 + 1.0 <= self.count_over || (lighter as f64) < self.bytes_over;
        beyond && at < self.young && seq <= self.to
    }
}

/// How far a span was walked.
struct Walked {
    gone: Vec<i64>,
    /// Of what goes.
    bytes: i64,
    /// Everything of the channel up to here is among them.
    to: i64,
    /// The next one stays.
    stays: bool,
}

fn walk(
    conn: &Connection,
    prefix: &str,
    span: Span,
    bounds: &Bounds,
    batch: u32,
) -> rusqlite::Result<Walked> {
    let channels = channels(conn)?;
    let sql = "select seq, topic, at, octet_length(data) from entry where seq >= ?1 and seq <= ?2
                order by seq limit ?3";
    let mut query = conn.prepare_cached(sql)?;
    let mut rows = query.query(params![span.first, span.last, WALK_COUNT_MAX])?;
    let mut walked = Walked { gone: Vec::new(), bytes: 0, to: span.first - 1, stays: false };
    let mut passed = 0;
    while let Some(row) = rows.next()? {
        let (seq, at): (i64, i64) = (row.get(0)?, row.get(2)?);
        passed += 1;
        if channel_of(&channels, row.get_ref(1)?.as_str()?) == prefix {
            if !bounds.goes(seq, at, walked.gone.len(), walked.bytes) {
                walked.stays = true;
                return Ok(walked);
            }
            walked.gone.push(seq);
            walked.bytes += row.get::<_, i64>(3)?;
        }
        walked.to = seq;
        if walked.gone.len() >= batch as usize {
            return Ok(walked);
        }
    }
    if passed < WALK_COUNT_MAX {
        walked.to = span.last;
    }
    Ok(walked)
}

/// Forgets channels that are not configured and say nothing that the one above them does not say.
pub(super) fn sweep(conn: &mut Connection) -> rusqlite::Result<()> {
    let transaction = begin(conn)?;
    let channels = channels(&transaction)?;
    let floors = floors(&transaction)?;
    let covered = |floor: &&Floor| {
        let channel = channel_of(&channels, &floor.prefix);
        floors.iter().any(|above| above.prefix == channel && floor.first <= above.first)
    };
    for floor in floors.iter().filter(|floor| !floor.active).filter(covered) {
        transaction.execute("delete from journal_channel where prefix = ?1", params![floor.prefix])?;
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_by_whole_segments_governs() {
        let channels = ["a/b", "a", ""].map(str::to_owned);
        let of = |topic| channel_of(&channels, topic);
        assert_eq!([of("a/b/c"), of("a/b"), of("a/bc"), of("ab"), of("c/a")], ["a/b", "a/b", "a", "", ""]);
    }
    #[test]
    fn a_channel_that_was_says_what_is_missing_beside_the_one_that_is() {
        let floor =
            |(prefix, first, active): (&str, i64, bool)| Floor { prefix: prefix.into(), first, active };
        let floors = [("", 90, true), ("a", 5, true), ("a/b", 7, false), ("a/b/c", 3, false)].map(floor);
        assert_eq!(["a/x", "a/b", "a/b/c", "b"].map(|topic| floor_of(&floors, topic)), [5, 7, 7, 90]);
    }
}
