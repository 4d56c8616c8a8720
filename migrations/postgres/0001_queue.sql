-- The queue on PostgreSQL (14 or later): jobs, who waits for whom, keys, workers, schedules, and the journal's rows.
--
-- One wide table of jobs, updated in place. No index names a column that a finish changes, so a finish is a HOT
-- update; what would need such an index (keys, figures, renewed leases, priorities in use) has a table of its own.
-- Every statement that changes a job writes the job's event itself; nobody but the owner may write these tables.
-- Whoever locks several jobs locks them in the order of their ids.

create type minium.state as enum ('inactive', 'active', 'finished', 'failed', 'cancelled');

create sequence minium.job_id as bigint;
create sequence minium.ready_seq as bigint;       -- a job draws a new number each time it becomes ready

-- The columns of fixed width stand first, what may be long last: what a claim looks at is found without walking over it.
create table minium.job (
  id          bigint primary key default nextval('minium.job_id'),
  seq         bigint not null default nextval('minium.ready_seq'),
  created     timestamptz not null default now(),
  delayed     timestamptz not null default now(),
  later_at    timestamptz,                        -- not staged before; null once it is
  expires     timestamptz,
  started     timestamptz,
  finished    timestamptz,
  retried     timestamptz,
  lease_until timestamptz,                        -- as given at the claim; a renewal stands in a table of its own
  origin      bigint,
  timeout_us  bigint,
  backoff_us  bigint,
  lease       uuid,                               -- stays after finish, fail and cancel: it knows a repeated word
  state       minium.state not null default 'inactive',
  priority    int not null default 0 check (priority between -1000 and 1000),
  attempt     int not null default 0,
  attempts    int not null default 1 check (attempts between 1 and 1000),
  retries     int not null default 0,
  left_n      int not null default 0,             -- open edges to parents; a counter, not a search for each claim
  ready       boolean not null default true,      -- inactive, staged, no open edge: what claims look at
  lax         boolean not null default false,
  queue       text collate "C" not null default 'default',
  task        text collate "C" not null,        -- "C": compared as bytes, whatever the database's language
  key         text,
  schedule    text,
  trace       text,
  worker      json,                               -- {"id","host","pid"}
  parents     bigint[] not null default '{}',
  notes       jsonb not null default '{}' check (jsonb_typeof(notes) = 'object'),
  progress    json,
  error       text,
  result      json,                               -- json, not jsonb: written once, passed through as text
  args        json not null
) with (fillfactor = 50);                        -- room for a second version: 95 % of finishes HOT, at 70 it was 68 %

create index job_ready on minium.job (queue, priority, seq) where ready;
create index job_later on minium.job (later_at) where later_at is not null;
create index job_expires on minium.job (expires) where expires is not null and started is null;
-- finished jobs stay in it: a finish that left it would not be HOT, and passing one costs one look at the heap
create index job_lease on minium.job (lease_until) where lease_until is not null;

-- Leases that were renewed. Small and rewritten often, so it has no index but the key and room for HOT updates.
create table minium.renewal (
  job   bigint primary key,
  lease uuid not null,
  until timestamptz not null
) with (fillfactor = 50);

-- Who waits for whom. Parents that did not exist at the enqueue have no edge; a deleted parent takes its edges along.
create table minium.edge (
  parent bigint not null,
  child  bigint not null,
  open   boolean not null,
  primary key (parent, child)
);
create index edge_open on minium.edge (parent, child) where open;

-- Keys of living jobs.
create table minium.job_key (
  task text collate "C" not null,
  key  text collate "C" not null,
  job  bigint not null,
  primary key (task, key)
);
create index job_key_job on minium.job_key (job);

-- The priorities in use, so that a claim knows where to look. Rows are only ever added. They are not unique, on purpose:
-- a unique index would make an enqueue wait for a stranger's open transaction that is the first to use a priority.
create table minium.lane (
  queue    text collate "C" not null,
  priority int not null
);
create index lane_queue on minium.lane (queue, priority);

-- Jobs by state, as sums of what was added and taken; upkeep folds the rows together. Counting would read every job.
create table minium.tally (
  inactive  bigint not null default 0,
  active    bigint not null default 0,
  finished  bigint not null default 0,
  failed    bigint not null default 0,
  cancelled bigint not null default 0
);

create table minium.worker (
  id        bigint generated always as identity primary key,
  host      text not null,
  pid       bigint not null,
  started   timestamptz not null default now(),
  heartbeat timestamptz not null default now()
);

create table minium.schedule (
  name text primary key,
  due  timestamptz not null
);

