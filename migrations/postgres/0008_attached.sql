-- Jobs of others: a Minion of Perl's whose transitions go into this journal (docs/minion-attach.md).

-- Where an entry comes from, when that is not this installation; it becomes the event's `source`. Our own statements leave
-- it alone: a null at the end of a row that has nulls already takes no room.
alter table minium.entry add column source text;

-- Who is attached. The triggers and their functions are made by `minium attach`; this says of what make they are.
create table minium.attached (
  system     text primary key check (system = 'minion'),
  jobs       regclass not null,                -- its table of jobs
  source     text not null,                    -- as in the entries
  version    integer not null,                 -- of the triggers and functions
  since      timestamptz not null default now()
);

-- As in 0002, with the source. It stands last: programs from before this migration read columns by their place.
drop function minium.journal_page(bigint, integer, bigint);
create function minium.journal_page(after_offset bigint, count_max integer, bytes_max bigint)
returns table ("offset" bigint, at timestamptz, id uuid, topic text, type text, subject text, trace text,
               late json, data json, source text)
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
    select s."offset", s.at, s.id, s.topic, s.type, s.subject, s.trace, s.late, s.data, s.source from (
      select o."offset", e.at, e.id, e.topic, e.type, e.subject, e.trace, e.late, e.data, e.source,
             sum(pg_column_size(e.data)) over (order by o."offset" rows between unbounded preceding and 1 preceding) as before
        from (select * from minium.entry_offset o where o."offset" > after_offset order by o."offset" limit count_max) o
        join minium.entry e on e.at = o.at and e.xid = o.xid and e.seq = o.seq
    ) s where coalesce(s.before, 0) < bytes_max order by s."offset";
end $$;

-- As in 0003, with the source.
drop function minium.journal_step(integer, integer, bigint, interval);
create function minium.journal_step(number_max integer, return_max integer, bytes_max bigint, patience interval)
returns table (outcome text, epoch bigint, first_offset bigint, last_offset bigint, more boolean,
               "offset" bigint, at timestamptz, id uuid, topic text, type text, subject text, trace text,
               late json, data json, source text)
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
      select e.seq, e.xid, e.at, e.topic, pg_column_size(e.data) as size from minium.entry e
        where e.xid >= pg_snapshot_xmax(c.snapshot) and e.seq > c.target_seq
          and (c.target is null or pg_visible_in_snapshot(e.xid, target))
      union all                                -- were running at the last step and have ended since
      select e.seq, e.xid, e.at, e.topic, pg_column_size(e.data) as size from minium.entry e
        where e.xid = any (ended) and e.seq > c.target_seq
      order by 1 limit number_max + 1          -- one more than is numbered tells whether there is a backlog
    ) f
  ), lock as materialized (                    -- 'journal' in ASCII; held until the commit
    select case when exists (select from fresh f where f.at < overdue)
                then pg_try_advisory_xact_lock(29958897753022828) end as got
  ), given as (
    insert into minium.entry_offset ("offset", at, xid, seq, topic, size)
      select c.next_offset + f.place - 1, f.at, f.xid, f.seq, f.topic, f.size
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

-- As in 0003, with the source.
drop function minium.journal_read(text, text, text, bigint, bigint, integer, bigint, integer);
create function minium.journal_read(filter text, below text, pattern text, after_offset bigint, to_offset bigint,
                                    count_max integer, bytes_max bigint, walk_max integer)
returns table (epoch bigint, first_offset bigint, last_offset bigint, scanned_to bigint, matched integer,
               "offset" bigint, at timestamptz, id uuid, topic text, type text, subject text, trace text,
               late json, data json, source text)
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
  select b.epoch, minium.journal_first(filter, below), b.last_offset into epoch, first_offset, last_offset
    from minium.journal_bounds() b;
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
           s."offset", s.at, s.id, s.topic, s.type, s.subject, s.trace, s.late, s.data, s.source from (
      select o."offset", e.at, e.id, e.topic, e.type, e.subject, e.trace, e.late, e.data, e.source,
             sum(pg_column_size(e.data)) over (order by o."offset" rows between unbounded preceding and 1 preceding) as before
        from unnest(found) x
        join minium.entry_offset o on o."offset" = x
        join minium.entry e on e.at = o.at and e.xid = o.xid and e.seq = o.seq
    ) s where coalesce(s.before, 0) < bytes_max order by s."offset";
end $$;

-- As in 0002, with the source; null is this installation.
create or replace view minium.journal as
  select (select c.epoch from minium.journal_cursor c order by c.epoch desc, c.next_offset desc limit 1) as epoch,
         o."offset" as sequence, o.topic, e.type, o.at, e.data, e.source
    from minium.entry_offset o
    join minium.entry e on e.at = o.at and e.xid = o.xid and e.seq = o.seq;
