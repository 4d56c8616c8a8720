-- Durable channels: messages that clients publish are kept in the journal, beside the events of tasks.

-- Ids that publishers gave their messages: the same id on the same topic is the same message until `until`. Upkeep
-- deletes what is older, in the order of `seq`.
create table minium.message_id (
  topic    text collate "C" not null,
  id       text collate "C" not null,
  entry    uuid not null,                      -- the first message's entry,
  seq      bigint not null,                    -- its number among the writers,
  behind   bigint not null,                    -- and an offset before its own: where to look for that
  "offset" bigint,                             -- its own, once the entry is let go of
  until    timestamptz not null,
  primary key (topic, id)
);
create index message_id_seq on minium.message_id (seq);

-- The offset of an entry of which is known that it lies behind another, which was the last when the entry was written.
-- What lies between is what was numbered meanwhile: mostly nothing.
create function minium.journal_offset_of(of_seq bigint, behind bigint) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  -- index: the key of entry_offset, from `behind` on
  return (select o."offset" from minium.entry_offset o where o."offset" > behind and o.seq = of_seq
           order by o."offset" limit 1);
end $$;

-- Keeps messages in their order, all or none. One row for each: the entry that stands for it, which is the first one's
-- when the id was used within `remembered`, with its offset if it has one. READ COMMITTED. No two messages may have the
-- same topic and id.
--
-- Locks the rows of the ids, in their order, so that two nodes that are given the same ids wait for one another instead
-- of for ever. Numbers are drawn before, in the order of the messages.
create function minium.journal_keep(topics text[], ids text[], entries uuid[], data text[], remembered interval)
returns table (entry uuid, seq bigint, behind bigint, epoch bigint, "offset" bigint)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  now_is  constant timestamptz := clock_timestamp();
  seqs    bigint[] := array(select nextval('minium.entry_seq_seq') from generate_series(1, cardinality(topics)));
  last    bigint;
  current bigint;
  known   uuid[];                              -- entries that are not to be written: another stands for them
begin
  select c.epoch, c.next_offset - 1 into strict current, last
    from minium.journal_cursor c order by c.epoch desc, c.next_offset desc limit 1;
  if cardinality(array_remove(ids, null)) > 0 then
    with named as (
      select * from unnest(topics, ids, entries, seqs) as m (topic, id, entry, seq) where m.id is not null
    ), taken as (
      insert into minium.message_id as x (topic, id, entry, seq, behind, until)
        select n.topic, n.id, n.entry, n.seq, last, now_is + remembered from named n order by n.topic, n.id
      on conflict (topic, id) do update                            -- the row is locked even where it is not updated
        set entry = excluded.entry, seq = excluded.seq, behind = excluded.behind, "offset" = null,
            until = excluded.until
        where x.until <= now_is
      returning x.entry
    )
    select array(select n.entry from named n where n.entry not in (select t.entry from taken t)) into known;
  end if;
  insert into minium.entry (seq, id, topic, type, subject, data) overriding system value
    select m.seq, m.entry, m.topic, 'message', m.topic, m.data::json
      from unnest(topics, entries, seqs, data) with ordinality as m (topic, entry, seq, data, place)
     where known is null or m.entry <> all (known)
     order by m.place;
  perform minium.wake_up(false);
  if coalesce(cardinality(known), 0) = 0 then
    return query select m.entry, m.seq, last, current, null::bigint
      from unnest(entries, seqs) with ordinality as m (entry, seq, place) order by m.place;
    return;
  end if;
  -- a statement of its own: it sees what was committed while the one above waited for it
  return query
    select coalesce(x.entry, m.entry), coalesce(x.seq, m.seq), coalesce(x.behind, last), current,
           case when m.entry = any (known) then coalesce(x."offset", minium.journal_offset_of(x.seq, x.behind)) end
      from unnest(topics, ids, entries, seqs) with ordinality as m (topic, id, entry, seq, place)
      left join minium.message_id x on x.topic = m.topic and x.id = m.id
     order by m.place;
end $$;

-- The offsets of entries, as far as they have one.
create function minium.journal_find(seqs bigint[], behinds bigint[])
returns table (epoch bigint, "offset" bigint)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select (select c.epoch from minium.journal_cursor c order by c.epoch desc, c.next_offset desc limit 1),
         coalesce((select x."offset" from minium.message_id x where x.seq = m.seq),
                  minium.journal_offset_of(m.seq, m.behind))
    from unnest(seqs, behinds) with ordinality as m (seq, behind, place) order by m.place
