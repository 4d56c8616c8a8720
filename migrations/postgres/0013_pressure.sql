-- Which nodes cannot follow the journal; who claims jobs looks here now and then. A row is written each second while its node
-- is behind, and never else; one that was not written lately counts for nothing. What is lost with a crash is said again, so
-- nothing of it goes to the log.
create unlogged table minium.pressure (
  node   uuid primary key,
  at     timestamptz not null,
  rising boolean not null                        -- beyond the bound; else on its way back
) with (fillfactor = 10);