-- Which server this is, and since when. Leases get their grace anew after a restart (start time) and a failover (timeline).
create table minium.server (
  one      boolean primary key default true check (one),
  started  timestamptz not null,
  timeline int not null,
  since    timestamptz not null
);
insert into minium.server (started, timeline, since)
  select pg_postmaster_start_time(), ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int,
         pg_postmaster_start_time();

-- Who wants to be woken: the journal's reader while `armed`, idle workers until `until`. Else nobody sends NOTIFY.
create table minium.wake (
  name  text primary key,
  armed boolean not null default false,
  until timestamptz not null default '-infinity'
) with (fillfactor = 10);
insert into minium.wake (name, armed) values ('journal', true), ('jobs', false);

-- The journal's rows. `seq` must be drawn one by one: it is drawn while the job's row is locked, and so is in causal order.
create table minium.entry (
  seq     bigint generated always as identity (cache 1),
  xid     xid8 not null default pg_current_xact_id(),
  at      timestamptz not null default clock_timestamp(),
  id      uuid not null default gen_random_uuid(),
  topic   text collate "C" not null,
  type    text not null,
  subject text not null,
  trace   text,
  late    json,                                   -- what a late result brought
  data    json not null                           -- the snapshot
) partition by range (at);
create index entry_xid_seq on minium.entry (xid, seq);
-- a missing partition must never make an enqueue fail
create table minium.entry_default partition of minium.entry default;

-- lz4 is a choice of whoever built the server
do $$
declare place record;
begin
  for place in select * from (values ('job', 'args'), ('job', 'result'), ('job', 'error'), ('job', 'notes'),
                                     ('entry', 'data'), ('entry_default', 'data')) as p (tab, col) loop
    execute format('alter table minium.%I alter column %I set compression lz4', place.tab, place.col);
  end loop;
exception when feature_not_supported or invalid_parameter_value then null;
end $$;

-- The snapshot's members, in the order of the wire.
create type minium.snapshot_row as (
  id bigint, task text, queue text, state minium.state, priority int, args json, notes jsonb,
  attempt int, attempts int, retries int, parents bigint[], lax boolean, key text, schedule text,
  worker json, result json, error text, progress json, origin bigint,
  created text, delayed text, expires text, started text, finished text, retried text);

-- RFC 3339 in UTC with microseconds, whatever the session's time zone. Inlined into its caller.
create function minium.time_text(moment timestamptz) returns text language sql stable parallel safe as $$
  select to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- The whole job as JSON. The one place that makes it, inlined into its callers: 6.9 µs a job, against 9.7 by
-- json_build_object and 9.6 by putting text together.
create function minium.snapshot(j minium.job) returns json language sql stable parallel safe as $$
  select row_to_json(row(
    j.id, j.task, j.queue, j.state, j.priority, j.args, j.notes,
    j.attempt, j.attempts, j.retries, j.parents, j.lax, j.key, j.schedule,
    j.worker, j.result, j.error, j.progress, j.origin,
    minium.time_text(j.created), minium.time_text(j.delayed), minium.time_text(j.expires),
    minium.time_text(j.started), minium.time_text(j.finished), minium.time_text(j.retried))::minium.snapshot_row)
$$;

-- Does a parent in this state hold its child back? Null is a parent that does not exist (any more).
create function minium.holds(parent minium.state, lax boolean) returns boolean language sql immutable parallel safe as $$
  select case parent when 'inactive' then true when 'active' then true
                     when 'failed' then not lax when 'cancelled' then not lax else false end
$$;

-- Wakes whoever asked for it, at the commit. Any number of calls in one transaction are one notification.
create function minium.wake_up(jobs boolean) returns void language plpgsql as $$
begin
  perform pg_notify('minium_journal', '') from minium.wake where name = 'journal' and armed;
  if jobs then
    perform pg_notify('minium_job', '') from minium.wake where name = 'jobs' and until > clock_timestamp();
  end if;
end $$;

-- Makes the edges below some parents say what the parents' states say, and moves the children's counters. Answers how
-- many children became ready. Whatever ends, revives or removes a parent calls it right after; upkeep calls it for
-- open edges, whatever was missed (ADR 0002). Takes the children's row locks, in id order, and no lock on parents:
-- who changes an edge holds its child.
create function minium.settle(of_parents bigint[]) returns bigint language plpgsql as $$
declare
  kids bigint[];
  released bigint;
