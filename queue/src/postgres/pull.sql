-- Claims jobs for many pullers: one statement, one commit.
-- For each pull: $1 its queue, $2 its tasks as an array in text, in the order of this turn, $3 how many it takes,
-- $4 length of the lease in microseconds, $5 where its workers begin in $6, less one
-- $6 workers as JSON: the first of a pull gets its first job, and so on
--
-- Jobs that run under a limit are claimed by minium.claim_limited.
-- Index: job_ready_task, one look for each task and priority in use. Locks: the claimed jobs, passing over what others
-- hold. A job that two pulls have chosen goes to the last. Rows are found by ctid and their places by width_bucket,
-- as in exchange.sql.
with
chosen as materialized (
  select a.pull, a.lease_us, a.base + x.nth as place, x.id, x.tid
    from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) with ordinality
           as a (queue, tasks, n, lease_us, base, pull),
         lateral (
           select r.id, r.tid, row_number() over () as nth
             from (select w.id, w.tid
                     from (select l.priority, t.task
                             from (select distinct priority from minium.lane
                                    where queue = a.queue
                                      and queue <> all (array(select p.queue from minium.paused_queue p))) l,
                                  unnest(a.tasks::text[]) with ordinality as t (task, turn)
                            order by l.priority desc, t.turn) o,
                          lateral (
                            select j.id, j.ctid as tid from minium.job j
                             where j.ready and coalesce(j.limited, '') = '' and j.task = o.task
                               and j.queue = a.queue and j.priority = o.priority
                               and (j.expires is null or j.expires > now() or j.attempt > 0)
                             order by j.seq limit a.n for update skip locked) w
                    limit a.n) r) x),
lists as materialized (
  select array_agg(id order by id) as ids, array_agg(tid order by id) as tids,
         array_agg(place order by id) as places, array_agg(lease_us order by id) as leases from chosen),
c as (
  update minium.job as j
     set state = 'active', ready = false, attempt = j.attempt + 1, started = now(), progress = null,
         worker = ($6::text[])[(select places from lists)[width_bucket(j.id, (select ids from lists))]]::json,
         lease = gen_random_uuid(),
         lease_until = now() + (select leases from lists)[width_bucket(j.id, (select ids from lists))]
                               * interval '1 microsecond'
   where j.ctid = any ((select tids from lists)::tid[])
  returning (select places from lists)[width_bucket(j.id, (select ids from lists))] as place,
            j.id, j.task, j.queue, j.args, j.attempt, j.attempts, j.lease, j.lease_until, j.timeout_us, j.trace, j.priority,
            nullif(j.notes, '{}') as notes, nullif(j.parents, '{}') as parents, j.unique_us = 0 as let_go,
            minium.snapshot(j) as data,
            -- whoever runs it sees all of it
            case when j.args_shown is not null then minium.snapshot_with(j, j.args) end as whole,
            extract(epoch from j.started - j.delayed)::float8 as waited),
keys as (
  delete from minium.job_key where waiting and job = any (array(select id from c where let_go))),
events as (
  insert into minium.entry (topic, type, subject, trace, data)
  select 'task/' || task || '/' || id, 'task.dequeue', id::text, trace, data from c order by place),
figures as (
  insert into minium.tally (inactive, active) select -count(*), count(*) from c having count(*) > 0)
select place, id, task, queue, args::text, attempt, attempts, lease, lease_until, timeout_us, trace, priority,
       notes::text, parents, coalesce(whole, data)::text, waited
  from c
union all
select null, null, pg_notify('minium_journal', '')::text, null, null, null, null, null, null, null, null, null, null, null, null, null
  from minium.wake where name = 'journal' and armed and exists (select from c)
