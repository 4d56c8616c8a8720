-- What came under a lease that was gone. Writes one event for each job that still exists, with its unchanged snapshot
-- and what was brought, unless the same word was taken before.
-- $1 ids in their order, $2 leases, $3 state that was brought, $4 its result or error, $5 all of it as JSON
-- Index: the key of job. Locks: the jobs, by id, so that the event stands in order among theirs.
-- Answers each job that there is; with nothing about one that is passed over (`judging.rs`), or has gone meanwhile.
with
t as materialized (select id from minium.job where id = any ($1::bigint[])),
j as materialized (
  select j.id, j.task, j.trace, minium.snapshot(j) as data,
         coalesce(j.lease = ($2::uuid[])[width_bucket(j.id, $1::bigint[])]
           and case ($3::text[])[width_bucket(j.id, $1::bigint[])]
                 when 'finished' then j.state = 'finished'
                   and j.result::text = ($4::text[])[width_bucket(j.id, $1::bigint[])]
                 else j.state in ('failed', 'inactive')
                   and j.error = ($4::text[])[width_bucket(j.id, $1::bigint[])] end, false) as repeated
    from minium.job j where j.id = any ($1::bigint[]) order by j.id for no key update),
events as (
  insert into minium.entry (topic, type, subject, trace, late, data)
  select 'task/' || task || '/' || id, 'task.late_result', id::text, trace,
         ($5::text[])[width_bucket(id, $1::bigint[])]::json, data
    from j where not repeated order by id)
select t.id, j.repeated, minium.wake_up(false)::text from t left join j on j.id = t.id