$$;

-- Forgets ids whose time is over, the oldest first, and answers how many: fewer than `batch_max` means that there are
-- no more.
create function minium.journal_forget_ids(batch_max integer) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  n integer;
begin
  -- index: message_id_seq; who publishes with such an id right now goes first
  delete from minium.message_id m
    where m.ctid = any (array(
      select o.ctid from (select x.ctid, x.until from minium.message_id x order by x.seq limit batch_max) o
       where o.until <= clock_timestamp()))
      and m.until <= clock_timestamp();
  get diagnostics n = row_count;
  return n;
end $$;

-- Retention by channel. A channel is a prefix of topics; the nearest one governs an entry, and the empty prefix is that
-- of all others. What is kept of a channel has no holes: everything that belongs to it from `first_offset` on.
create table minium.journal_channel (
  prefix       text collate "C" primary key,
  first_offset bigint not null,
  active       boolean not null default true   -- one that is configured no more still says what may be missing
);
insert into minium.journal_channel (prefix, first_offset) select '', f.first_offset from minium.journal_floor f;

-- What is kept, counted: so many entries of a channel between two offsets, which are no further apart than a few
-- thousand. Counting looks at each entry once, and letting go looks at the oldest span alone.
create table minium.journal_span (
  prefix       text collate "C" not null,
  first_offset bigint not null,
  last_offset  bigint not null,
  count        bigint not null,
  bytes        bigint not null,
  primary key (prefix, first_offset)
);

-- How far the entries are counted. Whoever counts or lets go holds this row's lock.
alter table minium.journal_floor add column counted_to bigint;
update minium.journal_floor set counted_to = first_offset - 1;
alter table minium.journal_floor alter column counted_to set not null;

-- Stored bytes of the entry's data; 0 for entries from before this column.
alter table minium.entry_offset add column size integer not null default 0;

-- As in 0002, with the size.
create or replace function minium.journal_step(number_max integer, return_max integer, bytes_max bigint, patience interval)
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

-- As in 0002, with the size.
create or replace function minium.journal_adopt(rewound boolean) returns bigint
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
  insert into minium.entry_offset ("offset", at, xid, seq, topic, size)
    select c.next_offset + row_number() over (order by e.seq) - 1, e.at, e.xid, e.seq, e.topic, pg_column_size(e.data)
      from minium.entry e
     where pg_visible_in_snapshot(e.xid, cur)
       and not exists (select from minium.entry_offset o where (o.at, o.xid, o.seq) = (e.at, e.xid, e.seq));
  get diagnostics n = row_count;
  insert into minium.journal_cursor (epoch, next_offset, snapshot, system_identifier, timeline, home)
    values (c.epoch + 1, c.next_offset + n, cur, system, line, here);
  return c.epoch + 1;
end $$;

