-- What a job may demand of the queue besides its turn: a key that is unique while it waits or for a time, to run only when
-- a parent has failed, to be one of few that run at once.

alter table minium.job
  add column unique_us bigint,                    -- how its key is held: null while it lives, 0 while it waits, else so long
  add column on_failure boolean,                  -- true: runs when a parent has failed, and is called off when none can
  add column limited text collate "C",            -- the limit that it runs under
  add column part text collate "C";               -- which of those that the limit counts apart

-- A key that is let go at the claim, or held for a time whatever becomes of its job.
alter table minium.job_key
  add column waiting boolean not null default false,
  add column until timestamptz;
create index job_key_until on minium.job_key (until) where until is not null;

-- How many jobs of a task, and of those below it, may run at once and how many may be started in a time. The nearest row at
-- or above a job's task, when it is enqueued, is the one that it runs under.
create table minium.limit_rule (
  task     text collate "C" primary key,
  running  int check (running >= 0),              -- so many at once in all
  per_part int check (per_part >= 0),             -- so many at once with one and the same `part`
  rate_n   int check (rate_n > 0),                -- so many starts in `rate_us` microseconds
  rate_us  bigint check (rate_us > 0),
  tokens   float8 not null default 0,             -- starts that may be made, as of `filled`
  filled   timestamptz not null default now(),
  turn     text collate "C",                      -- the part that was served last
  check ((rate_n is null) = (rate_us is null))
);

-- Jobs that run under a limit: what is counted. A row whose job does not run any more is taken away by upkeep.
create table minium.running (
  job     bigint primary key,
  limited text collate "C" not null,
  part    text collate "C" not null
);
create index running_limited on minium.running (limited, part);

-- Jobs that no limit holds back are looked for as ever; the others by limit, and never stand in their way.
drop index minium.job_ready;
drop index minium.job_ready_task;
create index job_ready on minium.job (queue, priority, seq) where ready and limited is null;
create index job_ready_task on minium.job (task, queue, priority, seq) where ready and limited is null;
create index job_ready_limited on minium.job (limited, queue, part, priority desc, seq) where ready and limited is not null;

-- Jobs by the job that enqueued them: a cascade is followed, and called off, along it. It never changes.
create index job_origin on minium.job (origin, id) where origin is not null;

-- Why each run failed that did; gone with the job. Those of jobs that are `final` are dead: they wait for somebody to look.
create table minium.failure (
  job       bigint not null,
  attempt   int not null,
  at        timestamptz not null default now(),
  worker    json,
  error     text not null,
  backtrace text,
  final     boolean not null,
  primary key (job, attempt)
);
create index failure_final on minium.failure (job) where final;
insert into minium.failure (job, attempt, at, worker, error, final)
  select id, attempt, coalesce(finished, created), worker, coalesce(error, ''), true from minium.job where state = 'failed';

-- How many jobs ended in each hour. Figures that are not folded yet stand in `tally`.
create table minium.hour (
  hour      timestamptz primary key,
  finished  bigint not null default 0,
  failed    bigint not null default 0,
  cancelled bigint not null default 0
);
-- When jobs ended that the row counts; null where it counts none as such, or sums rows whose hours have been counted.
alter table minium.tally add column at timestamptz;

-- Queues from which nothing is claimed.
create table minium.paused_queue (
  queue  text collate "C" primary key,
  paused timestamptz not null default now()
);

-- The limit that a task's jobs run under; null is none. Index: the key of limit_rule.
create function minium.limit_of(of_task text) returns text language sql stable parallel safe as $$
  select l.task from minium.limit_rule l
   where l.task = any (array(select array_to_string(p.steps[1:n], '/')
                               from (select string_to_array(of_task, '/') as steps) p,
                                    generate_series(1, cardinality(p.steps)) n))
   order by length(l.task) desc limit 1
$$;

-- Calls jobs off, those of them that have not ended, each with its event, and tells whoever runs one. Answers which. Their
-- children are left to upkeep, or to whoever settles what is left.
-- Index: the key of job. Locks: the jobs, by id; `unsettled`.
create function minium.cancel_jobs(ids bigint[]) returns bigint[] language plpgsql as $$
declare
  done bigint[];
  running boolean;
  room boolean;
