-- The journal's numbering: who takes what became visible, gives it dense offsets, reads it back and lets it go.
--
-- An entry's `seq` says nothing about the order of commits: whoever drew 7 may commit long after whoever drew 8. So the
-- numbering follows snapshots. One step takes every entry that is visible now and was not at the step before, in the
-- order of `seq`, and numbers it. `seq` is drawn while the job's row is locked, so of two entries of one job (and of
-- any two of which one caused the other) the second has the greater `seq`, and whoever sees it sees the first as well.

-- Where the numbering stands: the row with the greatest (epoch, next_offset). Steps insert and never update, so that a
-- transaction which holds back vacuum for hours cannot make this row slow to find; what is behind is deleted now and then.
create table minium.journal_cursor (
  epoch             bigint not null,
  next_offset       bigint not null,
  snapshot          pg_snapshot not null,      -- what is visible in it is numbered
  target            pg_snapshot,               -- a backlog is numbered in pieces: of what is visible in this one,
  target_seq        bigint not null default 0, -- everything up to here is numbered too
  system_identifier bigint,                    -- whose numbers these are: another cluster,
  timeline          integer,                   -- a promoted standby, a recovery to a point in time,
  home              oid not null,              -- or a dump that was read back gives numbers anew
  primary key (epoch, next_offset)
);

-- Dense numbers, beside the entries that they number: narrow, so that giving them costs little and a scan is fast.
create table minium.entry_offset (
  "offset" bigint primary key,
  at       timestamptz not null,
  xid      xid8 not null,
  seq      bigint not null,
  topic    text collate "C" not null
);
create index entry_offset_topic on minium.entry_offset (topic, "offset");

-- The oldest offset that is kept. A row of its own: reads begin here and never walk what was deleted before it.
create table minium.journal_floor (
  one          boolean primary key default true check (one),
  first_offset bigint not null
);
insert into minium.journal_floor (first_offset) values (1);

create function minium.journal_system_identifier() returns bigint
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return (select system_identifier from pg_control_system());
exception when insufficient_privilege or undefined_function or feature_not_supported then
  return null;                                 -- some hosts hide it: then the timeline and the table's oid must do
end $$;

create function minium.journal_timeline() returns integer
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer;
exception when insufficient_privilege or undefined_function or feature_not_supported then
  return null;
end $$;

-- The empty snapshot: whatever is in the journal already gets its number with the first step.
insert into minium.journal_cursor (epoch, next_offset, snapshot, system_identifier, timeline, home)
  values (1, 1, '1:1:', minium.journal_system_identifier(), minium.journal_timeline(),
          'minium.journal_cursor'::regclass::oid);

-- One step, in a REPEATABLE READ transaction on the primary, which must do nothing else.
--
-- The first row tells what happened, the rows behind it are the entries that were numbered, as far as `return_max` and
-- `bytes_max` go (the rest is read by offset). `outcome`:
--   idle      nothing to number
--   numbered  `first_offset` to `last_offset` were given; with `more` there is a backlog, and the next step goes on
--   busy      another node is numbering
--   moved     this is not the database that the cursor was written in: journal_adopt() comes first
-- Two nodes at once: the lock is tried, never waited for, and one that got it with an older snapshot fails with 40001
-- or 23505 at its first insert. A follower takes over only what has waited for longer than `patience`.
create function minium.journal_step(number_max integer, return_max integer, bytes_max bigint, patience interval)
returns table (outcome text, epoch bigint, first_offset bigint, last_offset bigint, more boolean,
               "offset" bigint, at timestamptz, id uuid, topic text, type text, subject text, trace text,
               late json, data json)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set max_parallel_workers_per_gather = 0
set plan_cache_mode = force_generic_plan       -- what is new is always a handful at the end of an index: one plan
set enable_seqscan = off                       -- fits every step, and no statistics can talk the planner out of it
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  c        minium.journal_cursor;
  target   pg_snapshot;
  ended    xid8[];
  overdue  timestamptz := case when patience = interval '0' then 'infinity' else clock_timestamp() - patience end;
  won      boolean;
  n        bigint;
  last_seq bigint;
