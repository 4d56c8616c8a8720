-- What a job may demand of the queue besides its turn: a key that is unique while it waits or for a time, to run only when
-- a parent has failed, to be one of few that run at once.

alter table job add column unique_us integer;     -- how its key is held: null while it lives, 0 while it waits, else so long
alter table job add column on_failure integer;    -- 1: runs when a parent has failed, and is called off when none can
alter table job add column limited text;          -- the limit that it runs under
alter table job add column part text;             -- which of those that the limit counts apart

-- A key that is let go at the claim, or held for a time whatever becomes of its job.
alter table job_key add column waiting integer not null default 0;
alter table job_key add column until integer;
create index job_key_until on job_key (until) where until is not null;

-- Limits by task. `tokens` are the starts that may be made, as of `filled`; `turn` is the part that was served last.
create table limit_rule (
  task     text primary key,
  running  integer,
  per_part integer,
  rate_n   integer,
  rate_us  integer,
  tokens   real not null default 0,
  filled   integer not null,
  turn     text
) without rowid;

-- Jobs that run under a limit: what is counted.
create table running (
  job     integer primary key,
  limited text not null,
  part    text not null
);
create index running_limited on running (limited, part);

-- Jobs that no limit holds back are looked for as ever; the others by limit, and never stand in their way.
drop index job_ready;
drop index job_ready_task;
create index job_ready on job (queue, priority desc, seq, task) where ready and limited is null;
create index job_ready_task on job (task, queue, priority desc, seq) where ready and limited is null;
create index job_ready_limited on job (limited, queue, part, priority desc, seq) where ready and limited is not null;

-- Jobs by the job that enqueued them.
create index job_origin on job (origin, id) where origin is not null;

-- Ended jobs, by how they ended, where they waited, and when: what retention looks at.
drop index job_finished;
create index job_ended on job (state, queue, finished) where finished is not null;
-- Those that failed for good, newest first for a list.
create index job_failed on job (id) where state = 'failed';

-- Why each run failed that did; gone with the job.
create table failure (
  job       integer not null,
  attempt   integer not null,
  at        integer not null,
  worker    text,
  error     text not null,
  backtrace text,
  primary key (job, attempt)
) without rowid;
insert into failure (job, attempt, at, worker, error)
  select id, attempt, coalesce(finished, created), worker, coalesce(error, '') from job where state = 'failed';

-- How many jobs ended in each hour; hours are microseconds since 1970.
create table hour (
  hour      integer primary key,
  finished  integer not null default 0,
  failed    integer not null default 0,
  cancelled integer not null default 0
);

-- Queues from which nothing is claimed.
create table paused_queue (
  queue  text primary key,
  paused integer not null
) without rowid;
