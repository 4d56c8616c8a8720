-- What jobs say while they run; gone with the job. Of each the newest lines are kept, within a bound.
create table minium.log_line (
  job     bigint not null,
  n       bigint not null,                        -- its number within the job, from 1
  start   bigint not null,                        -- so many bytes of text the job's lines before it had, also those that are gone
  at      timestamptz not null,
  attempt int not null,
  level   text not null check (level in ('step', 'debug', 'info', 'warn', 'error')),
  text    text not null,
  primary key (job, n)
);

-- As before; what a job has said goes with it. Index: the key of log_line.
create or replace function minium.drop_jobs(ids bigint[], event text) returns bigint language plpgsql as $$
declare
  dropped bigint;
begin
  with d as (
    delete from minium.job as j where j.id = any (ids)
    returning j.id, j.task, j.trace, j.parents, j.state, minium.snapshot(j) as data),
  events as (
    insert into minium.entry (topic, type, subject, trace, data)
    select 'task/' || task || '/' || id, event, id::text, trace, data from d order by id),
  keys as (delete from minium.job_key where job = any (ids) and (until is null or until <= now())),
  -- the edges to its parents; its parents are named by the job, so that edges need no second index
  upward as (
    delete from minium.edge e where e.parent = any (array(select unnest(d.parents) from d)) and e.child = any (ids)),
  renewals as (delete from minium.renewal where job = any (ids)),
  failures as (delete from minium.failure where job = any (ids)),
  lines as (delete from minium.log_line where job = any (ids)),
  figures as (
    insert into minium.tally (inactive, finished, failed, cancelled)
    select -count(*) filter (where state = 'inactive'), -count(*) filter (where state = 'finished'),
           -count(*) filter (where state = 'failed'), -count(*) filter (where state = 'cancelled')
      from d having count(*) > 0)
  select count(*) into dropped from d;
  if dropped > 0 then
    -- a parent that is not there counts as finished
    if minium.settle_or_leave(ids, 10000) is not null then
      delete from minium.edge where parent = any (ids);
    end if;
    perform minium.wake_up(false);
  end if;
  return dropped;
end $$;