begin
  -- index: the key of edge, then the key of job by correlated look-ups
  kids := array(
    select distinct e.child from minium.edge e
     where e.parent = any (of_parents)
       and e.open is distinct from minium.holds((select p.state from minium.job p where p.id = e.parent),
                                                (select c.lax from minium.job c where c.id = e.child))
     order by 1);
  if cardinality(kids) = 0 then
    return 0;
  end if;
  perform from minium.job where id = any (kids) order by id for no key update;
  -- looks again, now that nobody else can move these counters
  with turned as (
    update minium.edge e set open = not e.open
     where e.parent = any (of_parents) and e.child = any (kids)
       and e.open is distinct from minium.holds((select p.state from minium.job p where p.id = e.parent),
                                                (select c.lax from minium.job c where c.id = e.child))
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
     where j.id = m.child and j.id = any (kids)
    returning j.ready)
  select count(*) filter (where ready) into released from freed;
  if released > 0 then
    perform minium.wake_up(true);
  end if;
  return released;
end $$;

-- Deletes jobs that the caller has locked, with one event each. Answers how many there were.
create function minium.drop_jobs(ids bigint[], event text) returns bigint language plpgsql as $$
declare
  dropped bigint;
begin
  with d as (
    delete from minium.job as j where j.id = any (ids)
    returning j.id, j.task, j.trace, j.parents, j.state, minium.snapshot(j) as data),
  events as (
    insert into minium.entry (topic, type, subject, trace, data)
    select 'task/' || task || '/' || id, event, id::text, trace, data from d order by id),
  keys as (delete from minium.job_key where job = any (ids)),
  -- the edges to its parents; its parents are named by the job, so that edges need no second index
  upward as (
    delete from minium.edge e where e.parent = any (array(select unnest(d.parents) from d)) and e.child = any (ids)),
  renewals as (delete from minium.renewal where job = any (ids)),
  figures as (
    insert into minium.tally (inactive, finished, failed, cancelled)
    select -count(*) filter (where state = 'inactive'), -count(*) filter (where state = 'finished'),
           -count(*) filter (where state = 'failed'), -count(*) filter (where state = 'cancelled')
      from d having count(*) > 0)
  select count(*) into dropped from d;
  if dropped > 0 then
    -- a parent that is not there counts as finished
    perform minium.settle(ids);
    delete from minium.edge where parent = any (ids);
    perform minium.wake_up(false);
  end if;
  return dropped;
end $$;

-- Enqueues jobs: each array has one element for each. Spans are microseconds. Answers one row for each, in their order.
-- A job whose key is held by a living job of its task is not enqueued; that one is the answer.
-- Takes no lock on parents: a user's long transaction must not hold up those who finish them (ADR 0002).
create function minium.enqueue_jobs(
  tasks text[], args text[], queues text[], priorities int[], attempts int[], delays bigint[], expiries bigint[],
  laxes boolean[], notes text[], parents text[], keys text[], timeouts bigint[], backoffs bigint[],
  schedules text[], origins bigint[], traces text[])
returns table (place int, job bigint, existing boolean) language plpgsql as $$
#variable_conflict use_column
declare
  got record;
begin
  for got in with r as materialized (
    select u.place::int as place, nextval('minium.job_id') as id, u.task, u.args::json as args, u.queue, u.priority,
           u.attempts, u.delay, u.expiry, u.lax, u.notes::jsonb as notes, u.parents::bigint[] as parents, u.key,
           u.timeout, u.backoff, u.schedule, u.origin, u.trace, k.known, k.held_by
      from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) with ordinality
             as u (task, args, queue, priority, attempts, delay, expiry, lax, notes, parents, key, timeout, backoff,
                   schedule, origin, trace, place),
           lateral (
             select coalesce(array_agg(s.parent), '{}') as known,
                    coalesce(array_agg(s.parent) filter (where minium.holds(s.state, u.lax)), '{}') as held_by
               from (select x.parent, (select p.state from minium.job p where p.id = x.parent) as state
                       from unnest(u.parents::bigint[]) as x (parent)) s
              where s.state is not null) k),
  -- waits for a transaction that holds the same key and is still open; sorted, so that two of us cannot wait in a ring
  taken as (
    insert into minium.job_key (task, key, job)
    select r.task, r.key, r.id from r where r.key is not null order by r.task, r.key, r.place
    on conflict do nothing
    returning job),
  j as (
    insert into minium.job as j (id, task, queue, priority, args, notes, attempts, parents, lax, key, schedule, origin,
                                 trace, timeout_us, backoff_us, left_n, created, delayed, later_at, expires, ready)
    select r.id, r.task, r.queue, r.priority, r.args, r.notes, r.attempts, r.parents, r.lax, r.key, r.schedule, r.origin,
           r.trace, r.timeout, r.backoff, cardinality(r.held_by), statement_timestamp(),
           statement_timestamp() + r.delay * interval '1 microsecond',
           case when r.delay > 0 then statement_timestamp() + r.delay * interval '1 microsecond' end,
           statement_timestamp() + r.expiry * interval '1 microsecond',
           r.delay = 0 and cardinality(r.held_by) = 0
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
  select r.place, r.id, r.task, r.key, r.key is null or r.id = any (array(select job from taken)) as done from r
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
                                   $10[place:place], $11[place:place], $12[place:place], $13[place:place],
                                   $14[place:place], $15[place:place], $16[place:place]) again;
      end if;
    end if;
    return next;
  end loop;
  perform minium.wake_up(true);
