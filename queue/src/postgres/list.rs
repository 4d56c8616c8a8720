//! One piece of a list of jobs: what it walks over, and what it leaves out.

use super::PgStore;
use super::read::json;
use super::session::Session;
use crate::error::QueueError;
use crate::filter::{JobFilter, STEP_MARK, ValueAt};
use crate::listing::{self, JobPage, Piece};
use minium_protocol::State;
use tokio_postgres::types::ToSql;

/// Where a list walks: over every job, by its key; over those that have failed for good, by failure_final; over those that one
/// job has enqueued, by job_origin; or over those that it names.
const ALL: Walk = Walk {
    over: "minium.job j",
    id: "j.id",
    order: "j.id desc",
    job: "j",
    keys: Some("select x.id from minium.job x where x.id < $1::bigint order by x.id desc"),
};
/// From one of the dead to the next, each job looked up by its key: a join could be answered by reading both tables for every
/// step. What is sorted, and what has an offset, stays as it is written.
const DEAD: Walk = Walk {
    over: "(select job as dead from minium.failure where final order by job desc) d,
           lateral (select x as j from minium.job x where x.id = d.dead offset 0) l",
    id: "d.dead",
    order: "d.dead desc",
    job: "(l.j)",
    keys: Some(
        "select x.job as id from minium.failure x where x.final and x.job < $1::bigint order by x.job desc",
    ),
};
/// From one that is named to the next, looked up as the dead are. There are few.
const NAMED: Walk = Walk {
    over: "(select unnest($8::bigint[]) as named order by named desc) n,
           lateral (select x as j from minium.job x where x.id = n.named offset 0) l",
    id: "n.named",
    order: "n.named desc",
    job: "(l.j)",
    keys: None,
};
/// From one that the job has enqueued to the next. Both ends are written as ranges of the index, and its order is asked for
/// whole: an equality, or a range of numbers alone, would let the key serve, and so a walk over every job. Only the range of
/// `origin` by itself says that it is not null, as the index wants it.
const BORN: Walk = Walk {
    over: "(select x.origin, x.id as born from minium.job x
             where (x.origin, x.id) < ($9::bigint, {below}) and x.origin >= $9::bigint
               and (x.origin, x.id) >= ($9::bigint, {low}) order by x.origin desc, x.id desc) b,
           lateral (select x as j from minium.job x where x.id = b.born offset 0) l",
    id: "b.born",
    order: "b.origin desc, b.born desc",
    job: "(l.j)",
    keys: Some(
        "select x.id from minium.job x where (x.origin, x.id) < ($9::bigint, $1::bigint) and x.origin >= $9::bigint
          order by x.origin desc, x.id desc",
    ),
};

/// What a list walks over (`{below}` is where it stands, `{low}` where its piece ends), its key, the order from the newest on,
/// and the job as the conditions name it.
struct Walk {
    over: &'static str,
    id: &'static str,
    order: &'static str,
    job: &'static str,
    /// The keys alone, by which a piece is measured before it is walked over; nothing where there are few.
    keys: Option<&'static str>,
}

