-- Finishes the last batch and claims the next. Either part may be empty: with many outcomes it is run twice in one transaction,
-- so that the claim has a look of its own.
-- $1 ids in their order, $2 their leases, $3 their results: jobs that finished
-- $4 how many to claim, $5 the worker as JSON, $6 length of the lease in microseconds
-- $7 queues, in the order of this turn, $8 tasks or null, $9 lowest priority
-- $10 $11 $12 queues, priorities and low-water marks: jobs that became ready up to a mark are not looked at
-- $13 null, or microseconds: lanes whose first job has been ready for so long come first, the longest waiting before all
--
-- A claim of one task looks for it by job_ready_task. One of several tasks takes them in their common order from the next
-- thousand places of a lane, which costs little where most of what is ready is theirs; and where it is not, goes on task by
-- task, the one whose first job has waited longest before the others: what foreign jobs wait there is never walked over. A row
-- `t` tells that it went on so, and that what it took says nothing of what lies between.
--
-- Jobs that run under a limit are claimed by minium.claim_limited; a row `l` tells that there are limits.
-- Indexes: the key of job for the finish, job_ready and job_ready_task for the claim. Locks: the finished jobs, by id; the claimed ones,
-- passing over what others hold. Outcomes are found by width_bucket, which halves its way through ids in order, and rows by ctid,
-- so that there is no join that a plan made on an empty table could get wrong. (array_position goes through all ids for each:
-- 3.1 µs with 250 of them and 13 µs with 1,000, against 0.2 and 0.4.) The finish touches no indexed column: it is a HOT update.
with
f as (
  update minium.job as j
     set state = 'finished', finished = now(), error = null,
         result = ($3::text[])[width_bucket(j.id, $1::bigint[])]::json
   where j.id = any ($1::bigint[]) and j.state = 'active'
     and j.lease = ($2::uuid[])[width_bucket(j.id, $1::bigint[])]
  returning j.id, j.task, j.queue, j.trace, j.key is not null as keyed, j.limited is not null as counted,
            minium.snapshot(j) as data),
f_events as (
  insert into minium.entry (topic, type, subject, trace, data)
  select 'task/' || task || '/' || id, 'task.finished', id::text, trace, data from f),
f_keys as (
  delete from minium.job_key where job = any (array(select id from f where keyed)) and (until is null or until <= now())),
f_counts as (
  delete from minium.running where job = any (array(select id from f where counted))),
lanes as (
  select l.queue, l.priority, l.mark,
         case when $8::text[] is null then 9223372036854775807
              when cardinality($8::text[]) = 1 then l.mark
              else 1000 + coalesce((select w.seq from minium.job w
                                     where w.ready and w.limited is null and w.seq > l.mark
                                       and w.queue = l.queue and w.priority = l.priority
                                     order by w.seq limit 1), l.mark) end as together
    from (select l.queue, l.priority,
                 coalesce((select max(m.mark) from unnest($10::text[], $11::int[], $12::bigint[]) as m (queue, priority, mark)
                            where m.queue = l.queue and m.priority = l.priority), 0) as mark
            from (select distinct queue, priority from minium.lane
                   where queue = any ($7::text[]) and priority >= $9::int
                     and queue <> all (array(select queue from minium.paused_queue))) l) l
   order by case when $13::bigint is not null then (
              select case when w.delayed <= now() - $13::bigint * interval '1 microsecond' then w.seq end
                from minium.job w
               where w.ready and w.limited is null and w.queue = l.queue and w.priority = l.priority
               order by w.seq limit 1) end nulls last,
            l.priority desc, array_position($7::text[], l.queue)),
chosen as materialized (
  select r.tid, r.apart
    from lanes l,
         lateral (
           select f.tid, false as apart
             from (select w.ctid as tid from minium.job w
                    where w.ready and w.limited is null
                      and w.queue = l.queue and w.priority = l.priority and w.seq > l.mark and w.seq <= l.together
                      and ($8::text[] is null or w.task = any ($8::text[]))
                      and (w.expires is null or w.expires > now() or w.attempt > 0)
                    order by w.seq limit $4::bigint for update skip locked) f
           union all
           select f.tid, cardinality($8::text[]) > 1
             from (select t.task,
                          (select w.seq from minium.job w
                            where w.ready and coalesce(w.limited, '') = '' and w.task = t.task
                              and w.queue = l.queue and w.priority = l.priority and w.seq > l.together
                            order by w.seq limit 1) as first
                     from unnest($8::text[]) as t (task) order by first) t,
                  lateral (
                    select w.ctid as tid from minium.job w
                     where w.ready and coalesce(w.limited, '') = '' and w.task = t.task
                       and w.queue = l.queue and w.priority = l.priority and w.seq > l.together
                       and (w.expires is null or w.expires > now() or w.attempt > 0)
                     order by w.seq limit $4::bigint for update skip locked) f
            where t.first is not null) r
   limit $4::bigint),
c as (
  update minium.job as j
     set state = 'active', ready = false, attempt = j.attempt + 1, started = statement_timestamp(), progress = null,
         worker = $5::text::json, lease = gen_random_uuid(),
         lease_until = statement_timestamp() + $6::bigint * interval '1 microsecond'
   where j.ctid = any (array(select tid from chosen))
  returning j.id, j.seq, j.priority, j.task, j.queue, j.args, j.attempt, j.attempts, j.lease, j.lease_until,
            j.timeout_us, j.trace, j.unique_us = 0 as let_go, minium.snapshot(j) as data,
            -- told only where there are any
            nullif(j.notes, '{}') as notes, nullif(j.parents, '{}') as parents,
            extract(epoch from j.started - j.delayed)::float8 as waited),
c_keys as (
  delete from minium.job_key where waiting and job = any (array(select id from c where let_go))),
c_events as (
  insert into minium.entry (topic, type, subject, trace, data)
  select 'task/' || task || '/' || id, 'task.dequeue', id::text, trace, data from c order by priority desc, seq),
figures as (
  insert into minium.tally (inactive, active, finished, at)
  select -n.c, n.c - n.f, n.f, now() from (select (select count(*) from c) as c, (select count(*) from f) as f) n
   where n.c + n.f > 0)
select 'f', null::bigint, null::bigint, null::int, task, queue, null::text, null::int, null::int, null::uuid,
       null::timestamptz, null::bigint, null::text, array_agg(id),
       exists (select from minium.edge e where e.open and e.parent = any ($1::bigint[])), bool_or(counted), null::text, null::float8
  from f group by queue, task
union all
select 'c', id, seq, priority, task, queue, args::text, attempt, attempts, lease, lease_until, timeout_us, trace,
       parents, null::boolean, null::boolean, notes::text, waited
  from c
union all
select 'l', null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null
 where exists (select from minium.limit_rule)
    or exists (select from minium.job j where j.ready and j.limited is not null)
union all
select 't', null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null
 where exists (select from chosen where apart)
union all
select 'w', null, null, null, pg_notify('minium_journal', '')::text, null, null, null, null, null, null, null, null, null, null, null, null, null
  from minium.wake where name = 'journal' and armed and (exists (select from f) or exists (select from c))
