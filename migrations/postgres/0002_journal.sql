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

-- Has the database moved since the cursor was written? Whatever is not known is not held against it.
create function minium.journal_moved(cursor_row minium.journal_cursor, of_system bigint, of_timeline integer)
returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$
  select cursor_row.home <> 'minium.journal_cursor'::regclass::oid
      or coalesce(cursor_row.system_identifier <> of_system, false)
      or coalesce(cursor_row.timeline <> of_timeline, false)
      or pg_snapshot_xmax(cursor_row.snapshot) > pg_snapshot_xmax(pg_current_snapshot())
$$;

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
  if minium.journal_moved(c, null, minium.journal_timeline()) then
    outcome := 'moved';
    return next;
    return;
  end if;

  target := coalesce(c.target, pg_current_snapshot());
  ended := array(select x from pg_snapshot_xip(c.snapshot) x where pg_visible_in_snapshot(x, target));
  with fresh as materialized (
    select e.seq, e.xid, e.at, e.topic from minium.entry e
      where e.xid >= pg_snapshot_xmax(c.snapshot) and e.seq > c.target_seq
        and (c.target is null or pg_visible_in_snapshot(e.xid, target))
    union all                                  -- were running at the last step and have ended since
    select e.seq, e.xid, e.at, e.topic from minium.entry e
      where e.xid = any (ended) and e.seq > c.target_seq
    order by 1 limit number_max
  ), lock as materialized (                    -- 'minium' in ASCII; held until the commit
    select case when exists (select from fresh f where f.at < overdue)
                then pg_try_advisory_xact_lock(120282359658861) end as got
  ), given as (
    insert into minium.entry_offset ("offset", at, xid, seq, topic)
      select c.next_offset + row_number() over (order by f.seq) - 1, f.at, f.xid, f.seq, f.topic
        from fresh f, lock where lock.got
  )
  select lock.got, (select count(*) from fresh), (select max(f.seq) from fresh f)
    into won, n, last_seq from lock;
  if won is not true then
    outcome := case when won is null then 'idle' else 'busy' end;
    return next;
    return;
  end if;

  outcome := 'numbered'; last_offset := c.next_offset + n - 1; more := n = number_max;
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

-- Entries behind an offset, in order, at most `count_max`, and no more after the first that passes `bytes_max` (stored
-- bytes: what is compressed counts as such).
create function minium.journal_page(after_offset bigint, count_max integer, bytes_max bigint)
returns table ("offset" bigint, at timestamptz, id uuid, topic text, type text, subject text, trace text,
               late json, data json)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set jit = off
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
