-- Which nodes cannot follow the journal; who claims jobs looks here now and then. A row is written each second while its node
-- is behind, and never else; one that was not written lately counts for nothing. Times are microseconds since 1970.
create table pressure (
  node   text primary key,
  at     integer not null,
  rising integer not null                        -- beyond the bound; else on its way back
) without rowid;
