-- Workers say how they fare, and are told what to do.

alter table worker add column kind text not null default 'minium';
alter table worker add column version text not null default '';
alter table worker add column running integer not null default 0;   -- also in status; here for counting
alter table worker add column status text not null default '{}';    -- JSON object

-- What workers are told and have not taken yet. It is nearly always empty.
create table command (
  id     integer primary key autoincrement,
  worker integer not null,
  sent   integer not null,
  name   text not null,
  args   text not null                            -- JSON array
);
create index command_worker on command (worker, id);

-- Counts what workers must hear of at once, so that a process that shares the file can tell it from any other commit.
insert into tally (name, n) values ('control', 0);