begin
  if current_setting('transaction_isolation') <> 'repeatable read' or pg_current_xact_id_if_assigned() is not null then
    raise exception 'minium.journal_step wants a REPEATABLE READ transaction of its own';
  end if;
  -- On a standby the list of running transactions is empty, and entries would be skipped.
  if pg_is_in_recovery() then
    raise exception 'minium.journal_step runs on the primary only' using errcode = 'read_only_sql_transaction';
  end if;
  select * into strict c from minium.journal_cursor order by epoch desc, next_offset desc limit 1;
  outcome := 'idle'; epoch := c.epoch; first_offset := c.next_offset; last_offset := c.next_offset - 1; more := false;
  target := coalesce(c.target, pg_current_snapshot());
  ended := array(select x from pg_snapshot_xip(c.snapshot) x where pg_visible_in_snapshot(x, target));
  if c.target is null and cardinality(ended) = 0
     and not exists (select from minium.entry e where e.xid >= pg_snapshot_xmax(c.snapshot)) then
    return next;                               -- most steps end here
    return;
  end if;
  if c.home <> 'minium.journal_cursor'::regclass or c.timeline <> minium.journal_timeline()
     or pg_snapshot_xmax(c.snapshot) > pg_snapshot_xmax(pg_current_snapshot()) then
    outcome := 'moved';
    return next;
    return;
  end if;

  with fresh as materialized (
    select f.*, row_number() over (order by f.seq) as place from (
      select e.seq, e.xid, e.at, e.topic from minium.entry e
        where e.xid >= pg_snapshot_xmax(c.snapshot) and e.seq > c.target_seq
          and (c.target is null or pg_visible_in_snapshot(e.xid, target))
      union all                                -- were running at the last step and have ended since
      select e.seq, e.xid, e.at, e.topic from minium.entry e
        where e.xid = any (ended) and e.seq > c.target_seq
      order by 1 limit number_max + 1          -- one more than is numbered tells whether there is a backlog
    ) f
  ), lock as materialized (                    -- 'journal' in ASCII; held until the commit
    select case when exists (select from fresh f where f.at < overdue)
                then pg_try_advisory_xact_lock(29958897753022828) end as got
  ), given as (
    insert into minium.entry_offset ("offset", at, xid, seq, topic)
      select c.next_offset + f.place - 1, f.at, f.xid, f.seq, f.topic
        from fresh f, lock where lock.got and f.place <= number_max
  )
  select lock.got, f.n, f.last_seq into won, n, last_seq
    from lock, (select count(*) as n, max(f.seq) filter (where f.place <= number_max) as last_seq from fresh f) f;
  if n = 0 and c.target is not null then       -- somebody deleted the rest of the backlog
    update minium.journal_cursor x set snapshot = c.target, target = null, target_seq = 0
      where x.epoch = c.epoch and x.next_offset = c.next_offset;
  end if;
  if won is not true then
    outcome := case when won is null then 'idle' else 'busy' end;
    return next;
    return;
  end if;

  more := n > number_max;
  n := least(n, number_max);
  outcome := 'numbered'; last_offset := c.next_offset + n - 1;
  insert into minium.journal_cursor
      (epoch, next_offset, snapshot, target, target_seq, system_identifier, timeline, home)
    values (c.epoch, c.next_offset + n,
            case when more then c.snapshot else target end, case when more then target end,
            case when more then last_seq else 0 end, c.system_identifier, c.timeline, c.home);
  -- Nothing may be published that a crash undoes; this also flushes whatever writers committed asynchronously.
  if current_setting('synchronous_commit') in ('off', 'local', 'remote_write') then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  return next;
  return query
    select null::text, null::bigint, null::bigint, null::bigint, null::boolean, p.*
      from minium.journal_page(c.next_offset - 1, return_max, bytes_max) p;
end $$;

