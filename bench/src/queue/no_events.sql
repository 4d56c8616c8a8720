-- Makes a database of the bench forget events, and nothing else: the product's own statements run unchanged, but what they
-- write to the journal is rewritten to an insert of no rows, which the planner sees, and the snapshot that nobody reads is
-- null. There is no such mode in the product; this tells what the events cost.
alter table minium.entry rename to entry_kept;
create view minium.entry as select * from minium.entry_kept;
create table minium.nothing (nothing boolean);
create rule forgotten as on insert to minium.entry do instead
  insert into minium.nothing select true where false;

do $$
declare
  made record;
begin
  for made in select p.proname as name, pg_get_function_arguments(p.oid) as arguments
                from pg_proc p
               where p.pronamespace = 'minium'::regnamespace and p.prorettype = 'json'::regtype
                 and p.proname like 'snapshot%' loop
    execute format('create or replace function minium.%I(%s) returns json language sql stable parallel safe
                    as ''select null::json''', made.name, made.arguments);
  end loop;
end $$;
