-- Statements that read more than they had to, as their plans told (`plans::*` of the tests); and a job that runs on a failure and
-- was let go stays so.

-- Looked into by who asks for single tasks, in words of its own: else a plan may go through job_ready instead, which has the
-- same columns but for the task, and walk over what other tasks have waiting. As before, but for these words.
drop index minium.job_ready_task;
create index job_ready_task on minium.job (task, queue, priority, seq) where ready and coalesce(limited, '') = '';

-- As in migration 7, but that one which may run is not held again by parents that go on, when the one that failed is gone: only
-- settle_edges holds it, when a parent waits again.
create or replace function minium.settle_handlers(of_children bigint[]) returns bigint language plpgsql as $$
declare
  doomed bigint[];
  released bigint;
begin
  doomed := array(
    select c.id from minium.job c
     where c.id = any (of_children) and c.on_failure and c.state = 'inactive' and c.left_n > 0
       and not exists (select from minium.job p where p.id = any (c.parents) and p.state = 'failed')
       and not exists (select from minium.edge e where e.parent = any (c.parents) and e.child = c.id and e.open)
     order by c.id);
  with looked as materialized (
    select c.id,
           exists (select from minium.job p where p.id = any (c.parents) and p.state = 'failed') as failed,
           exists (select from minium.edge e where e.parent = any (c.parents) and e.child = c.id and e.open) as undecided
      from minium.job c where c.id = any (of_children) and c.on_failure),
  numbered as materialized (
    select n.id, case when n.failed or not n.undecided then 0 end as left_n, nextval('minium.ready_seq') as seq
      from (select * from looked order by id offset 0) n),
  judged as (
    update minium.job j
       set left_n = coalesce(n.left_n, j.left_n),
           ready = j.state = 'inactive' and j.later_at is null and coalesce(n.left_n, j.left_n) = 0 and j.id <> all (doomed),
           seq = case when j.state = 'inactive' and j.later_at is null and n.left_n = 0 and not j.ready
                      then n.seq else j.seq end
      from numbered n where j.id = n.id and j.id = any (of_children)
    returning j.ready)
  select count(*) filter (where ready) into released from judged;
  perform minium.cancel_jobs(doomed);
  return released;
end $$;

-- As in migration 7, but that each child is found by its place: a join compared every child with every other; and that a parent
-- which waits again holds those that run on a failure.
create or replace function minium.settle_edges(of_parents bigint[], of_children bigint[]) returns bigint
language plpgsql set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  released bigint;
begin
  if coalesce(cardinality(of_children), 0) = 0 then
    return 0;
  end if;
  perform from minium.job where id = any (of_children) order by id for no key update;
  -- looks again, now that nobody else can move these counters
  with turned as (
    update minium.edge e set open = not e.open
      from unnest(of_parents, of_children) as w (parent, child)
     where e.parent = w.parent and e.child = w.child
       and e.open is distinct from (
         select minium.holds((select p.state from minium.job p where p.id = e.parent), c.lax or c.on_failure is true)
           from minium.job c where c.id = e.child)
    returning e.child, case when e.open then 1 else -1 end as step),
  -- numbers are drawn in the order of the ids, whatever order the join below has
  moved as materialized (
    select t.child, t.step, t.again, nextval('minium.ready_seq') as seq,
           (select c.ctid from minium.job c where c.id = t.child) as tid
      from (select child, sum(step)::int as step, bool_or(step > 0) as again
              from turned group by child order by child offset 0) t),
  held as (
    update minium.job j set left_n = 1, ready = false
      from moved m
     where j.ctid = m.tid and m.again and j.on_failure
       -- another one that failed still lets it go
       and not exists (select from minium.job p where p.id = any (j.parents) and p.state = 'failed')),
  freed as (
    update minium.job j
       set left_n = j.left_n + m.step,
           ready = j.state = 'inactive' and j.later_at is null and j.left_n + m.step = 0,
           seq = case when j.state = 'inactive' and j.later_at is null and j.left_n + m.step = 0 and not j.ready
                      then m.seq else j.seq end
      from moved m
     where j.ctid = m.tid and j.on_failure is not true
    returning j.ready)
  select count(*) filter (where ready) into released from freed;
  if exists (select from minium.job where id = any (of_children) and on_failure) then
    released := released + minium.settle_handlers(of_children);
  end if;
  if released > 0 then
    perform minium.wake_up(true);
  end if;
  return released;
