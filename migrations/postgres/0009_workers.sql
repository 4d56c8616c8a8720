-- Workers say how they fare, and are told what to do; and claims that take only so many of a task.

alter table minium.worker
  add column kind    text not null default 'minium',
  add column version text not null default '',
  add column running int  not null default 0,     -- also in status; here so that counting need not read JSON
  add column status  json not null default '{}';

-- What workers are told and have not taken yet. It is nearly always empty.
create table minium.command (
  id     bigint generated always as identity primary key,
  worker bigint not null,
  sent   timestamptz not null default now(),
  name   text not null,
  args   json not null
);
create index command_worker on minium.command (worker, id);

-- Chooses and locks jobs for a claim that takes at most so many of each task, in all `most`; answers their ids in the
-- order of the claim: by priority, then the tasks as they stand, then who became ready first. It takes from one place (a
-- priority, a task, a queue) after the other and stops as soon as it has enough, so that it locks only what it answers:
-- whoever passes over a locked job must not find that nobody took it.
-- Index: job_ready_task, one look for each place. Locks: the jobs it answers, passing over what others hold.
create function minium.choose_capped(
  most bigint, queues text[], tasks text[], caps bigint[], lowest int) returns bigint[] language plpgsql as $$
declare
  place record;
  room bigint[] := caps;
  got bigint[];
  chosen bigint[] := '{}';
begin
  for place in
    select l.queue, l.priority, t.task, t.n
      from (select distinct lane.queue, lane.priority from minium.lane
             where lane.queue = any (queues) and lane.priority >= lowest
               and lane.queue <> all (array(select p.queue from minium.paused_queue p))) l,
           unnest(tasks) with ordinality as t (task, n)
     order by l.priority desc, t.n, array_position(queues, l.queue)
  loop
    exit when cardinality(chosen) >= most;
    continue when room[place.n] <= 0;
    got := array(
      select j.id from minium.job j
       where j.ready and j.limited is null and j.task = place.task and j.queue = place.queue and j.priority = place.priority
         and (j.expires is null or j.expires > now() or j.attempt > 0)
       order by j.seq limit least(room[place.n], most - cardinality(chosen)) for update skip locked);
    room[place.n] := room[place.n] - cardinality(got);
    chosen := chosen || got;
  end loop;
  return chosen;
end $$;

-- Only the owner calls it.
revoke execute on function minium.choose_capped(bigint, text[], text[], bigint[], int) from public;
