-- What jobs say while they run; gone with the job. Of each the newest lines are kept, within a bound.
create table log_line (
  job     integer not null,
  n       integer not null,      -- its number within the job, from 1
  start   integer not null,      -- so many bytes of text the job's lines before it had, also those that are gone
  at      integer not null,
  attempt integer not null,
  level   text not null check (level in ('step', 'debug', 'info', 'warn', 'error')),
  text    text not null,
  primary key (job, n)
) without rowid;