end $$;

-- As in migration 7, but that parts are gone through by job_ready_limited, from one to the next, and not by sorting their jobs.
create or replace function minium.claim_limited(
  of_worker text, lease_us bigint, of_queues text[], of_tasks text[], from_priority int, count_max bigint)
returns table (id bigint, seq bigint, priority int, task text, queue text, args text, attempt int, attempts int, lease uuid,
               lease_until timestamptz, timeout_us bigint, trace text, whole text)
language plpgsql as $$
#variable_conflict use_column
declare
  name    text;
  rule    minium.limit_rule;
  most    bigint;
  moment  timestamptz;
  last    text;
  queues  text[] := array(
    select q from unnest(of_queues) q where not exists (select from minium.paused_queue p where p.queue = q));
  ids bigint[] := '{}'; priorities int[] := '{}'; names text[] := '{}'; parts text[] := '{}'; nths bigint[] := '{}';
  seqs bigint[] := '{}'; places int[] := '{}';
  looked text[] := '{}'; buckets float8[] := '{}'; moments timestamptz[] := '{}';
  found record;
  taken bigint;
begin
  for name in
    select u.limited from minium.limits_with_jobs() u (limited)
     where of_tasks is null
        or exists (select from unnest(of_tasks) t where t = u.limited or starts_with(t, u.limited || '/'))
  loop
    select * into rule from minium.limit_rule l where l.task = name for update;
    most := count_max;
    moment := clock_timestamp();
    if rule.rate_n is not null then
      rule.tokens := least(rule.rate_n, rule.tokens + rule.rate_n::float8
                       * greatest(0, extract(epoch from moment - rule.filled))::float8 * 1000000 / rule.rate_us);
      most := least(most, floor(rule.tokens)::bigint);
    end if;
    -- statements of their own, so that they see what those committed who held the rule before
    if rule.running is not null then
      most := least(most, rule.running - (select count(*) from minium.running r where r.limited = name));
    end if;
    continue when most <= 0;
    select coalesce(array_agg(c.id), '{}') as ids, array_agg(c.priority) as priorities, array_agg(c.part) as parts,
           array_agg(c.nth) as nths, array_agg(c.seq) as seqs, array_agg(c.place) as places
      into found
      from minium.limited_candidates(name, rule.turn, rule.per_part, queues, of_tasks, from_priority, most) c;
    if cardinality(found.ids) = 0 then
      -- the parts that were looked at are full: the next look begins behind them
      select max(p.part) into last
        from (with recursive part (queue, part, n) as (
                select q.queue, (select min(j.part) from minium.job j
                                  where j.ready and j.limited = name and j.queue = q.queue
                                    and (rule.turn is null or j.part > rule.turn)), 1
                  from unnest(queues) q (queue)
                union all
                select p.queue, (select min(j.part) from minium.job j
                                  where j.ready and j.limited = name and j.queue = p.queue and j.part > p.part), p.n + 1
                  from part p where p.part is not null and p.n < 256)
              select part.part from part where part.part is not null order by part.part limit 256) p;
      update minium.limit_rule l set turn = last where l.task = name and l.per_part is not null;
      continue;
    end if;
    ids := ids || found.ids; priorities := priorities || found.priorities; parts := parts || found.parts;
    nths := nths || found.nths; seqs := seqs || found.seqs; places := places || found.places;
    names := names || array_fill(name, array[cardinality(found.ids)]);
    looked := looked || name; buckets := buckets || rule.tokens; moments := moments || moment;
  end loop;
  return query
    with candidate as materialized (
      select * from unnest(ids, priorities, names, parts, nths, seqs, places)
                      as x (id, priority, limited, part, nth, seq, place)),
    chosen as materialized (
      select x.id from candidate x order by x.priority desc, x.nth, x.place, x.seq limit count_max),
    held as materialized (
      select j.id from minium.job j where j.id = any (array(select x.id from chosen x)) and j.ready
       order by j.id for no key update skip locked),
    c as (
      update minium.job as j
         set state = 'active', ready = false, attempt = j.attempt + 1, started = now(), progress = null,
             worker = of_worker::json, lease = gen_random_uuid(),
             lease_until = now() + lease_us * interval '1 microsecond'
       where j.id = any (array(select h.id from held h))
      returning j.id, j.seq, j.priority, j.task, j.queue, j.args, j.attempt, j.attempts, j.lease, j.lease_until,
                j.timeout_us, j.trace, j.limited, j.part, j.unique_us = 0 as let_go, minium.snapshot(j) as data,
                case when j.args_shown is not null then minium.snapshot_with(j, j.args) end as whole),
    events as (
      insert into minium.entry (topic, type, subject, trace, data)
      select 'task/' || c.task || '/' || c.id, 'task.dequeue', c.id::text, c.trace, c.data from c
       order by c.priority desc, c.seq),
    counted as (
      insert into minium.running (job, limited, part) select c.id, c.limited, c.part from c
      on conflict (job) do update set limited = excluded.limited, part = excluded.part),
    keys as (
      delete from minium.job_key k where k.waiting and k.job = any (array(select c.id from c where c.let_go))),
    spent as (
      update minium.limit_rule l
         set tokens = case when l.rate_n is null then l.tokens else s.bucket - s.n end, filled = s.moment, turn = s.last
        from (select k.limited, k.bucket, k.moment, count(*) as n, (array_agg(x.part order by x.place desc))[1] as last
                from unnest(looked, buckets, moments) as k (limited, bucket, moment)
                join candidate x on x.limited = k.limited
               where x.id in (select c.id from c) group by k.limited, k.bucket, k.moment) s
       where l.task = s.limited),
    figures as (
      insert into minium.tally (inactive, active) select -count(*), count(*) from c having count(*) > 0)
    select c.id, c.seq, c.priority, c.task, c.queue, c.args::text, c.attempt, c.attempts, c.lease, c.lease_until,
           c.timeout_us, c.trace, coalesce(c.whole, c.data)::text
      from c;
  get diagnostics taken = row_count;
  if taken > 0 then
    perform minium.wake_up(false);
  end if;
