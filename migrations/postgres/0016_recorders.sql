-- Who archives the journal, and how far each has it safely: retention waits for them, up to a limit (`[recorders]`). A row is
-- written once a second at most for each recorder, and read by retention's rounds.
create table minium.recorder (
  name       text collate "C" primary key,
  owner      text not null,                      -- the key and subject of its token: nobody else confirms in its name
  topics     text[] not null,                    -- filters, as it subscribes to them
  "offset"   bigint not null,                    -- everything up to here that they match is on its disk
  registered timestamptz not null default clock_timestamp(),
  confirmed  timestamptz not null default clock_timestamp()
) with (fillfactor = 50);

-- A recorder says how far it is, and is registered by that. It may go back: an archive that was lost begins anew. Answers
-- `new` or `known`; or, and then nothing has changed, `epoch` (the numbers are those of another epoch), `ahead` (nothing has
-- that number yet), `foreign` (the name is somebody else's), `many` (there are `count_max` already, or `own_max` by this owner).
-- Locks its own row; who is new waits for other new ones, since they are counted.
create function minium.recorder_confirm(of_name text, of_owner text, of_anyone boolean, followed text[],
                                        of_epoch bigint, to_offset bigint, count_max bigint, own_max bigint) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  bounds record;
begin
  select b.epoch, b.last_offset into bounds from minium.journal_bounds() b;
  if of_epoch <> bounds.epoch then
    return 'epoch';
  elsif to_offset > bounds.last_offset then
    return 'ahead';
  end if;
  for i in 1 .. 2 loop
    update minium.recorder r set topics = followed, "offset" = to_offset, confirmed = clock_timestamp()
      where r.name = of_name and (of_anyone or r.owner = of_owner);
    if found then
      return 'known';
    elsif exists (select from minium.recorder r where r.name = of_name) then
      return 'foreign';
    end if;
    perform pg_advisory_xact_lock(8243104023283262834);   -- 'recorder' in ASCII
    continue when exists (select from minium.recorder r where r.name = of_name);
    exit;
  end loop;
  if (select count(*) from minium.recorder) >= count_max
     or of_owner <> '' and (select count(*) from minium.recorder r where r.owner = of_owner) >= own_max then
    return 'many';
  end if;
  insert into minium.recorder (name, owner, topics, "offset") values (of_name, of_owner, followed, to_offset);
  return 'new';
end $$;

-- Only the owner calls these; roles are given what they need, above all EXECUTE on minium.enqueue.
revoke execute on function minium.recorder_confirm(text, text, boolean, text[], bigint, bigint, bigint, bigint) from public;