-- Makes the cursor one of this database, after it moved: a new epoch, so that whoever knows a number of the old one is
-- told; offsets go on upward. Answers the epoch that holds now. `rewound` says that offsets are known which this cursor
-- never gave. READ COMMITTED will do.
--
-- A promoted standby or a recovery keeps transaction ids; all it needs is the epoch. A dump that was read back does not:
-- the ids in its rows are another cluster's, and may come again here. They are made old, and what has no offset yet
-- gets one, once.
create function minium.journal_adopt(rewound boolean) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  c      minium.journal_cursor;
  cur    pg_snapshot;
  system bigint := minium.journal_system_identifier();
  line   integer := minium.journal_timeline();
  here   oid := 'minium.journal_cursor'::regclass;
  n      bigint := 0;
begin
  perform pg_advisory_xact_lock(29958897753022828);
  -- The lock is held: from here on nobody numbers, and this snapshot is younger than the last step.
  select * into strict c from minium.journal_cursor order by epoch desc, next_offset desc limit 1;
  cur := pg_current_snapshot();
  if not rewound and c.home = here and coalesce(c.system_identifier = system, true)
     and pg_snapshot_xmax(c.snapshot) <= pg_snapshot_xmax(cur) then
    if coalesce(c.timeline = line, true) then
      return c.epoch;
    end if;
    insert into minium.journal_cursor
        (epoch, next_offset, snapshot, target, target_seq, system_identifier, timeline, home)
      values (c.epoch + 1, c.next_offset, c.snapshot, c.target, c.target_seq, coalesce(system, c.system_identifier),
              line, here);
    return c.epoch + 1;
  end if;

  update minium.entry e set xid = '3' where not pg_visible_in_snapshot(e.xid, cur);
  update minium.entry_offset o set xid = '3' where not pg_visible_in_snapshot(o.xid, cur);
  insert into minium.entry_offset ("offset", at, xid, seq, topic)
    select c.next_offset + row_number() over (order by e.seq) - 1, e.at, e.xid, e.seq, e.topic
      from minium.entry e
     where pg_visible_in_snapshot(e.xid, cur)
       and not exists (select from minium.entry_offset o where (o.at, o.xid, o.seq) = (e.at, e.xid, e.seq));
  get diagnostics n = row_count;
  insert into minium.journal_cursor (epoch, next_offset, snapshot, system_identifier, timeline, home)
    values (c.epoch + 1, c.next_offset + n, cur, system, line, here);
  return c.epoch + 1;
end $$;

-- Entries behind an offset, in order, at most `count_max`, and no more after the first that passes `bytes_max` (stored
-- bytes: what is compressed counts as such).
create function minium.journal_page(after_offset bigint, count_max integer, bytes_max bigint)
returns table ("offset" bigint, at timestamptz, id uuid, topic text, type text, subject text, trace text,
               late json, data json)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set jit = off
set max_parallel_workers_per_gather = 0
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
begin
  return query
    select s."offset", s.at, s.id, s.topic, s.type, s.subject, s.trace, s.late, s.data from (
      select o."offset", e.at, e.id, e.topic, e.type, e.subject, e.trace, e.late, e.data,
             sum(pg_column_size(e.data)) over (order by o."offset" rows between unbounded preceding and 1 preceding) as before
        from (select * from minium.entry_offset o where o."offset" > after_offset order by o."offset" limit count_max) o
        join minium.entry e on e.at = o.at and e.xid = o.xid and e.seq = o.seq
    ) s where coalesce(s.before, 0) < bytes_max order by s."offset";
end $$;

-- What the journal holds now.
create function minium.journal_bounds(out epoch bigint, out first_offset bigint, out last_offset bigint)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select c.epoch, f.first_offset, c.next_offset - 1
    from (select * from minium.journal_cursor order by epoch desc, next_offset desc limit 1) c, minium.journal_floor f
$$;

-- History by filter. `below` is the filter's beginning without wildcards (null for everything), `pattern` the whole of
-- it as a regular expression when it has some. The first row tells the bounds, how far was looked and how many matched;
-- the rows behind it are entries, at most `count_max`, and no more after the first that passes `bytes_max`.
--
-- Near the end of the journal, where most readers are, the offsets are walked. Elsewhere the topic's index is asked
-- first: one job, or a task with few events, is found by it alone; a task with many is found by walking.
create function minium.journal_read(below text, pattern text, after_offset bigint, to_offset bigint,
                                    count_max integer, bytes_max bigint, walk_max integer)
