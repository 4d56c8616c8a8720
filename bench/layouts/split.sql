-- The row of a job in two: what changes while it lives, and what is written once at its enqueue. Beside the real schema, for
-- narrow.sh. Every column of minium.job is in one of the two, every index on the table that has its columns. What claims look for
-- or choose by (queue, task, priority, seq, expires) has to stand in the narrow one.
create schema split;

create table split.job (
  id          bigint primary key default nextval('minium.job_id'),
  seq         bigint not null default nextval('minium.ready_seq'),
  delayed     timestamptz not null default now(),
  later_at    timestamptz,
  expires     timestamptz,
  retried     timestamptz,
  priority    int not null default 0,
  attempts    int not null default 1,
  retries     int not null default 0,
  left_n      int not null default 0,
  lax         boolean not null default false,
  queue       text collate "C" not null default 'default',
  task        text collate "C" not null,
  limited     text collate "C",
  part        text collate "C",
  notes       jsonb,                              -- null as long as they are those of the enqueue
  started     timestamptz,                        -- from here on as in ordered.sql
  lease_until timestamptz,
  lease       uuid,
  attempt     int not null default 0,
  worker      json,
  ready       boolean not null default true,
  state       minium.state not null default 'inactive',
  finished    timestamptz,
  result      json,
  error       text,
  progress    json
) with (fillfactor = :fillfactor);

create index job_ready on split.job (queue, priority, seq) where ready and limited is null;
create index job_ready_task on split.job (task, queue, priority, seq) where ready and coalesce(limited, '') = '';
create index job_ready_limited on split.job (limited, queue, part, priority desc, seq) where ready and limited is not null;
create index job_later on split.job (later_at) where later_at is not null;
create index job_expires on split.job (expires) where expires is not null and started is null;
create index job_lease on split.job (lease_until) where lease_until is not null;

create table split.fixed (
  id         bigint primary key,
  created    timestamptz not null default now(),
  origin     bigint,
  timeout_us bigint,
  backoff_us bigint,
  key        text,
  schedule   text,
  trace      text,
  parents    bigint[] not null default '{}',      -- a retry may name others: then this row is written anew
  notes      jsonb not null default '{}',
  args       json not null,
  args_shown json,
  unique_us  bigint,
  on_failure boolean
);
create index fixed_origin on split.fixed (origin, id) where origin is not null;

-- as the real table has it, where the server can
do $$ begin
  execute (select string_agg(format('alter table split.%I alter %I set compression lz4', c.relname, a.attname), ';')
             from pg_attribute a join pg_class c on c.oid = a.attrelid
             join pg_attribute o on o.attrelid = 'minium.job'::regclass and o.attname = a.attname
            where c.oid in ('split.job'::regclass, 'split.fixed'::regclass) and o.attcompression = 'l');
end $$;

-- The real snapshot, of two rows.
do $$ begin
  execute format('create function split.snapshot(j split.job, x split.fixed) returns json language sql stable parallel safe as %L',
    regexp_replace(replace(replace(p.prosrc, 'j.notes', 'coalesce(j.notes, x.notes)'), ', args,', ', coalesce(x.args_shown, x.args),'),
                   '\mj\.(parents|key|schedule|origin|created)\M', 'x.\1', 'g'))
     from pg_proc p where p.oid = 'minium.snapshot_with(minium.job, json)'::regprocedure;
end $$;

-- Nothing of the real row may be missing, or the comparison means nothing.
do $$ begin
  if (select array_agg(attname order by attname) from pg_attribute where attrelid = 'minium.job'::regclass and attnum > 0)
     is distinct from
     (select array_agg(distinct attname order by attname) from pg_attribute
       where attrelid in ('split.job'::regclass, 'split.fixed'::regclass) and attnum > 0) then
    raise exception 'the two tables have other columns than minium.job';
  end if;
end $$;
