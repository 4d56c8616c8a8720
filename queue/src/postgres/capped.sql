-- Claims jobs, so many of each task at most: for a worker that has bounds for some of its tasks.
-- $1 how many in all, $2 queues, in the order of this turn, $3 tasks, in the order of this turn, $4 how many of each,
-- $5 lowest priority, $6 the worker as JSON, $7 length of the lease in microseconds
--
-- Jobs that run under a limit are claimed by minium.claim_limited.
-- Indexes: job_ready_task for the choice (minium.choose_capped), the key of job for the claim. Locks: the claimed jobs,
-- passing over what others hold. The choice is made once, before a job is looked at, and has locked what it answers.
with
chosen as materialized (
  select array_agg(x.id order by x.id) as ids, array_agg(x.place::int order by x.id) as places
    from unnest(minium.choose_capped($1::bigint, $2::text[], $3::text[], $4::bigint[], $5::int)) with ordinality as x (id, place)),
c as (
  update minium.job as j
     set state = 'active', ready = false, attempt = j.attempt + 1, started = now(), progress = null,
         worker = $6::text::json, lease = gen_random_uuid(),
         lease_until = now() + $7::bigint * interval '1 microsecond'
   where j.id = any ((select ids from chosen)::bigint[])
  returning j.id, j.seq, j.priority, j.task, j.queue, j.args, j.attempt, j.attempts, j.lease, j.lease_until,
            j.timeout_us, j.trace, nullif(j.notes, '{}') as notes, nullif(j.parents, '{}') as parents,
            j.unique_us = 0 as let_go, minium.snapshot(j) as data,
            (select places from chosen)[width_bucket(j.id, (select ids from chosen))] as place,
            extract(epoch from j.started - j.delayed)::float8 as waited),
keys as (
  delete from minium.job_key where waiting and job = any (array(select id from c where let_go))),
events as (
  insert into minium.entry (topic, type, subject, trace, data)
  select 'task/' || task || '/' || id, 'task.dequeue', id::text, trace, data from c order by place),
figures as (
  insert into minium.tally (inactive, active) select -count(*), count(*) from c having count(*) > 0)
select place, id, task, queue, args::text, attempt, attempts, lease, lease_until, timeout_us, trace, priority,
       notes::text, parents, null::text, waited
  from c
union all
select null, null, pg_notify('minium_journal', '')::text, null, null, null, null, null, null, null, null, null, null, null, null, null
  from minium.wake where name = 'journal' and armed and exists (select from c)
