-- Makes those wait again that failed in this very transaction (its now() is when they failed) with attempts left.
-- $1 ids that may be retried, in their order, $2 their leases, $3 $4 pauses in microseconds, or null: this run's, and its task's
-- The pause is this run's, else the job's own, exactly, else the task's, else retries⁴ + 15 s, a tenth more or less.
-- Index: the key of job. Locks: held already.
with
r as (
  update minium.job as j
     set state = 'inactive', retries = j.retries + 1, retried = now(), finished = null, lease_until = null,
         seq = nextval('minium.ready_seq'),
         (delayed, later_at, ready) = (
           select now() + p.pause, case when p.pause > interval '0' then now() + p.pause end,
                  p.pause = interval '0' and j.left_n = 0
             from (select least(interval '30 days', coalesce(
                       ($3::bigint[])[width_bucket(j.id, $1::bigint[])] * interval '1 microsecond',
                       j.backoff_us * interval '1 microsecond',
                       ($4::bigint[])[width_bucket(j.id, $1::bigint[])] * interval '1 microsecond',
                       least((j.retries::float8 ^ 4 + 15) * (0.9 + 0.2 * random()), 2592000) * interval '1 second')) as pause) p)
   where j.id = any ($1::bigint[]) and j.state = 'failed' and j.finished = now() and j.attempt < j.attempts
     and j.lease = ($2::uuid[])[width_bucket(j.id, $1::bigint[])]
  returning j.id, j.task, j.trace, j.ready, minium.snapshot(j) as data),
events as (
  insert into minium.entry (topic, type, subject, trace, data)
  select 'task/' || task || '/' || id, 'task.retry', id::text, trace, data from r order by id),
figures as (
  insert into minium.tally (failed, inactive) select -count(*), count(*) from r having count(*) > 0)
select count(*), coalesce(bool_or(ready), false), minium.wake_up(coalesce(bool_or(ready), false))::text from r
