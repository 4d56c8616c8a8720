-- The queue on SQLite. Times are whole microseconds since 1970, JSON is text that nothing here looks into.
-- The columns that a claim or finish rewrites stand first; what may be long stands last, so that no read has to walk it.

create table job (
  id         integer primary key autoincrement,   -- never given twice: an id is also a topic
  seq        integer not null,                    -- drawn anew each time the job becomes ready: the claim order
  ready      integer not null,                    -- inactive, due, no open edge: what claims look at
  open_edges integer not null default 0,          -- parents that hold it back, whatever its own state
  later      integer,                             -- until when it is not staged; null once it is
  state      text not null check (state in ('inactive', 'active', 'finished', 'failed', 'cancelled')),
  priority   integer not null,
  attempt    integer not null default 0,
  attempts   integer not null,
  retries    integer not null default 0,
  lax        integer not null,
  origin     integer,
  created    integer not null,
  delayed    integer not null,
  expires    integer,
  started    integer,
  finished   integer,
  retried    integer,
  timeout    integer,
  backoff    integer,
  lease      text,                                -- stays after finish, fail and cancel: it knows a repeated word
  queue      text not null,
  task       text not null,
  key        text,
  schedule   text,
  worker     text,                                -- JSON object
  trace      text,
  parents    text not null,                       -- JSON array
  progress   text,                                -- JSON object
  error      text,
  notes      text not null,                       -- JSON object
  result     text,                                -- JSON
  args       text not null                        -- JSON
);
-- a claim reads this alone until it has found its jobs
create index job_ready on job (queue, priority desc, seq, task) where ready;
create index job_later on job (later) where later is not null;
create index job_blocked on job (id) where state = 'inactive' and open_edges > 0;
create index job_expires on job (expires) where state = 'inactive' and attempt = 0 and expires is not null;
create index job_finished on job (finished) where state = 'finished';

-- Who waits for whom. Parents that did not exist at the enqueue have no edge; a deleted parent takes its edges along.
create table edge (
  parent integer not null,
  child  integer not null,
  primary key (parent, child)
) without rowid;
create index edge_child on edge (child);

-- Keys of living jobs.
create table job_key (
  task text not null,
  key  text not null,
  job  integer not null,
  primary key (task, key)
) without rowid;

-- Leases that hold. A table of its own: a renewal is no event, and must not rewrite a wide job.
create table renewal (
  job   integer primary key,
  until integer not null
);

create table worker (
  id        integer primary key autoincrement,
  host      text not null,
  pid       integer not null,
  started   integer not null,
  heartbeat integer not null
);

create table schedule (
  name text primary key,
  due  integer not null
) without rowid;

-- Jobs by state, and the last number that was drawn: counting would read the whole table.
create table tally (
  name text primary key,
  n    integer not null
) without rowid;
insert into tally (name, n)
  values ('inactive', 0), ('active', 0), ('finished', 0), ('failed', 0), ('cancelled', 0), ('drawn', 0);

-- The journal's rows. There is one writer, so the order of seq is the order of commits, and seq is the offset.
create table entry (
  seq     integer primary key autoincrement,
  at      integer not null,
  id      text not null,
  topic   text not null,
  type    text not null,
  subject text not null,
  trace   text,
  late    text,                                   -- what a late result brought
  data    text not null                           -- the snapshot
);
