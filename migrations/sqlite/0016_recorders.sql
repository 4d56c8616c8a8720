-- Who archives the journal, and how far each has it safely: retention waits for them, up to a limit (`[recorders]`). `topics` is a
-- JSON array. Times are microseconds since 1970.
create table recorder (
  name       text primary key,
  owner      text not null,                      -- the key and subject of its token: nobody else confirms in its name
  topics     text not null,                      -- filters, as it subscribes to them
  "offset"   integer not null,                   -- everything up to here that they match is on its disk
  registered integer not null,
  confirmed  integer not null
) without rowid;
