-- Named locks, and schedules whose definitions live in the database.

-- Who holds which lock until when, one row a hold. Logged, so that a crash lets nothing go. Whoever takes, extends or ends
-- holds of a name does so under that name's advisory lock, one after the other; no lock on the table is needed.
create table minium.lock (
  id      bigint generated always as identity primary key,
  token   uuid not null unique,
  name    text collate "C" not null,
  owner   text not null,
  limit_n integer not null,
  taken   timestamptz not null,
  until   timestamptz not null
);
create index lock_name on minium.lock (name, id);
create index lock_until on minium.lock (until);

-- Takes a lock, unless as many as `holds_max` hold it. Holds that have ended are deleted rather than passed over: whoever comes
-- late to extend one finds it gone, whatever the clock does. The clock is read, and the holds are looked at, once it is this
-- call's turn; a statement that did all of this at once would judge by what it saw before it waited.
-- Index: lock_name. Locks: the advisory lock of the name, to the end of the transaction.
create function minium.take_lock(of_name text, of_token uuid, of_owner text, span_us bigint, holds_max integer)
returns timestamptz language plpgsql as $$
declare
  at timestamptz;
begin
  perform pg_advisory_xact_lock(1819239275, hashtext(of_name));
  at := clock_timestamp();
  delete from minium.lock l where l.name = of_name and l.until <= at;
  if (select count(*) from (select from minium.lock l where l.name = of_name limit holds_max) held) >= holds_max then
    return null;
  end if;
  insert into minium.lock (token, name, owner, limit_n, taken, until)
    values (of_token, of_name, of_owner, holds_max, at, at + span_us * interval '1 microsecond');
  return at + span_us * interval '1 microsecond';
end $$;

-- Extends a hold that has not ended; null when it has. In turn with those who take the lock: one that was about to judge the
-- hold by its old end must not miss the new one.
-- Index: lock_token_key. Locks: as above, and the row.
create function minium.extend_lock(of_name text, of_token uuid, span_us bigint)
returns timestamptz language plpgsql as $$
declare
  at timestamptz;
  extended timestamptz;
begin
  perform pg_advisory_xact_lock(1819239275, hashtext(of_name));
  at := clock_timestamp();
  update minium.lock l set until = at + span_us * interval '1 microsecond'
   where l.token = of_token and l.name = of_name and l.until > at
  returning l.until into extended;
  return extended;
end $$;

-- Ends at most `count_max` holds of a lock, whoever has them, and answers how many of these had not ended yet, and how many
-- there were in all.
-- Index: lock_name. Locks: as above, and the rows.
create function minium.end_locks(of_name text, count_max integer, out living bigint, out ended bigint) language plpgsql as $$
begin
  perform pg_advisory_xact_lock(1819239275, hashtext(of_name));
  with gone as (
    delete from minium.lock l
     where l.id = any (array(select o.id from minium.lock o where o.name = of_name order by o.id limit count_max))
    returning l.until)
  select count(*) filter (where until > clock_timestamp()), count(*) into living, ended from gone;
end $$;

revoke execute on function minium.take_lock(text, uuid, text, bigint, integer), minium.extend_lock(text, uuid, bigint),
                           minium.end_locks(text, integer) from public;

-- What a schedule enqueues, and when. Rows of before this migration hold a time alone; so do those that a program of before
-- makes meanwhile. They fire nothing until the configuration puts their definitions, and keep their step then.
alter table minium.schedule
  -- the enqueue's request, as JSON; text, since nobody here looks into it
  add column request    text,
  -- one of the two
  add column every_us   bigint,
  add column cron       text,
  add column zone       text not null default 'UTC',
  -- fold, or all
  add column missed     text not null default 'fold',
  add column paused     boolean not null default false,
  -- it comes from the configuration of the nodes
  add column configured boolean not null default false,
  -- when it fired last, and the job of that firing
  add column fired      timestamptz,
  add column job        bigint;
create index schedule_due on minium.schedule (due) where request is not null and not paused;
