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