begin
  with held as materialized (
    select id, state from minium.job where id = any (ids) and state in ('inactive', 'active')
     order by id for no key update),
  j as (
    update minium.job as j
       set state = 'cancelled', finished = now(), result = null, ready = false, later_at = null, lease_until = null
     where j.id = any (array(select id from held))
    returning j.id, j.task, j.trace, minium.snapshot(j) as data),
  events as (
    insert into minium.entry (topic, type, subject, trace, data)
    select 'task/' || task || '/' || id, 'task.cancelled', id::text, trace, data from j order by id),
  keys as (
    delete from minium.job_key where job = any (array(select id from held)) and (until is null or until <= now())),
  free as (
    delete from minium.running where job = any (array(select id from held)) returning job),
  figures as (
    insert into minium.tally (inactive, active, cancelled, at)
    select -count(*) filter (where state = 'inactive'), -count(*) filter (where state = 'active'), count(*), now()
      from held having count(*) > 0)
  select array_agg(j.id order by j.id), coalesce(bool_or(h.state = 'active'), false), exists (select from free)
    into done, running, room
    from j join held h on h.id = j.id;
  insert into minium.unsettled (parent)
    select d from unnest(done) d where exists (select from minium.edge e where e.parent = d) order by d
  on conflict (parent) do update set child = 0;
  if done is not null then
    perform minium.wake_up(room);
  end if;
  if running then
    perform pg_notify('minium_control', '');
  end if;
  return coalesce(done, '{}');
end $$;

-- Judges children that run when a parent has failed: ready once one has, called off once all have ended and none did. One
-- that was let go already stays so, even when the parent that failed is gone; only a parent that is retried holds it again.
-- Answers how many became ready. Index: the keys of job and edge. Locks: the caller holds the children.
create function minium.settle_handlers(of_children bigint[]) returns bigint language plpgsql as $$
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
    select n.id, case when n.failed then 0 when n.undecided then 1 end as left_n, nextval('minium.ready_seq') as seq
      from (select * from looked order by id offset 0) n),
  judged as (
    update minium.job j
       set left_n = coalesce(n.left_n, 0),
           ready = j.state = 'inactive' and j.later_at is null and coalesce(n.left_n, 0) = 0 and j.id <> all (doomed),
           seq = case when j.state = 'inactive' and j.later_at is null and n.left_n = 0 and not j.ready
                      then n.seq else j.seq end
      from numbered n where j.id = n.id and j.id = any (of_children)
    returning j.ready)
  select count(*) filter (where ready) into released from judged;
  perform minium.cancel_jobs(doomed);
  return released;
end $$;

