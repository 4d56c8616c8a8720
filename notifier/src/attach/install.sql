-- What `minium attach minion` puts into Minion's database, besides our own schema: functions in schema minium, and four
-- triggers on Minion's table of jobs. Run in one transaction behind remove.sql, since replacing a trigger would leave one
-- that was switched off as it is. What stands in braces is filled in.
--
-- Each trigger runs once for a statement and writes one entry for each job that it changed, in the order of their ids,
-- while the rows are locked: so the entries of one job are in the order of its transitions. Statements that change
-- nothing (each poll of an idle worker) end at the first question.
--
-- Whatever fails in here fails Minion's statement with it: a transition without its event there must not be. So there is
-- nothing in here that can fail by itself: no constraint, no cast that may not fit, no lock but that of an insert into the
-- journal. Minion's role needs no rights: the functions run as whoever installed them, with a search path of their own.
-- No function names a type of Minion's in its signature, or its tables could not be dropped any more.
--
-- Statements have no parameters, so that each session plans them once. Nested loops are off, since the plan of the
-- first statement, of one row, is also that of one which changes a hundred thousand.

-- The part of the topic that stands for a task whose name does not fit into one: each byte that no segment may have, and
-- `~` itself, becomes `~` and two digits (base 16); so do slashes where they would leave a segment empty or
-- make too many. What is then too long is cut, and marked by `~~` and the name's MD5.
create function minium.minion_escaped(task text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  said text;
begin
  select coalesce(string_agg(
           case when t.c collate "C" ~ '[A-Za-z0-9_.:@/-]' then t.c
                else regexp_replace(upper(encode(convert_to(t.c, 'UTF8'), 'hex')), '(..)', '~\1', 'g') end,
           '' order by t.place), '~')
    into said
    from string_to_table(task, null) with ordinality as t (c, place);
  if cardinality(string_to_array(said, '/')) > 14
     or exists (select from unnest(string_to_array(said, '/')) as s (segment) where s.segment in ('', '.', '..')) then
    said := replace(said, '/', '~2F');
  end if;
  if said in ('.', '..') then
    said := replace(said, '.', '~2E');
  end if;
  if length(said) > 230
     or exists (select from unnest(string_to_array(said, '/')) as s (segment) where length(s.segment) > 128) then
    said := regexp_replace(left(replace(said, '/', '~2F'), 90), '~.?$', '') || '~~' || md5(task);
  end if;
  return said;
end $$;

-- The topic of a job. Nearly all names are topics as they are. Inlined into its callers, which it would not be if it were
-- called immutable: a number's text is not.
create function minium.minion_topic(task text, id bigint) returns text
language sql stable parallel safe as $$
  select 'task/' || case when task collate "C" ~ '^[A-Za-z0-9_:@-][A-Za-z0-9_.:@-]{0,127}$' then task
                         else minium.minion_escaped(task) end || '/' || id
$$;

-- A time that anybody may have chosen, within what RFC 3339 can say. Inlined into its callers.
create function minium.minion_time(moment timestamptz) returns text
language sql stable parallel safe as $$
  select case when moment is not null
              then minium.time_text(least(greatest(moment, '0001-01-01 00:00Z'), '9999-12-30 00:00Z')) end
$$;

create function minium.minion_inserted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_nestloop = off as $$
begin
  insert into minium.entry (topic, type, subject, source, data)
  select minium.minion_topic(r.task, r.id),
         -- one that is put there by hand may be anywhere in its life
         case r.state when 'inactive' then 'task.enqueue' else 'task.changed' end,
         r.id::text, {source}, row_to_json(s)
    from jobs_new r, {snapshot}
   order by r.id;
  if found then
    perform minium.wake_up(false);
  end if;
  return null;
end $$;

create function minium.minion_updated() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_nestloop = off as $$
begin
  if not exists (select from jobs_new) then
    return null;
  end if;
  insert into minium.entry (topic, type, subject, source, data)
  select minium.minion_topic(r.task, r.id), r.type, r.id::text, {source}, row_to_json(s)
    from (select n.*,
                 case when n.retries > o.retries and n.state = 'inactive' then 'task.retry'
                      when n.state <> o.state then
                        case n.state when 'inactive' then 'task.retry'
                                     when 'active' then 'task.dequeue'
                                     when 'finished' then 'task.finished'
                                     when 'failed' then
                                       -- by Minion's repair, of a worker that it has forgotten
                                       case when o.state = 'active' and n.result = '"Worker went away"'
                                                 and not exists (select from {workers} w where w.id = n.worker)
                                            then 'task.lost' else 'task.failed' end
                                     else 'task.changed' end
                      when (n.task, n.args, n.queue, n.priority, n.attempts, n.retries, n.parents, n.lax, n.worker,
                            n.result, n.created, n.delayed, n.expires, n.started, n.finished, n.retried)
                           is distinct from
                           (o.task, o.args, o.queue, o.priority, o.attempts, o.retries, o.parents, o.lax, o.worker,
                            o.result, o.created, o.delayed, o.expires, o.started, o.finished, o.retried)
                        then 'task.changed'
                      when n.notes <> o.notes then 'task.progress' end as type
            from jobs_new n join jobs_old o on o.id = n.id) r,
         {snapshot}
   where r.type is not null
   order by r.id;
  if found then
    perform minium.wake_up(false);
  end if;
  return null;
end $$;

create function minium.minion_deleted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_nestloop = off as $$
begin
  if not exists (select from jobs_old) then
    return null;
  end if;
  insert into minium.entry (topic, type, subject, source, data)
  select minium.minion_topic(r.task, r.id),
         case when r.state = 'inactive' and r.expires <= now() then 'task.expired' else 'task.removed' end,
         r.id::text, {source}, row_to_json(s)
    from jobs_old r, {snapshot}
   order by r.id;
  perform minium.wake_up(false);
  return null;
end $$;

-- Minion's reset. Runs before it, while the rows can still be read.
create function minium.minion_truncated() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_nestloop = off as $$
begin
  insert into minium.entry (topic, type, subject, source, data)
  select minium.minion_topic(r.task, r.id), 'task.removed', r.id::text, {source}, row_to_json(s)
    from {jobs} r, {snapshot}
   order by r.id;
  if found then
    perform minium.wake_up(false);
  end if;
  return null;
end $$;

-- Who may not call them may not make triggers of them either, and write what never happened into the journal.
revoke execute on function minium.minion_escaped(text), minium.minion_topic(text, bigint),
                           minium.minion_time(timestamptz), minium.minion_inserted(), minium.minion_updated(),
                           minium.minion_deleted(), minium.minion_truncated() from public;

create trigger minium_inserted after insert on {jobs}
  referencing new table as jobs_new for each statement execute function minium.minion_inserted();
create trigger minium_updated after update on {jobs}
  referencing old table as jobs_old new table as jobs_new for each statement execute function minium.minion_updated();
create trigger minium_deleted after delete on {jobs}
  referencing old table as jobs_old for each statement execute function minium.minion_deleted();
create trigger minium_truncated before truncate on {jobs}
  for each statement execute function minium.minion_truncated();