returns table (epoch bigint, first_offset bigint, last_offset bigint, scanned_to bigint, matched integer,
               "offset" bigint, at timestamptz, id uuid, topic text, type text, subject text, trace text,
               late json, data json)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set jit = off
set max_parallel_workers_per_gather = 0
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  few     constant integer := 1000;
  low     bigint;
  high    bigint;
  found   bigint[];
begin
  select b.epoch, b.first_offset, b.last_offset into epoch, first_offset, last_offset from minium.journal_bounds() b;
  low := greatest(after_offset, first_offset - 1);
  high := least(to_offset, last_offset);
  if below is not null and high - low > walk_max then
    select array_agg(t."offset") into found
      from (select o."offset" from minium.entry_offset o where o.topic = below
             union all                         -- with OR it would be one walk of the whole index
            select o."offset" from minium.entry_offset o where o.topic > below || '/' and o.topic < below || '0'
             limit few + 1) t;
    if cardinality(found) > few then
      found := null;
    else
      found := array(select x from unnest(found) x
                       join minium.entry_offset o on o."offset" = x
                      where x > low and x <= high and (pattern is null or o.topic ~ pattern)
                      order by x limit count_max);
    end if;
  end if;
  if found is null then
    high := least(high, low + walk_max);
    found := array(select o."offset" from minium.entry_offset o
                    where o."offset" > low and o."offset" <= high
                      and (below is null or o.topic = below or (o.topic > below || '/' and o.topic < below || '0'))
                      and (pattern is null or o.topic ~ pattern)
                    order by o."offset" limit count_max);
  end if;
  scanned_to := greatest(high, low);
  matched := cardinality(found);
  return next;
  return query
    select null::bigint, null::bigint, null::bigint, null::bigint, null::integer,
           s."offset", s.at, s.id, s.topic, s.type, s.subject, s.trace, s.late, s.data from (
      select o."offset", e.at, e.id, e.topic, e.type, e.subject, e.trace, e.late, e.data,
             sum(pg_column_size(e.data)) over (order by o."offset" rows between unbounded preceding and 1 preceding) as before
        from unnest(found) x
        join minium.entry_offset o on o."offset" = x
        join minium.entry e on e.at = o.at and e.xid = o.xid and e.seq = o.seq
    ) s where coalesce(s.before, 0) < bytes_max order by s."offset";
end $$;

-- The offset behind which the last `count` entries that match begin. It looks no further back than `walk_max` entries,
-- unless the topic's index knows all that there are.
create function minium.journal_before_last(below text, pattern text, count_max integer, walk_max integer)
returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
set jit = off
set max_parallel_workers_per_gather = 0
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  few    constant integer := 1000;
  bounds record;
  found  bigint[];
  low    bigint;
begin
  select * into bounds from minium.journal_bounds();
  if count_max = 0 then
    return bounds.last_offset;
  end if;
  if below is not null then
    select array_agg(t."offset") into found
      from (select o."offset" from minium.entry_offset o where o.topic = below
             union all                         -- with OR it would be one walk of the whole index
            select o."offset" from minium.entry_offset o where o.topic > below || '/' and o.topic < below || '0'
             limit few + 1) t;
    if cardinality(found) > few then
      found := null;
    else
      low := bounds.first_offset - 1;
      found := array(select x from unnest(found) x
                       join minium.entry_offset o on o."offset" = x
                      where x > low and (pattern is null or o.topic ~ pattern)
                      order by x desc limit count_max);
    end if;
  end if;
  if found is null then
    low := greatest(bounds.first_offset - 1, bounds.last_offset - walk_max);
    found := array(select o."offset" from minium.entry_offset o
                    where o."offset" > low
                      and (below is null or o.topic = below or (o.topic > below || '/' and o.topic < below || '0'))
                      and (pattern is null or o.topic ~ pattern)
                    order by o."offset" desc limit count_max);
  end if;
  return case when cardinality(found) = count_max then found[count_max] - 1 else low end;
end $$;