-- As before, and judges those that run when a parent has failed.
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
    select t.child, t.step, nextval('minium.ready_seq') as seq
      from (select child, sum(step)::int as step from turned group by child order by child offset 0) t),
  freed as (
    update minium.job j
       set left_n = j.left_n + m.step,
           ready = j.state = 'inactive' and j.later_at is null and j.left_n + m.step = 0,
           seq = case when j.state = 'inactive' and j.later_at is null and j.left_n + m.step = 0 and not j.ready
                      then m.seq else j.seq end
      from moved m
     where j.id = m.child and j.id = any (of_children) and j.on_failure is not true
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

-- As before, and a child that runs when a parent has failed waits for none that has ended.
create or replace function minium.settle_some(of_parents bigint[], inout parent bigint, inout child bigint,
                                              count_max integer, out released bigint)
language plpgsql as $$
#variable_conflict use_column
declare
  looked record;
begin
  select count(*) as n,
         array_agg(l.parent) filter (where l.wrong) as parents, array_agg(l.child) filter (where l.wrong) as children,
         (array_agg(l.parent order by l.parent desc, l.child desc))[1] as parent,
         (array_agg(l.child order by l.parent desc, l.child desc))[1] as child
    into looked
    from (select e.parent, e.child,
                 e.open is distinct from (
                   select minium.holds((select p.state from minium.job p where p.id = e.parent), c.lax or c.on_failure is true)
                     from minium.job c where c.id = e.child) as wrong
            from minium.edge e
           where e.parent = any (of_parents) and (e.parent, e.child) > (settle_some.parent, settle_some.child)
           order by e.parent, e.child limit count_max) l;
  released := minium.settle_edges(looked.parents, looked.children);
  parent := case when looked.n = count_max then looked.parent end;
  child := case when looked.n = count_max then looked.child end;
end $$;

-- Goes on with parents that were left, a piece of at most `count_max` edges: many parents of few children as well as one of
-- very many. Answers how many children became ready; null when there is none to go on with. Edges of a parent that is gone go
-- when they have been settled.
-- Index: the key of edge. Locks: rows of `unsettled`, passing over what others hold, then the children, in id order.
create or replace function minium.settle_left(count_max integer) returns bigint language plpgsql as $$
declare
  names    bigint[];
  parents  bigint[];
  children bigint[];
  released bigint;
begin
  with rest as materialized (
    select u.parent, u.child from minium.unsettled u order by u.parent limit count_max for update skip locked),
  edges as materialized (
    select r.parent, e.child
      from rest r, lateral (select e.child from minium.edge e
                             where e.parent = r.parent and e.child > r.child order by e.child limit count_max) e
     order by r.parent, e.child limit count_max)
  select (select array_agg(r.parent) from rest r),
         (select array_agg(e.parent order by e.parent, e.child) from edges e),
         (select array_agg(e.child order by e.parent, e.child) from edges e)
    into names, parents, children;
  if names is null then
    return null;
  end if;
  released := minium.settle_edges(parents, children);
  delete from minium.edge e using unnest(parents, children) as x (parent, child)
   where e.parent = x.parent and e.child = x.child and not exists (select from minium.job j where j.id = e.parent);
  if coalesce(cardinality(children), 0) < count_max then
    delete from minium.unsettled u where u.parent = any (names);
  else
    -- those behind the last one wait for the next piece
    delete from minium.unsettled u where u.parent = any (names) and u.parent < parents[count_max];
    update minium.unsettled u set child = children[count_max] where u.parent = parents[count_max];
  end if;
  return released;
end $$;

-- As before; a key that is held for a time stays, and what ran under a limit is not counted any more.
create or replace function minium.drop_jobs(ids bigint[], event text) returns bigint language plpgsql as $$
declare
  dropped bigint;
begin
  with d as (
    delete from minium.job as j where j.id = any (ids)
    returning j.id, j.task, j.trace, j.parents, j.state, minium.snapshot(j) as data),
  events as (
    insert into minium.entry (topic, type, subject, trace, data)
    select 'task/' || task || '/' || id, event, id::text, trace, data from d order by id),
  keys as (delete from minium.job_key where job = any (ids) and (until is null or until <= now())),
  -- the edges to its parents; its parents are named by the job, so that edges need no second index
  upward as (
    delete from minium.edge e where e.parent = any (array(select unnest(d.parents) from d)) and e.child = any (ids)),
  renewals as (delete from minium.renewal where job = any (ids)),
  failures as (delete from minium.failure where job = any (ids)),
  figures as (
    insert into minium.tally (inactive, finished, failed, cancelled)
    select -count(*) filter (where state = 'inactive'), -count(*) filter (where state = 'finished'),
           -count(*) filter (where state = 'failed'), -count(*) filter (where state = 'cancelled')
      from d having count(*) > 0)
  select count(*) into dropped from d;
  if dropped > 0 then
    -- a parent that is not there counts as finished
    if minium.settle_or_leave(ids, 10000) is not null then
      delete from minium.edge where parent = any (ids);
    end if;
    perform minium.wake_up(false);
  end if;
  return dropped;
end $$;

-- Enqueues jobs: each array has one element for each. Spans are microseconds. Answers one row for each, in their order.
-- A job whose key is held is not enqueued; the one that holds it is the answer. `afters` names jobs of this very call by
-- their places, from 1: none that has a key. Parents have lower ids than their children that way, and no circle is possible.
-- Takes no lock on parents: a user's long transaction must not hold up those who finish them (ADR 0002).
create function minium.enqueue_jobs(
  tasks text[], args text[], queues text[], priorities int[], attempts int[], delays bigint[], expiries bigint[],
  laxes boolean[], notes text[], parents text[], keys text[], timeouts bigint[], backoffs bigint[],
  schedules text[], origins bigint[], traces text[], uniques bigint[], on_failures boolean[], parts text[], afters text[])
returns table (place int, job bigint, existing boolean) language plpgsql as $$
#variable_conflict use_column
declare
  got record;
  masks boolean := exists (select from minium.mask where paths <> '[]');
  limits boolean := exists (select from minium.limit_rule);
begin
  if exists (select from unnest(keys) k where k is not null) then
    -- keys whose time is over and whose job has ended; who holds one of them alive holds it on.
    -- Index: the key of job_key. Locks: such keys.
    delete from minium.job_key k
     where (k.task, k.key) in (select * from unnest(tasks, keys)) and k.until <= now()
       and not exists (select from minium.job j where j.id = k.job and j.state in ('inactive', 'active'));
  end if;
  for got in with q as materialized (
    select u.place::int as place, nextval('minium.job_id') as id, u.task, u.args::json as args,
           case when masks then minium.args_shown(u.task, u.args::json) end as args_shown,
           u.queue, u.priority, u.attempts, u.delay, u.expiry, u.lax, u.notes::jsonb as notes,
           u.parents::bigint[] as parents, u.key, u.timeout, u.backoff, u.schedule, u.origin, u.trace,
           case when u.key is not null then u.unique_us end as unique_us, nullif(u.on_failure, false) as on_failure,
           case when limits then minium.limit_of(u.task) end as limited, u.part, u.after::int[] as after
      from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
             with ordinality
             as u (task, args, queue, priority, attempts, delay, expiry, lax, notes, parents, key, timeout, backoff,
                   schedule, origin, trace, unique_us, on_failure, part, after, place)),
  r as materialized (
    select q.*, k.all_parents, k.known, k.held_by
      from q, lateral (
             select coalesce(array_agg(s.parent order by s.nth), '{}') as all_parents,
                    -- one that runs on a failure is judged when its edges are settled, whatever its parents are by now
                    coalesce(array_agg(s.parent) filter (where s.state is not null or q.on_failure), '{}') as known,
                    coalesce(array_agg(s.parent) filter (where minium.holds(s.state, q.lax) or q.on_failure), '{}')
                      as held_by
               from (select x.parent, x.nth, (select p.state from minium.job p where p.id = x.parent) as state
                       from unnest(q.parents) with ordinality as x (parent, nth)
                     union all
                     select b.id, 1000000000 + array_position(q.after, b.place), 'inactive' from q b
                      where cardinality(q.after) > 0 and b.place = any (q.after)) s) k),
  -- waits for a transaction that holds the same key and is still open; sorted, so that two of us cannot wait in a ring
  taken as (
    insert into minium.job_key (task, key, job, waiting, until)
    select r.task, r.key, r.id, r.unique_us is not distinct from 0,
           case when r.unique_us > 0 then statement_timestamp() + r.unique_us * interval '1 microsecond' end
      from r where r.key is not null order by r.task, r.key, r.place
    on conflict do nothing
    returning job),
  j as (
    insert into minium.job as j (id, task, queue, priority, args, args_shown, notes, attempts, parents, lax, key,
                                 schedule, origin, trace, timeout_us, backoff_us, left_n, created, delayed, later_at,
                                 expires, ready, unique_us, on_failure, limited, part)
    select r.id, r.task, r.queue, r.priority, r.args, r.args_shown, r.notes, r.attempts, r.all_parents, r.lax, r.key,
           r.schedule, r.origin, r.trace, r.timeout, r.backoff,
           case when r.on_failure then 1 else cardinality(r.held_by) end, statement_timestamp(),
           statement_timestamp() + r.delay * interval '1 microsecond',
           case when r.delay > 0 then statement_timestamp() + r.delay * interval '1 microsecond' end,
           statement_timestamp() + r.expiry * interval '1 microsecond',
           r.delay = 0 and cardinality(r.held_by) = 0, r.unique_us, r.on_failure, r.limited,
           case when r.limited is not null then coalesce(r.part, '') else r.part end
      from r where r.key is null or r.id = any (array(select job from taken))
    returning j.id, j.task, j.queue, j.priority, j.trace, minium.snapshot(j) as data),
  events as (
    insert into minium.entry (topic, type, subject, trace, data)
    select 'task/' || j.task || '/' || j.id, 'task.enqueue', j.id::text, j.trace, j.data from j),
  edges as (
    insert into minium.edge (parent, child, open)
    select x.parent, r.id, x.parent = any (r.held_by) from r, unnest(r.known) as x (parent)
     where r.key is null or r.id = any (array(select job from taken))),
  lanes as (
    insert into minium.lane (queue, priority)
    select distinct j.queue, j.priority from j
     where not exists (select from minium.lane l where l.queue = j.queue and l.priority = j.priority)),
  tally as (insert into minium.tally (inactive) select count(*) from j having count(*) > 0)
  select r.place, r.id, r.task, r.key, r.all_parents, r.key is null or r.id = any (array(select job from taken)) as done
    from r
  loop
    place := got.place;
    job := got.id;
    existing := not got.done;
    if existing then
      -- whoever held the key has committed by now, so that it is seen; if it has let go again, the next try gets it
      select k.job into job from minium.job_key k where k.task = got.task and k.key = got.key;
      if not found then
        select again.job, again.existing into strict job, existing
          from minium.enqueue_jobs($1[place:place], $2[place:place], $3[place:place], $4[place:place], $5[place:place],
                                   $6[place:place], $7[place:place], $8[place:place], $9[place:place],
                                   array[got.all_parents::text], $11[place:place], $12[place:place], $13[place:place],
                                   $14[place:place], $15[place:place], $16[place:place], $17[place:place],
                                   $18[place:place], $19[place:place], array[null]::text[]) again;
      end if;
    end if;
    return next;
  end loop;
  perform minium.wake_up(true);
end $$;

-- As before. Programs of before this migration call it.
create or replace function minium.enqueue_jobs(
  tasks text[], args text[], queues text[], priorities int[], attempts int[], delays bigint[], expiries bigint[],
  laxes boolean[], notes text[], parents text[], keys text[], timeouts bigint[], backoffs bigint[],
  schedules text[], origins bigint[], traces text[])
returns table (place int, job bigint, existing boolean) language sql as $$
  select e.place, e.job, e.existing
    from minium.enqueue_jobs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                             array[null]::bigint[], array[null]::boolean[], array[null]::text[], array[null]::text[]) e