end $$;

-- A span in microseconds from a number of seconds or a text as "90s", "5m".
create function minium.span_us(option text, value jsonb) returns bigint language plpgsql immutable as $$
declare
  parts text[] := regexp_match(value #>> '{}', '^\s*(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h|d)?\s*$');
  us numeric;
begin
  if value is null or jsonb_typeof(value) = 'null' then
    return null;
  end if;
  if jsonb_typeof(value) in ('number', 'string') and parts is not null then
    us := parts[1]::numeric * case coalesce(parts[2], 's')
            when 'ms' then 1000 when 's' then 1000000 when 'm' then 60000000 when 'h' then 3600000000
            else 86400000000 end;
    if us <= 100.0 * 365 * 86400 * 1000000 then
      return trunc(us);
    end if;
  end if;
  raise exception using errcode = 'invalid_parameter_value', message = format(
    '%s is %s: write seconds, or a text as "90s", "5m", at most 100 years', option, value);
end $$;

create function minium.check_topic(what text, topic text, bytes_max int, segments_max int) returns void
language plpgsql immutable as $$
begin
  if topic is null or octet_length(topic) > bytes_max
     or topic !~ '^[A-Za-z0-9_.~:@-]{1,128}(/[A-Za-z0-9_.~:@-]{1,128})*$'
     or topic ~ '(^|/)\.\.?(/|$)'
     or cardinality(string_to_array(topic, '/')) > segments_max then
    raise exception using errcode = 'invalid_parameter_value', message = format(
      '%s is %L: it must have 1 to %s segments of A-Z a-z 0-9 _ . ~ : @ - between slashes, at most %s bytes in all',
      what, topic, segments_max, bytes_max);
  end if;
end $$;

-- Enqueues a job from SQL, inside of the caller's transaction. Options: attempts delay expire lax notes parents
-- priority queue key timeout backoff origin. A role that is to enqueue needs USAGE on the schema and EXECUTE on this
-- function, and nothing else.
create function minium.enqueue(task text, args jsonb, options jsonb default '{}') returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
  name text;
  parents bigint[];
  number numeric;
  answer bigint;
begin
  if jsonb_typeof(coalesce(options, '{}')) <> 'object' then
    raise exception using errcode = 'invalid_parameter_value', message = 'options must be an object';
  end if;
  -- a member that is null is a member that is not there
  options := coalesce((select jsonb_object_agg(o.key, o.value) from jsonb_each(options) o where o.value <> 'null'), '{}');
  for name in select jsonb_object_keys(options) loop
    if name <> all ('{attempts,delay,expire,lax,notes,parents,priority,queue,key,timeout,backoff,origin}') then
      raise exception using errcode = 'invalid_parameter_value', message = format('there is no option %L', name),
        hint = 'options are attempts delay expire lax notes parents priority queue key timeout backoff origin';
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
  select e.job into strict answer from minium.enqueue_jobs(
    array[task], array[coalesce(args, '[]')::text], array[coalesce(options ->> 'queue', 'default')],
    array[coalesce((options ->> 'priority')::numeric::int, 0)], array[coalesce((options ->> 'attempts')::numeric::int, 1)],
    array[coalesce(minium.span_us('delay', options -> 'delay'), 0)], array[minium.span_us('expire', options -> 'expire')],
    array[coalesce((options ->> 'lax')::boolean, false)], array[coalesce(options ->> 'notes', '{}')],
    array[parents::text], array[options ->> 'key'], array[minium.span_us('timeout', options -> 'timeout')],
    array[minium.span_us('backoff', options -> 'backoff')], array[null::text],
    array[(options ->> 'origin')::numeric::bigint], array[null::text]) e;
  return answer;
end $$;

-- Whole jobs, for people and reports. An interface: columns may be added, none renamed.
create view minium.jobs as
  select id, task, queue, state::text as state, priority, args, notes, attempt, attempts, retries, parents, lax, key,
         schedule, worker, result, error, progress, origin, created, delayed, expires, started, finished, retried,
         case when state <> 'inactive' then null when left_n > 0 then 'blocked' when delayed > now() then 'delayed'
              else 'ready' end as phase
    from minium.job;

-- Only the owner calls these; roles are given what they need, above all EXECUTE on minium.enqueue.
revoke execute on all functions in schema minium from public;
