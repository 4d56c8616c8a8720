-- Named locks, and schedules whose definitions live in the database. Times are microseconds since 1970.

-- Who holds which lock until when, one row a hold.
create table lock (
  id      integer primary key autoincrement,
  token   text not null unique,
  name    text not null,
  owner   text not null,
  limit_n integer not null,
  taken   integer not null,
  until   integer not null
);
create index lock_name on lock (name, id);
create index lock_until on lock (until);

-- What a schedule enqueues, and when. Rows of before this migration hold a time alone: they fire nothing until the
-- configuration puts their definitions, and keep their step then.
-- the enqueue's request, as JSON
alter table schedule add column request text;
-- one of the two
alter table schedule add column every_us integer;
alter table schedule add column cron text;
alter table schedule add column zone text not null default 'UTC';
-- fold, or all
alter table schedule add column missed text not null default 'fold';
alter table schedule add column paused integer not null default 0;
-- it comes from the configuration of the nodes
alter table schedule add column configured integer not null default 0;
-- when it fired last, and the job of that firing
alter table schedule add column fired integer;
alter table schedule add column job integer;
create index schedule_due on schedule (due) where request is not null and not paused;