$$;

-- As before, with the options `unique` ("alive", "waiting", or a span), `when` ("success", "ended", "failure") and `partition`.
create or replace function minium.enqueue(task text, args jsonb, options jsonb default '{}') returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
  name text;
  parents bigint[];
  number numeric;
  answer bigint;
  unique_us bigint;
  on_failure boolean := options ->> 'when' = 'failure';
begin
  if jsonb_typeof(coalesce(options, '{}')) <> 'object' then
    raise exception using errcode = 'invalid_parameter_value', message = 'options must be an object';
  end if;
  -- a member that is null is a member that is not there
  options := coalesce((select jsonb_object_agg(o.key, o.value) from jsonb_each(options) o where o.value <> 'null'), '{}');
  for name in select jsonb_object_keys(options) loop
    if name <> all ('{attempts,delay,expire,lax,when,notes,parents,priority,queue,key,unique,partition,timeout,backoff,origin}') then
      raise exception using errcode = 'invalid_parameter_value', message = format('there is no option %L', name),
        hint = 'options are attempts delay expire lax when notes parents priority queue key unique partition timeout backoff origin';
    end if;
  end loop;
  -- task/<task>/<id> must be a topic too, for the longest id
  perform minium.check_topic('task', task, 255 - 25, 14);
  perform minium.check_topic('queue', coalesce(options ->> 'queue', 'default'), 255, 16);
  foreach name in array '{attempts,priority,origin}'::text[] loop
    continue when options -> name is null;
    number := case when jsonb_typeof(options -> name) = 'number' then (options ->> name)::numeric end;
    if number is null or number <> trunc(number)
       or name = 'attempts' and number not between 1 and 1000
       or name = 'priority' and number not between -1000 and 1000
       or abs(number) > 9223372036854775807 then
      raise exception using errcode = 'invalid_parameter_value', message = format('%s is %s: it must be a whole number%s',
        name, options -> name, case name when 'attempts' then ' from 1 to 1000' when 'priority' then ' from -1000 to 1000' else '' end);
    end if;
  end loop;
  if jsonb_typeof(coalesce(options -> 'lax', 'false')) <> 'boolean' then
    raise exception using errcode = 'invalid_parameter_value', message = 'lax must be true or false';
  end if;
  if jsonb_typeof(coalesce(options -> 'notes', '{}')) <> 'object' then
    raise exception using errcode = 'invalid_parameter_value', message = 'notes must be an object';
  end if;
  if jsonb_typeof(coalesce(options -> 'queue', '""')) <> 'string' then
    raise exception using errcode = 'invalid_parameter_value', message = 'queue must be a text';
  end if;
  if options ? 'key' and (jsonb_typeof(options -> 'key') <> 'string'
                          or octet_length(options ->> 'key') not between 1 and 255) then
    raise exception using errcode = 'invalid_parameter_value', message = 'key must be a text of 1 to 255 bytes';
  end if;
  if options ? 'when' and (options ->> 'when' not in ('success', 'ended', 'failure')
                           or options ? 'lax' and (options ->> 'lax')::boolean <> (options ->> 'when' = 'ended')) then
    raise exception using errcode = 'invalid_parameter_value',
      message = 'when must be success, ended or failure, and not contradict lax';
  end if;
  if options ? 'unique' then
    if not options ? 'key' then
      raise exception using errcode = 'invalid_parameter_value', message = 'unique goes with a key';
    end if;
    unique_us := case options ->> 'unique' when 'alive' then null when 'waiting' then 0
                      else greatest(minium.span_us('unique', options -> 'unique'), 1) end;
  end if;
  if options ? 'partition' and (jsonb_typeof(options -> 'partition') <> 'string'
                                or octet_length(options ->> 'partition') > 255) then
    raise exception using errcode = 'invalid_parameter_value', message = 'partition must be a text of at most 255 bytes';
  end if;
  begin
    if jsonb_typeof(coalesce(options -> 'parents', '[]')) <> 'array' then
      raise exception using errcode = 'invalid_parameter_value';
    end if;
    -- once each, in the order given
    select coalesce(array_agg(p.id order by p.first), '{}') into parents
      from (select e.value #>> '{}' as text, min(e.ordinality) as first
              from jsonb_array_elements(coalesce(options -> 'parents', '[]')) with ordinality e
             group by e.value) g,
           lateral (select g.text::bigint as id, g.first) p;
  exception when others then
    raise exception using errcode = 'invalid_parameter_value', message = 'parents must be an array of job numbers';
  end;
  if on_failure and parents = '{}' then
    raise exception using errcode = 'invalid_parameter_value', message = 'a job that runs on a failure has a parent';
  end if;
  select e.job into strict answer from minium.enqueue_jobs(
    array[task], array[coalesce(args, '[]')::text], array[coalesce(options ->> 'queue', 'default')],
    array[coalesce((options ->> 'priority')::numeric::int, 0)], array[coalesce((options ->> 'attempts')::numeric::int, 1)],
    array[coalesce(minium.span_us('delay', options -> 'delay'), 0)], array[minium.span_us('expire', options -> 'expire')],
    array[coalesce((options ->> 'lax')::boolean, options ->> 'when' = 'ended', false)], array[coalesce(options ->> 'notes', '{}')],
    array[parents::text], array[options ->> 'key'], array[minium.span_us('timeout', options -> 'timeout')],
    array[minium.span_us('backoff', options -> 'backoff')], array[null::text],
    array[(options ->> 'origin')::numeric::bigint], array[null::text], array[unique_us], array[on_failure],
    array[options ->> 'partition'], array[null::text]) e;
  return answer;
