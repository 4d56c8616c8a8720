-- The row of a job as it is, but in another order: first what is written once, then side by side what a claim and a finish
-- change, then the arguments. Of a new version on the same page PostgreSQL logs what stands between the first and the last byte
-- that differ.
create schema ordered;

do $$
declare
  moved text[] := '{started,lease_until,lease,attempt,worker,ready,state,finished,result,error,progress,args,args_shown}';
  made  text;
begin
  execute (
    select format('create table ordered.job (%s) with (fillfactor = 31)',
                  string_agg(format('%I %s %s %s %s', a.attname, format_type(a.atttypid, null),
                                    case when a.atttypid = 'text'::regtype and a.attcollation <> 'default'::regcollation
                                         then 'collate "C"' end,
                                    'default ' || pg_get_expr(d.adbin, d.adrelid), case when a.attnotnull then 'not null' end), ', '
                             order by coalesce(array_position(moved, a.attname::text), 0), a.attnum))
      from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where a.attrelid = 'minium.job'::regclass and a.attnum > 0);
  for made in
    select replace(indexdef, 'minium.job ', 'ordered.job ') from pg_indexes where schemaname = 'minium' and tablename = 'job'
    union all
    select format('alter table ordered.job alter %I set compression lz4', attname)
      from pg_attribute where attrelid = 'minium.job'::regclass and attcompression = 'l'
  loop
    execute made;
  end loop;
  execute format('create function ordered.snapshot(j ordered.job) returns json language sql stable parallel safe as %L',
                 replace(p.prosrc, ', args,', ', coalesce(j.args_shown, j.args),'))
     from pg_proc p where p.oid = 'minium.snapshot_with(minium.job, json)'::regprocedure;
end $$;