-- Lets go of the oldest entries, one batch: those beyond `count_max`, and those older than `before`.
-- Entries go in the order of offsets, so that what is kept has no holes; what has no offset yet is never touched.
-- Answers how many offsets went.
create function minium.journal_trim(before timestamptz, count_max bigint, batch_max integer)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set max_parallel_workers_per_gather = 0
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  first bigint;
  last  bigint;
  stop  bigint;
begin
  -- one at a time; whoever comes second finds it done
  select f.first_offset into first from minium.journal_floor f for update skip locked;
  if not found then
    return 0;
  end if;
  last := (select c.next_offset - 1 from minium.journal_cursor c order by epoch desc, next_offset desc limit 1);
  delete from minium.journal_cursor c
    where (c.epoch, c.next_offset) < (select x.epoch, x.next_offset from minium.journal_cursor x
                                       order by epoch desc, next_offset desc limit 1);
  stop := (select o."offset" from (select o."offset", o.at from minium.entry_offset o
                                    where o."offset" >= first order by o."offset" limit batch_max) o
            where o.at >= before and o."offset" > last - count_max order by o."offset" limit 1);
  stop := coalesce(stop, least(first + batch_max, last + 1));
  if stop <= first then
    return 0;
  end if;
  delete from minium.entry e using minium.entry_offset o
    where o."offset" >= first and o."offset" < stop and e.at = o.at and e.xid = o.xid and e.seq = o.seq;
  delete from minium.entry_offset o where o."offset" >= first and o."offset" < stop;
  update minium.journal_floor set first_offset = stop;
  return stop - first;
end $$;

-- Makes the partitions of `ahead` days to come; when they are there, drops one day before `before` that is empty. What
-- cannot be had within the lock timeout is tried again at the next call: until then new entries go to the DEFAULT
-- partition, and an empty day stays. Answers how many partitions came and went.
--
-- Never for today: an INSERT that has already chosen the DEFAULT partition, and then waits for the lock that attaching
-- takes, fails when the new partition has taken its row's place.
create function minium.journal_days(ahead integer, before timestamptz, today timestamptz,
                                    out made integer, out dropped integer)
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set lock_timeout = '100ms'                     -- whoever waits for this lock holds up every enqueue behind it
as $$
declare
  day   date;
  part  text;
  empty boolean;
begin
  made := 0; dropped := 0;
  for day in select today::date + i from generate_series(1, ahead) i loop
    part := 'entry_' || to_char(day, 'YYYYMMDD');
    continue when to_regclass('minium.' || part) is not null or day < today + interval '1 hour';
    begin
      -- made first and then attached: creating it as a partition would lock the whole journal
      execute format('create table minium.%I (like minium.entry including defaults including storage including compression)', part);
      execute format('alter table minium.entry attach partition minium.%I for values from (%L) to (%L)',
                     part, day::timestamptz, (day + 1)::timestamptz);
      made := made + 1;
    exception when lock_not_available or check_violation or duplicate_table then
      null;                                    -- busy, made by another, or the DEFAULT partition has that day already
    end;
  end loop;
  if made > 0 then
    return;                                    -- with what is locked now, waiting would hold others up for longer
  end if;
  for part in
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'minium.entry'::regclass and c.relname ~ '^entry_[0-9]{8}$'
       and to_date(right(c.relname, 8), 'YYYYMMDD') < before::date
     order by c.relname
  loop
    execute format('select not exists (select from minium.%I)', part) into empty;
    continue when not empty;
    begin
      lock table only minium.entry in access exclusive mode;
      execute format('lock table minium.%I in access exclusive mode', part);
      -- Now nobody is writing into it: an entry that was still on its way keeps its day.
      execute format('select not exists (select from minium.%I)', part) into empty;
      if empty then
        execute format('drop table minium.%I', part);
        dropped := 1;
        return;
      end if;
    exception when lock_not_available or deadlock_detected then
      null;
    end;
  end loop;
end $$;

-- For whoever reads the journal by SQL; an interface.
create view minium.journal as
  select (select c.epoch from minium.journal_cursor c order by c.epoch desc, c.next_offset desc limit 1) as epoch,
         o."offset" as sequence, o.topic, e.type, o.at, e.data
    from minium.entry_offset o
    join minium.entry e on e.at = o.at and e.xid = o.xid and e.seq = o.seq;