end $$;

-- The limits under which jobs are ready, by name. Index: job_ready_limited, from limit to limit.
create function minium.limits_with_jobs() returns setof text language sql stable as $$
  with recursive used (limited) as (
    (select j.limited from minium.job j where j.ready and j.limited is not null order by j.limited limit 1)
    union all
    select (select j.limited from minium.job j
             where j.ready and j.limited is not null and j.limited > u.limited order by j.limited limit 1)
      from used u where u.limited is not null)
  select limited from used where limited is not null limit 1000
$$;

-- Jobs of one limit that could all be claimed together, at most `most`: of each part as many as it has room for, parts by
-- turns, beginning behind the one that was served last. `nth` is a job's place in its part. Locks nothing.
-- Indexes: job_ready_limited, from part to part, and then its first jobs; running_limited for what runs.
create function minium.limited_candidates(
  of_limit text, turn text, per_part int, of_queues text[], of_tasks text[], from_priority int, most bigint)
returns table (id bigint, priority int, part text, nth bigint, seq bigint, place int)
language sql stable as $$
  with recursive after_turn (queue, part, n) as (
    select q.queue, (select j.part from minium.job j
                      where j.ready and j.limited = $1 and j.queue = q.queue and ($2 is null or j.part > $2)
                      order by j.part limit 1), 1
      from unnest($4) q (queue)
    union all
    select a.queue, (select j.part from minium.job j
                      where j.ready and j.limited = $1 and j.queue = a.queue and j.part > a.part
                      order by j.part limit 1), a.n + 1
      from after_turn a where a.part is not null and a.n < 256),
  up_to_turn (queue, part, n) as (
    select q.queue, (select j.part from minium.job j
                      where j.ready and j.limited = $1 and j.queue = q.queue and j.part <= $2
                      order by j.part limit 1), 1
      from unnest($4) q (queue) where $2 is not null
    union all
    select u.queue, (select j.part from minium.job j
                      where j.ready and j.limited = $1 and j.queue = u.queue and j.part > u.part and j.part <= $2
                      order by j.part limit 1), u.n + 1
      from up_to_turn u where u.part is not null and u.n < 256),
  parts as materialized (
    select queue, part, n from after_turn where part is not null
    union all
    select queue, part, 256 + n from up_to_turn where part is not null),
  open as materialized (
    select p.queue, p.part, p.n,
           case when $3 is null then $7
                else least($7, $3 - (select count(*) from minium.running r where r.limited = $1 and r.part = p.part))
           end as room
      from parts p),
  found as materialized (
    select c.id, c.priority, o.part, c.seq, o.n, o.room
      from open o, lateral (
        select j.id, j.priority, j.seq from minium.job j
         where j.ready and j.limited = $1 and j.queue = o.queue and j.part = o.part and j.priority >= $6
           and ($5 is null or j.task = any ($5))
           and (j.expires is null or j.expires > now() or j.attempt > 0)
         order by j.priority desc, j.seq limit greatest(o.room, 0)) c),
  placed as (
    select f.*, row_number() over (partition by f.part order by f.priority desc, f.seq) as nth from found f)
  select p.id, p.priority, p.part, p.nth, p.seq, p.n from placed p where p.nth <= p.room
   order by p.priority desc, p.nth, p.n, p.seq limit $7