/// What looks into what a job says: one form for all of it, so that there are few plans. A text with the escape of a NUL is none
/// that PostgreSQL can take apart, and its parts are found by nobody.
const CLOSELY: &str = r#"
     (cardinality($10::text[]) = 0
      or {j}.state = 'inactive'
         and case when {j}.left_n > 0 then 'blocked' when {j}.later_at > now() then 'delayed' else 'ready' end = any ($10::text[]))
     and coalesce({j}.created >= $11::timestamptz, true) and coalesce({j}.created < $12::timestamptz, true)
     and ($13::timestamptz is null or {j}.finished >= $13::timestamptz)
     and ($14::timestamptz is null or {j}.finished < $14::timestamptz)
     and not exists (
       select from unnest($15::text[], $16::text[]) as a (path, value),
              lateral (select (string_to_array(a.path, chr(1)))[2:] as steps) s
        where coalesce({j}.notes #>> s.steps, ({j}.notes #> s.steps)::text) is distinct from a.value)
     and case
       when cardinality($17::text[]) = 0 then true
       when strpos(coalesce({j}.args_shown, {j}.args)::text, '\u0000') > 0 then false
       else not exists (
         select from unnest($17::text[], $18::text[]) as a (path, value),
                lateral (select (string_to_array(a.path, chr(1)))[2:] as steps) s
          where coalesce(coalesce({j}.args_shown, {j}.args) #>> s.steps, (coalesce({j}.args_shown, {j}.args) #> s.steps)::text)
                is distinct from a.value)
     end
     and ($19::text is null
          or strpos(lower(concat_ws(chr(10), {j}.task, coalesce({j}.args_shown, {j}.args)::text, {j}.notes::text, {j}.error)
                          collate "C"), $19::text) > 0)"#;

/// The same parameters where none of it is asked for.
const LOOSELY: &str = "
     $10::text[] is not null and ($11::timestamptz is null or true) and ($12::timestamptz is null or true)
     and ($13::timestamptz is null or true) and ($14::timestamptz is null or true) and $15::text[] is not null
     and $16::text[] is not null and $17::text[] is not null and $18::text[] is not null and ($19::text is null or true)";

impl PgStore {
    pub(super) async fn list_jobs(&self, filter: &JobFilter) -> Result<JobPage, QueueError> {
        filter.check()?;
        listing::page(&filter.storable(), |asked, step| self.piece(asked, step)).await
    }

    async fn piece(&self, filter: JobFilter, step: u32) -> Result<Piece, QueueError> {
        let states = words(&filter.states, |state| state.as_str());
        let sql = piece_sql(&filter, walk(&filter));
        let (before, limit, step) =
            (filter.before.unwrap_or(i64::MAX), i64::from(filter.limit), i64::from(step));
        let bytes_max = i64::try_from(filter.bytes_max).unwrap_or(i64::MAX);
        // zero is no job's number
        let origin = filter.origin.unwrap_or(0);
        let phases = words(&filter.phases, |phase| phase.as_str());
        let (notes, args) = (Places::of(&filter.notes_at), Places::of(&filter.args_at));
        let params: [&(dyn ToSql + Sync); 20] = [
            &before,
            &limit,
            &states,
            &filter.tasks,
            &filter.queues,
            &filter.notes,
            &bytes_max,
            &filter.ids,
            &origin,
            &phases,
            &filter.enqueued.after,
            &filter.enqueued.before,
            &filter.ended.after,
            &filter.ended.before,
            &notes.paths,
            &notes.values,
            &args.paths,
            &args.values,
            &filter.text,
            &step,
        ];
        let (sql, params) = (&sql, &params);
        let list = |client: Session| async move {
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, params).await
        };
        let rows = self.connections.run("list jobs", list).await?;
        let (mut piece, mut last) =
            (Piece { jobs: Vec::with_capacity(rows.len()), full: None, low: None }, None);
        for row in rows {
            piece.low = row.get(2);
            match (row.get::<_, Option<i64>>(0), row.get(1)) {
                (Some(id), Some(snapshot)) => {
                    piece.jobs.push(json(snapshot));
                    last = Some(id);
                }
                // one more passes
                (Some(_), None) => piece.full = last,
                (None, _) => {}
            }
        }
        Ok(piece)
    }
}

fn words<T: Copy>(all: &[T], word: impl Fn(T) -> &'static str) -> Vec<&'static str> {
    all.iter().map(|one| word(*one)).collect()
}

/// Places as two arrays, of which the first has paths with a mark before each step: an array of arrays would have to have
/// rows of one length.
struct Places {
    paths: Vec<String>,
    values: Vec<String>,
}

impl Places {
    fn of(places: &[ValueAt]) -> Places {
        let path = |at: &ValueAt| at.path.iter().map(|step| format!("{STEP_MARK}{step}")).collect();
        Places {
            paths: places.iter().map(path).collect(),
            values: places.iter().map(|at| at.value.clone()).collect(),
        }
    }
}

fn walk(filter: &JobFilter) -> Walk {
    match filter.states[..] {
        _ if !filter.ids.is_empty() => NAMED,
        _ if filter.origin.is_some() => BORN,
        // the dead are found without walking over the living
        [State::Failed] => DEAD,
        _ => ALL,
    }
}

/// Walks the key from the newest job downwards: the first page is fast, however many jobs there are. Conditions that are not
/// asked for are left out, so that each form has its own plan; every parameter is named, so that all forms take the same.
///
/// Where something is left out, the keys of one piece are walked over first, so that it is known where the piece ends. Step by
/// step, so that no snapshot is made beyond the page's bytes. A last row without one says that there are more.
fn piece_sql(filter: &JobFilter, Walk { over, id, order, job, keys }: Walk) -> String {
    let conditions = [
        (filter.states.is_empty(), "{j}.state::text = any ($3::text[])", "$3::text[] is not null"),
        (filter.tasks.is_empty(), "{j}.task = any ($4::text[])", "$4::text[] is not null"),
        (filter.queues.is_empty(), "{j}.queue = any ($5::text[])", "$5::text[] is not null"),
        (filter.notes.is_empty(), "{j}.notes ?& $6::text[]", "$6::text[] is not null"),
        (filter.ids.is_empty(), "{j}.id = any ($8::bigint[])", "$8::bigint[] is not null"),
        (filter.origin.is_none(), "{j}.origin = $9::bigint", "$9::bigint is not null"),
        (!filter.looks_closely(), CLOSELY, LOOSELY),
    ];
    let form = |(absent, condition, parameter): (bool, &'static str, &'static str)| {
        if absent { parameter } else { condition }
    };
    let conditions = conditions.map(form).join(" and ").replace("{j}", job);
    let (measured, low, end) = match keys.filter(|_| !filter.shows_all()) {
        Some(keys) => (
            format!("select min(k.id) as low, count(*) as n from ({keys} limit $20::bigint) k"),
            "case when w.n = $20::bigint then w.low end",
            "(select m.low from measured m)",
        ),
        None => ("select null::bigint as low, $20::bigint as n".into(), "w.low", "0"),
    };
    // said once: a walk that knows its end by itself gets no other range
    let above =
        if over.contains("{low}") || end == "0" { String::new() } else { format!("{id} >= {end} and ") };
    let over = over.replace("{low}", end);
    let (first, next) = (over.replace("{below}", "$1::bigint"), over.replace("{below}", "p.id"));
    format!(
        "with recursive measured as materialized ({measured}),
         page (n, id, snapshot, bytes) as (
           select 1::bigint, f.id, f.snapshot, octet_length(f.snapshot)::bigint from (
             select {id} as id, minium.snapshot({job})::text as snapshot from {first}
              where {id} < $1::bigint and {above}{conditions} order by {order} limit 1) f
           union all
           select p.n + 1, f.id, f.snapshot, p.bytes + coalesce(octet_length(f.snapshot), 0) from page p, lateral (
             select {id} as id, case when p.n < $2::bigint and p.bytes < $7::bigint then minium.snapshot({job})::text end as snapshot
               from {next} where {id} < p.id and {above}{conditions} order by {order} limit 1) f
            where p.snapshot is not null)
         select p.id, p.snapshot, {low} from measured w left join page p on true order by p.n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_asks_only_what_it_is_asked() {
        let sql = piece_sql(&JobFilter { tasks: vec!["a".into()], ..JobFilter::default() }, ALL);
        assert!(sql.contains("j.task = any ($4::text[])") && sql.contains("$3::text[] is not null"));
        assert!(!sql.contains("j.queue =") && !sql.contains("strpos") && sql.contains("limit $20"));
    }

    #[test]
    fn what_leaves_nothing_out_is_not_measured() {
        let all = JobFilter::default();
        let born = JobFilter { origin: Some(1), ..JobFilter::default() };
        for (filter, walk) in [(&all, ALL), (&born, BORN)] {
            assert!(!piece_sql(filter, walk).contains("limit $20"));
        }
        let late = JobFilter { text: Some("x".into()), ..born };
        assert!(piece_sql(&late, BORN).contains("limit $20"));
    }
}
