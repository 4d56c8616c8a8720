-- Three roles with no more than they need, for PostgreSQL. `minium doctor --role worker` (enqueuer, reader) checks whoever
-- connects against this very file, grant by grant, and names what is missing.
--
--   psql -f roles.sql "$DATABASE"                       as the owner of the schema minium, or a superuser; again after each
--                                                       upgrade that has migrated
--   create role render login; grant minium_worker to render;
--
-- Nodes are no such role: they make partitions, and migrate, so they log in as the owner of the schema, which needs to be
-- nothing more than that (docs/security.md#roles-in-postgresql).

do $$
declare wanted text;
begin
  foreach wanted in array array['minium_worker', 'minium_enqueuer', 'minium_reader'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = wanted) then
      execute format('create role %I nologin', wanted);
    end if;
  end loop;
end $$;

-- A worker over the database: it claims, extends, ends and writes logs, and looks after the queue while no node does. It adds
-- to the journal, and neither reads, changes nor deletes in it; it changes neither the schema nor limits, masks and paused
-- queues.
grant usage on schema minium to minium_worker;
grant select on minium.migration, minium.mask, minium.limit_rule, minium.paused_queue, minium.pressure to minium_worker;
grant update (tokens, filled, turn) on minium.limit_rule to minium_worker;
grant select, update on minium.server, minium.wake to minium_worker;
grant select, insert, update, delete on minium.job, minium.edge, minium.job_key, minium.renewal, minium.running,
  minium.lane, minium.tally, minium.hour, minium.failure, minium.unsettled, minium.log_line, minium.lock, minium.command,
  minium.worker to minium_worker;
grant insert on minium.entry to minium_worker;
grant usage on sequence minium.job_id, minium.ready_seq to minium_worker;
grant execute on all functions in schema minium to minium_worker;

-- An application that enqueues, by minium.enqueue() or by COPY into minium.bulk. Both run as the owner.
grant usage on schema minium to minium_enqueuer;
grant execute on function minium.enqueue(text, jsonb, jsonb) to minium_enqueuer;
grant insert on minium.bulk to minium_enqueuer;

-- Whoever reports: whole jobs, with masked arguments, and the journal.
grant usage on schema minium to minium_reader;
grant select on minium.jobs, minium.journal to minium_reader;