$$;

-- Claims jobs that run under limits, at most `count_max`, of these queues and tasks, from the given priority on: by priority
-- over all limits, then by turns. Within a limit parts are served by turns, so that one with a long backlog cannot keep the
-- others waiting; within a part as ever.
-- Indexes: job_ready_limited, from limit to limit; those of limited_candidates; the key of job. Locks: the rules, in the order
-- of their names, so that two claims do not both take what only one may; the claimed jobs, passing over what others hold.
create function minium.claim_limited(
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
                       * extract(epoch from moment - rule.filled)::float8 * 1000000 / rule.rate_us);
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
        from (select j.part from minium.job j
               where j.ready and j.limited = name and (rule.turn is null or j.part > rule.turn)
               order by j.part limit 256) p;
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

-- as all of them in the first migration
revoke execute on function
  minium.limit_of(text), minium.limits_with_jobs(), minium.cancel_jobs(bigint[]),
  minium.settle_handlers(bigint[]),
  minium.limited_candidates(text, text, int, text[], text[], int, bigint), minium.claim_limited(text, bigint, text[], text[], integer, bigint),
  minium.enqueue_jobs(text[], text[], text[], int[], int[], bigint[], bigint[], boolean[], text[], text[], text[], bigint[],
                      bigint[], text[], bigint[], text[], bigint[], boolean[], text[], text[])
from public;