-- The channel of a topic: the longest prefix that is configured.
create function minium.journal_channel_of(of_topic text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select c.prefix from minium.journal_channel c
   where c.active and (c.prefix = '' or c.prefix = of_topic or starts_with(of_topic, c.prefix || '/'))
   order by length(c.prefix) desc limit 1
$$;

-- What belongs to a topic or prefix is kept from this offset on, as far as its channel says, and those between the two
-- that are not configured any more.
create function minium.journal_floor_of(of_topic text) returns bigint
language sql stable set search_path = pg_catalog, pg_temp as $$
  select max(c.first_offset) from minium.journal_channel c
   where (c.prefix = '' or c.prefix = of_topic or starts_with(of_topic, c.prefix || '/'))
     and length(c.prefix) >= length(minium.journal_channel_of(of_topic))
$$;

-- Everything that a filter matches is kept from this offset on: the greatest floor of the channels that it reaches.
-- `below` is its beginning without wildcards, null when there is none.
create function minium.journal_first(filter text, below text) returns bigint
language sql stable set search_path = pg_catalog, pg_temp as $$
  select greatest(minium.journal_floor_of(coalesce(below, '')), max(c.first_offset)) from minium.journal_channel c
   where (below is null or starts_with(c.prefix, below || '/'))
     and not exists (select from unnest(string_to_array(c.prefix, '/'), string_to_array(filter, '/')) as s (own, wanted)
                      where s.own <> s.wanted and s.wanted <> '+')
$$;

-- What the journal holds of what a filter matches.
create function minium.journal_bounds_of(filter text, below text,
                                         out epoch bigint, out first_offset bigint, out last_offset bigint)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select b.epoch, minium.journal_first(filter, below), b.last_offset from minium.journal_bounds() b
$$;

-- As in 0002, but for the floor, which is that of the filter.
drop function minium.journal_read(text, text, bigint, bigint, integer, bigint, integer);
create function minium.journal_read(filter text, below text, pattern text, after_offset bigint, to_offset bigint,
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
           s."offset", s.at, s.id, s.topic, s.type, s.subject, s.trace, s.late, s.data from (
      select o."offset", e.at, e.id, e.topic, e.type, e.subject, e.trace, e.late, e.data,
             sum(pg_column_size(e.data)) over (order by o."offset" rows between unbounded preceding and 1 preceding) as before
        from unnest(found) x
        join minium.entry_offset o on o."offset" = x
        join minium.entry e on e.at = o.at and e.xid = o.xid and e.seq = o.seq
    ) s where coalesce(s.before, 0) < bytes_max order by s."offset";
end $$;

-- As in 0002, but for the floor, which is that of the filter.
drop function minium.journal_before_last(text, text, integer, integer);
create function minium.journal_before_last(filter text, below text, pattern text, count_max integer, walk_max integer)
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
  select minium.journal_first(filter, below) as first_offset, b.last_offset into bounds from minium.journal_bounds() b;
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

-- Says which channels are configured. When they are not those that were, what is kept is counted anew. A new channel
-- begins with the floor of the one that its entries belonged to.
create function minium.journal_assign(prefixes text[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  floor bigint;
begin
  select f.first_offset into floor from minium.journal_floor f for update;
  if prefixes is not distinct from
     array(select c.prefix from minium.journal_channel c where c.active and c.prefix <> '' order by c.prefix) then
    return;
  end if;
  insert into minium.journal_channel (prefix, first_offset)
    select p, minium.journal_floor_of(p) from unnest(prefixes) p
  on conflict (prefix) do update set first_offset = excluded.first_offset;
  update minium.journal_channel c set active = c.prefix = '' or c.prefix = any (prefixes)
    where c.active <> (c.prefix = '' or c.prefix = any (prefixes));
  delete from minium.journal_span;
  update minium.journal_floor set counted_to = floor - 1;
end $$;

-- Counts the next entries for their channels: grows each channel's newest span, or begins a new one when that is wide
-- enough. Answers how many offsets were looked at.
create function minium.journal_count(batch_max integer) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  wide constant bigint := 5000;
  low  bigint;
  high bigint;
begin
  select f.counted_to into low from minium.journal_floor f for update skip locked;
  if not found then
    return 0;                                  -- another node is at it
  end if;
  high := least(low + batch_max,
                (select c.next_offset - 1 from minium.journal_cursor c order by c.epoch desc, c.next_offset desc limit 1));
  if high <= low then
    return 0;
  end if;
  with topics as materialized (                -- few, where many entries have one
    select o.topic, min(o."offset") as first_offset, max(o."offset") as last_offset, count(*) as count, sum(o.size) as bytes
      from minium.entry_offset o where o."offset" > low and o."offset" <= high
     group by o.topic
  ), fresh as materialized (
    select t.prefix, min(t.first_offset) as first_offset, max(t.last_offset) as last_offset,
           sum(t.count) as count, sum(t.bytes) as bytes
      from (select t.*, (select c.prefix from minium.journal_channel c       -- as journal_channel_of, without a call
                          where c.active and (c.prefix = '' or c.prefix = t.topic or starts_with(t.topic, c.prefix || '/'))
                          order by length(c.prefix) desc limit 1) as prefix
              from topics t) t
     group by t.prefix
  ), grown as (
    update minium.journal_span s
       set last_offset = f.last_offset, count = s.count + f.count, bytes = s.bytes + f.bytes
      from fresh f
     where s.prefix = f.prefix and f.last_offset - s.first_offset < wide
       and s.first_offset = (select max(x.first_offset) from minium.journal_span x where x.prefix = f.prefix)
    returning s.prefix
  )
  insert into minium.journal_span (prefix, first_offset, last_offset, count, bytes)
    select f.prefix, f.first_offset, f.last_offset, f.count, f.bytes from fresh f
     where f.prefix not in (select g.prefix from grown g);
  update minium.journal_floor set counted_to = high;
  return high - low;
end $$;

-- Lets go of the oldest entries of a channel, within its oldest span and at most `batch_max`: those older than `before`,
-- and those beyond `count_max` and `bytes_max`; but none that is younger than `young` or behind `to_offset`. `more`: the
-- span was used up, or the batch, and there may be more to let go of.
drop function minium.journal_trim(timestamptz, bigint, integer);
create function minium.journal_trim(channel text, before timestamptz, count_max bigint, bytes_max bigint,
                                    young timestamptz, to_offset bigint, batch_max integer,
                                    out gone integer, out more boolean)
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
  span    minium.journal_span;
  nested  text[];                              -- channels below this one have what is theirs
  total   numeric;
  weight  numeric;
  victims bigint[];
  lost    bigint;                              -- bytes of the victims
  stays   boolean;                             -- an entry of the span that was looked at stays
  newest  timestamptz;
begin
  gone := 0; more := false;
  perform from minium.journal_floor f for update skip locked;
  if not found then
    return;                                    -- one at a time; whoever comes second finds it done
  end if;
  select * into span from minium.journal_span s where s.prefix = channel order by s.first_offset limit 1;
  if not found then
    return;
  end if;
  nested := array(select c.prefix from minium.journal_channel c
                   where c.active and c.prefix <> channel and (channel = '' or starts_with(c.prefix, channel || '/')));
  select sum(s.count), sum(s.bytes) into total, weight from minium.journal_span s where s.prefix = channel;
  with own as (
    select o."offset", o.at, o.size, row_number() over ahead as place,
           coalesce(sum(o.size) over (ahead rows between unbounded preceding and 1 preceding), 0) as lighter
      from (select o.* from minium.entry_offset o
             where o."offset" >= span.first_offset and o."offset" <= span.last_offset
               and (channel = '' or o.topic = channel or starts_with(o.topic, channel || '/'))
               and not exists (select from unnest(nested) n where o.topic = n or starts_with(o.topic, n || '/'))
             order by o."offset" limit batch_max) o
    window ahead as (order by o."offset")
  ), judged as (
    select w.*, bool_and((w.at < before or total - w.place >= count_max or weight - w.lighter > bytes_max)
                         and w.at < young and w."offset" <= to_offset) over (order by w."offset") as goes
      from own w
  )
  select array_agg(j."offset" order by j."offset") filter (where j.goes), sum(j.size) filter (where j.goes),
         max(j.at) filter (where j.goes), coalesce(bool_or(not j.goes), false)
    into victims, lost, newest, stays from judged j;
  gone := coalesce(cardinality(victims), 0);
  more := not stays;
  if more and gone < batch_max then
    delete from minium.journal_span s where s.prefix = channel and s.first_offset = span.first_offset;
  elsif gone > 0 then
    update minium.journal_span s
       set first_offset = victims[gone] + 1, count = s.count - gone, bytes = s.bytes - lost
     where s.prefix = channel and s.first_offset = span.first_offset;
  end if;
  if gone = 0 then
    return;
  end if;
  -- the numbers of messages whose ids are remembered outlive them
  if newest > clock_timestamp() - interval '5 minutes' then
    update minium.message_id m set "offset" = o."offset"
      from minium.entry_offset o where o."offset" = any (victims) and m.seq = o.seq;
  end if;
  delete from minium.entry e using minium.entry_offset o
    where o."offset" = any (victims) and e.at = o.at and e.xid = o.xid and e.seq = o.seq;
  delete from minium.entry_offset o where o."offset" = any (victims);
  update minium.journal_channel c set first_offset = greatest(c.first_offset, victims[gone] + 1) where c.prefix = channel;
end $$;

-- Moves the journal's floor to the oldest entry that is kept, and forgets what nobody needs any more: cursors, and
-- channels that are not configured and say nothing that the one above them does not say.
create function minium.journal_sweep() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
begin
  perform from minium.journal_floor f for update skip locked;
  if not found then
    return;
  end if;
  update minium.journal_floor f set first_offset = n.first_offset
    from (select least((select min(s.first_offset) from minium.journal_span s), f.counted_to + 1) as first_offset
            from minium.journal_floor f) n
   where n.first_offset > f.first_offset;
  delete from minium.journal_channel c
    where not c.active
      and c.first_offset <= (select a.first_offset from minium.journal_channel a
                              where a.prefix = minium.journal_channel_of(c.prefix));
  delete from minium.journal_cursor c
    where (c.epoch, c.next_offset) < (select x.epoch, x.next_offset from minium.journal_cursor x
                                       order by x.epoch desc, x.next_offset desc limit 1);
end $$;
