-- What came under a lease that was gone. Writes one event for each job that still exists, with its unchanged snapshot
-- and what was brought, unless the same word was taken before.
-- $1 ids, $2 leases, $3 state that was brought, $4 its result or error, $5 all of it as JSON
-- Index: the key of job. Locks: the jobs, by id, so that the event stands in order among theirs.
with
j as materialized (
  select j.id, j.task, j.trace, minium.snapshot(j) as data,
         coalesce(j.lease = ($2::uuid[])[array_position($1::bigint[], j.id)]
           and case ($3::text[])[array_position($1::bigint[], j.id)]
                 when 'finished' then j.state = 'finished'
                   and j.result::text = ($4::text[])[array_position($1::bigint[], j.id)]
                 else j.state in ('failed', 'inactive')
                   and j.error = ($4::text[])[array_position($1::bigint[], j.id)] end, false) as repeated
    from minium.job j where j.id = any ($1::bigint[]) order by j.id for no key update),
events as (
  insert into minium.entry (topic, type, subject, trace, late, data)
  select 'task/' || task || '/' || id, 'task.late_result', id::text, trace,
         ($5::text[])[array_position($1::bigint[], id)]::json, data
    from j where not repeated order by array_position($1::bigint[], id))
select id, repeated, minium.wake_up(false)::text from j
