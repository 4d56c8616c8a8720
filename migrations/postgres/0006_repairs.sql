-- Repairs: when somebody last looked after the queue; children in bounded pieces, whatever their number; lanes that go.

-- When a round of upkeep was last begun or ended. When there was none for long, nobody was there to extend leases
-- with, and they have their grace anew, as after a restart. Never: the first round of this program counts as such.
alter table minium.server add column tended timestamptz not null default '-infinity';

-- Parents with more edges than one transaction looks at, whose edges are still to be looked at behind `child`. Upkeep
-- goes on with them until they are through. A row stands from the commit of what makes it needed on.
create table minium.unsettled (
  parent bigint primary key,
  child  bigint not null default 0
);

-- Since when a lane was found without ready jobs. Upkeep lets it go after an hour; an enqueue that finds it missing adds it
-- again, and upkeep puts back what a job needs.
alter table minium.lane add column idle_since timestamptz;

-- Makes some edges say what their parents' states say, and moves the children's counters. Answers how many children became
-- ready. Each call takes a bounded number of edges; whoever calls it sees to that.
-- Indexes: the key of job, the key of edge. Locks: the children, in id order, and no parent; who changes an edge holds its
-- child (ADR 0002). Joins go by the keys, whatever plan a table that was empty once would suggest.
create function minium.settle_edges(of_parents bigint[], of_children bigint[]) returns bigint
language plpgsql set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  released bigint;
begin
  if coalesce(cardinality(of_children), 0) = 0 then
    return 0;
  end if;
  perform from minium.job where id = any (of_children) order by id for no key update;
  -- looks again, now that nobody else can move these counters
  with turned as (
    update minium.edge e set open = not e.open
      from unnest(of_parents, of_children) as w (parent, child)
     where e.parent = w.parent and e.child = w.child
       and e.open is distinct from minium.holds((select p.state from minium.job p where p.id = e.parent),
                                                (select c.lax from minium.job c where c.id = e.child))
    returning e.child, case when e.open then 1 else -1 end as step),
  -- numbers are drawn in the order of the ids, whatever order the join below has
  moved as materialized (
    select t.child, t.step, nextval('minium.ready_seq') as seq
      from (select child, sum(step)::int as step from turned group by child order by child offset 0) t),
  freed as (
    update minium.job j
       set left_n = j.left_n + m.step,
           ready = j.state = 'inactive' and j.later_at is null and j.left_n + m.step = 0,
           seq = case when j.state = 'inactive' and j.later_at is null and j.left_n + m.step = 0 and not j.ready
                      then m.seq else j.seq end
      from moved m
     where j.id = m.child and j.id = any (of_children)
    returning j.ready)
  select count(*) filter (where ready) into released from freed;
  if released > 0 then
    perform minium.wake_up(true);
  end if;
  return released;
end $$;

-- Looks at the next edges below some parents, behind the edge (parent, child), at most `count_max`, and settles those that
-- are wrong. Answers how many children became ready, and the last edge that it looked at if there may be more.
-- Index: the key of edge, walked from where the last call came to.
create function minium.settle_some(of_parents bigint[], inout parent bigint, inout child bigint, count_max integer,
                                   out released bigint)
language plpgsql as $$
#variable_conflict use_column
declare
  looked record;
begin
  select count(*) as n,
         array_agg(l.parent) filter (where l.wrong) as parents, array_agg(l.child) filter (where l.wrong) as children,
         max(l.parent) as parent, (array_agg(l.child order by l.parent desc, l.child desc))[1] as child
    into looked
    from (select e.parent, e.child,
                 e.open is distinct from minium.holds((select p.state from minium.job p where p.id = e.parent),
                                                      (select c.lax from minium.job c where c.id = e.child)) as wrong
            from minium.edge e
           where e.parent = any (of_parents) and (e.parent, e.child) > (settle_some.parent, settle_some.child)
           order by e.parent, e.child limit count_max) l;
  released := minium.settle_edges(looked.parents, looked.children);
  parent := case when looked.n = count_max then looked.parent end;
  child := case when looked.n = count_max then looked.child end;
end $$;

-- For a transaction that changes parents and must have their edges right with its commit: settles all of them while they
-- are few, and else leaves them to upkeep, on record: then the answer is null. All of the children are locked before their
-- edges are looked at, so that whoever settles them by what the parents were before is through, or comes behind.
-- Index: the key of edge. Locks: the rows of `unsettled`, or the children, in id order.
create function minium.settle_or_leave(of_parents bigint[], count_max integer) returns bigint language plpgsql as $$
declare
  parents  bigint[];
  children bigint[];
begin
  select array_agg(e.parent), array_agg(e.child) into parents, children
    from (select e.parent, e.child from minium.edge e where e.parent = any (of_parents) limit count_max + 1) e;
  if cardinality(children) <= count_max or children is null then
    return minium.settle_edges(parents, children);
  end if;
  insert into minium.unsettled (parent)
    select p from unnest(of_parents) p where exists (select from minium.edge e where e.parent = p) order by p
  on conflict (parent) do update set child = 0;
  return null;
end $$;

-- Goes on with a parent that was left, a piece of at most `count_max` edges. Answers how many children became ready; null
-- when there is none to go on with. Edges of a parent that is gone go when they have been settled.
-- Index: the key of edge. Locks: the row of `unsettled`, passing over what others hold, then the children, in id order.
create function minium.settle_left(count_max integer) returns bigint language plpgsql as $$
declare
  rest     minium.unsettled;
  children bigint[];
  released bigint;
begin
  select * into rest from minium.unsettled u order by u.parent limit 1 for update skip locked;
  if not found then
    return null;
  end if;
  children := array(select e.child from minium.edge e where e.parent = rest.parent and e.child > rest.child
                     order by e.child limit count_max);
  released := minium.settle_edges(array_fill(rest.parent, array[cardinality(children)]), children);
  if not exists (select from minium.job j where j.id = rest.parent) then
    delete from minium.edge e where e.parent = rest.parent and e.child = any (children);
  end if;
  if cardinality(children) < count_max then
    delete from minium.unsettled u where u.parent = rest.parent;
  else
    update minium.unsettled u set child = children[count_max] where u.parent = rest.parent;
  end if;
  return released;
end $$;

-- As in 0001, but piece by piece. Programs of before this migration call it.
create or replace function minium.settle(of_parents bigint[]) returns bigint language plpgsql as $$
declare
  step record;
  released bigint := 0;
begin
  select 0::bigint as parent, 0::bigint as child into step;
  while step.child is not null loop
    select * into step from minium.settle_some(of_parents, step.parent, step.child, 1000);
    released := released + step.released;
  end loop;
  return released;
end $$;

-- As in 0001, but that a parent of very many leaves its edges to upkeep.
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
  keys as (delete from minium.job_key where job = any (ids)),
  -- the edges to its parents; its parents are named by the job, so that edges need no second index
  upward as (
    delete from minium.edge e where e.parent = any (array(select unnest(d.parents) from d)) and e.child = any (ids)),
  renewals as (delete from minium.renewal where job = any (ids)),
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

-- as all of them in 0001
revoke execute on function minium.settle_edges(bigint[], bigint[]), minium.settle_some(bigint[], bigint, bigint, integer),
                           minium.settle_or_leave(bigint[], integer), minium.settle_left(integer) from public;
