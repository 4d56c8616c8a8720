-- What narrow.sh measures with, in the scratch database. Unlogged, so that measuring writes no log of its own.
create schema bench;

-- Arguments of :bytes bytes that nothing compresses.
create function bench.args(place int, bytes int) returns text language sql immutable as $$
  select '["' || left(string_agg(translate(encode(sha512((place || '.' || n)::bytea), 'base64'), E'\n', ''), ''), bytes - 4) || '"]'
    from generate_series(0, bytes / 80) n
$$;
create unlogged table bench.request (args text);

-- What each call of a statement took. Its log is told by the position of the whole server's, so only one worker at a time can say.
create unlogged table bench.call (phase text, us float8, wal bigint);

-- What stands in the log between two positions; images of whole pages (the first change behind a checkpoint) apart. A record is
-- told by the first block that it is about.
create extension pg_walinspect;
create function bench.log_by_kind(first pg_lsn, last pg_lsn) returns table (kind int, what text, bytes bigint) language sql as $$
  with r as (
    select r.*, coalesce(c.relname, '') as name, n.nspname = 'minium' and relname !~ '^job' as other, c.relkind
      from pg_get_wal_records_info(first, last) r
      left join (pg_class c join pg_namespace n on n.oid = c.relnamespace)
        on pg_relation_filenode(c.oid) = substring(r.block_ref from 'rel \d+/\d+/(\d+)')::oid),
  k as (
    select record_length, fpi_length,
           case when relkind = 'r' and not other and record_type ~ '^INSERT' then 1
                when relkind = 'r' and not other and record_type ~ '^UPDATE' then 2
                when relkind = 'r' and not other and record_type ~ '^HOT_UPDATE' then 3
                when relkind = 'r' and not other then 4
                when relkind = 'i' and not other then 5
                when name ~ '^entry_offset' then 7
                when name ~ '^entry' then 6
                else 8 end as kind
      from r)
  select kind, (array['jobs: insert', 'jobs: update', 'jobs: HOT update', 'jobs: lock, prune', 'jobs: indexes', 'events', 'their numbers',
                      'all else'])[kind], sum(record_length - fpi_length)::bigint from k group by kind
  union all
  select 9, 'images of pages', sum(fpi_length)::bigint from k
$$;
