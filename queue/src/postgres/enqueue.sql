-- Enqueues jobs that ask for nothing but their turn: no parents, no keys, nothing for a failure. One statement, one commit.
-- $1 tasks, $2 arguments, $3 queues, $4 priorities, $5 attempts, $6 delays, $7 expiries, $8 lax or not, $9 notes,
-- $10 time-outs, $11 pauses, $12 schedules, $13 origins, $14 traces, $15 partitions: one of each for each job. Spans are
-- microseconds.
-- Answers the ids, which are drawn in the order of the jobs; nothing, and does nothing, where arguments are masked or tasks have
-- limits: then minium.enqueue_jobs does it, which does all of this too. This one costs half of it. (Setting up the plan is most
-- of what a single job costs: what is not a part of it needs no setting up.)
-- Indexes: lane_queue. Locks: none but those of new rows.
with
j as (
  insert into minium.job as j (task, queue, priority, args, notes, attempts, lax, schedule, origin, trace, timeout_us,
                               backoff_us, created, delayed, later_at, expires, ready, part)
  select u.task, u.queue, u.priority, u.args::json, u.notes::jsonb, u.attempts, u.lax, u.schedule, u.origin, u.trace, u.timeout,
         u.backoff, statement_timestamp(), statement_timestamp() + u.delay * interval '1 microsecond',
         case when u.delay > 0 then statement_timestamp() + u.delay * interval '1 microsecond' end,
         statement_timestamp() + u.expiry * interval '1 microsecond', u.delay = 0, u.part
    from unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::int[], $6::bigint[], $7::bigint[], $8::bool[], $9::text[],
                $10::bigint[], $11::bigint[], $12::text[], $13::bigint[], $14::text[], $15::text[])
           as u (task, args, queue, priority, attempts, delay, expiry, lax, notes, timeout, backoff, schedule, origin, trace,
                 part)
   where not exists (select from minium.limit_rule)
     and not exists (select from minium.mask where paths <> '[]')
  returning j.id, j.task, j.queue, j.priority, j.trace, minium.snapshot(j) as data),
events as (
  insert into minium.entry (topic, type, subject, trace, data)
  select 'task/' || j.task || '/' || j.id, 'task.enqueue', j.id::text, j.trace, j.data from j),
lanes as (
  insert into minium.lane (queue, priority)
  select distinct j.queue, j.priority from j
   where not exists (select from minium.lane l where l.queue = j.queue and l.priority = j.priority)),
figures as (
  insert into minium.tally (inactive) select count(*) from j having count(*) > 0)
select j.id,
       (select count(pg_notify(case w.name when 'journal' then 'minium_journal' else 'minium_job' end, ''))
          from minium.wake w
         where w.name = 'journal' and w.armed or w.name = 'jobs' and w.until > clock_timestamp())
  from j
