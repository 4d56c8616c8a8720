-- Runs that failed; retry.sql follows in the same transaction for those that may be run again.
-- $1 ids in their order, $2 their leases, $3 why, $4 may each be retried?, $5 backtraces
-- Index: the key of job. Locks: the jobs, by id. HOT, as a finish is.
with
f as (
  update minium.job as j
     set state = 'failed', finished = now(), result = null,
         error = ($3::text[])[width_bucket(j.id, $1::bigint[])]
   where j.id = any ($1::bigint[]) and j.state = 'active'
     and j.lease = ($2::uuid[])[width_bucket(j.id, $1::bigint[])]
  returning j.id, j.task, j.queue, j.trace, j.attempt, j.worker, j.limited is not null as counted, minium.snapshot(j) as data,
            j.attempt < j.attempts and ($4::boolean[])[width_bucket(j.id, $1::bigint[])] as again),
events as (
  insert into minium.entry (topic, type, subject, trace, data)
  select 'task/' || task || '/' || id, 'task.failed', id::text, trace, data from f order by id),
failures as (
  insert into minium.failure (job, attempt, worker, error, backtrace, final)
  select id, attempt, worker, ($3::text[])[width_bucket(id, $1::bigint[])],
         ($5::text[])[width_bucket(id, $1::bigint[])], not again from f
  on conflict (job, attempt) do nothing),
keys as (
  delete from minium.job_key where job = any (array(select id from f where not again)) and (until is null or until <= now())),
counts as (
  delete from minium.running where job = any (array(select id from f where counted))),
figures as (
  insert into minium.tally (active, failed, at) select -count(*), count(*), now() from f having count(*) > 0)
select task, queue, array_agg(id),
       exists (select from minium.edge e where e.open and e.parent = any ($1::bigint[])), bool_or(counted)
  from f group by queue, task