end $$;

-- As in migration 9, in the words of job_ready_task.
create or replace function minium.choose_capped(
  most bigint, queues text[], tasks text[], caps bigint[], lowest int) returns bigint[] language plpgsql as $$
declare
  place record;
  room bigint[] := caps;
  got bigint[];
  chosen bigint[] := '{}';
begin
  for place in
    select l.queue, l.priority, t.task, t.n
      from (select distinct lane.queue, lane.priority from minium.lane
             where lane.queue = any (queues) and lane.priority >= lowest
               and lane.queue <> all (array(select p.queue from minium.paused_queue p))) l,
           unnest(tasks) with ordinality as t (task, n)
     order by l.priority desc, t.n, array_position(queues, l.queue)
  loop
    exit when cardinality(chosen) >= most;
    continue when room[place.n] <= 0;
    got := array(
      select j.id from minium.job j
       where j.ready and coalesce(j.limited, '') = '' and j.task = place.task and j.queue = place.queue and j.priority = place.priority
         and (j.expires is null or j.expires > now() or j.attempt > 0)
       order by j.seq limit least(room[place.n], most - cardinality(chosen)) for update skip locked);
    room[place.n] := room[place.n] - cardinality(got);
    chosen := chosen || got;
  end loop;
  return chosen;
end $$;
