-- Jobs by COPY: a table that keeps nothing, and enqueues what is written into it.

-- What an enqueue by SQL asks for, read and checked. Spans are microseconds.
create type minium.request as (
  task text, args text, queue text, priority int, attempts int, delay bigint, expiry bigint, lax boolean, notes text,
  parents text, key text, timeout bigint, backoff bigint, origin bigint, unique_us bigint, on_failure boolean, part text);

-- What readers of JSON may refuse is refused where it comes in, as over HTTP: more than 100 levels, and numbers beyond a double.
-- Neither fits into fewer letters.
create function minium.check_json(name text, value jsonb) returns void language plpgsql immutable as $$
begin
  if octet_length(value::text) < 200 then
    return;
  end if;
  if jsonb_path_exists(value, 'strict $.**{100 to last} ? (@.type() == "array" || @.type() == "object")') then
    raise exception using errcode = 'invalid_parameter_value',
      message = format('%s: more than 100 levels of lists and objects', name);
  end if;
  if jsonb_path_exists(value, 'strict $.** ? (@.type() == "number" && (@ > 1.7976931348623157e308 || @ < -1.7976931348623157e308))') then
    raise exception using errcode = 'invalid_parameter_value',
      message = format('%s: a number is out of the range of a double', name);
  end if;
end $$;

-- Reads the task and the options of one job; `args` stays null. Raises `invalid_parameter_value` for whatever is wrong. What a
-- job does not say costs no more than to see that: most of the time of a line of COPY is spent here.
create function minium.read_request(task text, options jsonb) returns minium.request
language plpgsql stable as $$
declare
  name text;
  parents bigint[] := '{}';
  unknown jsonb;
  spans boolean;
  number numeric;
  unique_us bigint;
  on_failure boolean := coalesce(options ->> 'when' = 'failure', false);
begin
  if jsonb_typeof(coalesce(options, '{}')) <> 'object' then
    raise exception using errcode = 'invalid_parameter_value', message = 'options must be an object';
  end if;
  options := coalesce(options, '{}');
  -- a member that is null is a member that is not there
  if jsonb_path_exists(options, '$.* ? (@ == null)') then
    options := (select coalesce(jsonb_object_agg(o.key, o.value), '{}') from jsonb_each(options) o where o.value <> 'null');
  end if;
  unknown := options - '{attempts,delay,expire,lax,when,notes,parents,priority,queue,key,unique,partition,timeout,backoff,origin}'::text[];
  if unknown <> '{}' then
    raise exception using errcode = 'invalid_parameter_value',
      message = format('there is no option %L', (select min(k) from jsonb_object_keys(unknown) k)),
      hint = 'options are attempts delay expire lax when notes parents priority queue key unique partition timeout backoff origin';
  end if;
  -- task/<task>/<id> must be a topic too, for the longest id
  perform minium.check_topic('task', task, 255 - 25, 14);
  if options ? 'queue' then
    perform minium.check_topic('queue', options ->> 'queue', 255, 16);
  end if;
  foreach name in array '{attempts,priority,origin}'::text[] loop
    continue when not options ? name;
    number := case when jsonb_typeof(options -> name) = 'number' then (options ->> name)::numeric end;
    if number is null or number <> trunc(number)
       or name = 'attempts' and number not between 1 and 1000
       or name = 'priority' and number not between -1000 and 1000
       or abs(number) > 9223372036854775807 then
      raise exception using errcode = 'invalid_parameter_value', message = format('%s is %s: it must be a whole number%s',
        name, options -> name, case name when 'attempts' then ' from 1 to 1000' when 'priority' then ' from -1000 to 1000' else '' end);
    end if;
  end loop;
  if jsonb_typeof(coalesce(options -> 'lax', 'false')) <> 'boolean' then
    raise exception using errcode = 'invalid_parameter_value', message = 'lax must be true or false';
  end if;
  if jsonb_typeof(coalesce(options -> 'notes', '{}')) <> 'object' then
    raise exception using errcode = 'invalid_parameter_value', message = 'notes must be an object';
  end if;
  if options ? 'notes' then
    perform minium.check_json('notes', options -> 'notes');
  end if;
  if jsonb_typeof(coalesce(options -> 'queue', '""')) <> 'string' then
    raise exception using errcode = 'invalid_parameter_value', message = 'queue must be a text';
  end if;
  if options ? 'key' and (jsonb_typeof(options -> 'key') <> 'string'
                          or octet_length(options ->> 'key') not between 1 and 255) then
    raise exception using errcode = 'invalid_parameter_value', message = 'key must be a text of 1 to 255 bytes';
  end if;
  if options ? 'when' and (options ->> 'when' not in ('success', 'ended', 'failure')
                           or options ? 'lax' and (options ->> 'lax')::boolean <> (options ->> 'when' = 'ended')) then
    raise exception using errcode = 'invalid_parameter_value',
      message = 'when must be success, ended or failure, and not contradict lax';
  end if;
  if options ? 'unique' then
    if not options ? 'key' then
      raise exception using errcode = 'invalid_parameter_value', message = 'unique goes with a key';
    end if;
    unique_us := case options ->> 'unique' when 'alive' then null when 'waiting' then 0
                      else greatest(minium.span_us('unique', options -> 'unique'), 1) end;
  end if;
  if options ? 'partition' and (jsonb_typeof(options -> 'partition') <> 'string'
                                or octet_length(options ->> 'partition') > 255) then
    raise exception using errcode = 'invalid_parameter_value', message = 'partition must be a text of at most 255 bytes';
  end if;
  if options ? 'parents' then
    begin
      if jsonb_typeof(options -> 'parents') <> 'array' then
        raise exception using errcode = 'invalid_parameter_value';
      end if;
      -- once each, in the order given
      select coalesce(array_agg(p.id order by p.first), '{}') into parents
        from (select e.value #>> '{}' as text, min(e.ordinality) as first
                from jsonb_array_elements(options -> 'parents') with ordinality e
               group by e.value) g,
             lateral (select g.text::bigint as id, g.first) p;
    exception when others then
      raise exception using errcode = 'invalid_parameter_value', message = 'parents must be an array of job numbers';
    end;
  end if;
  if on_failure and parents = '{}' then
    raise exception using errcode = 'invalid_parameter_value', message = 'a job that runs on a failure has a parent';
  end if;
  spans := options ?| '{delay,expire,timeout,backoff}';
  return (
    task, null::text, coalesce(options ->> 'queue', 'default'), coalesce((options ->> 'priority')::numeric::int, 0),
    coalesce((options ->> 'attempts')::numeric::int, 1),
    case when spans then coalesce(minium.span_us('delay', options -> 'delay'), 0) else 0 end,
    case when spans then minium.span_us('expire', options -> 'expire') end,
    coalesce((options ->> 'lax')::boolean, options ->> 'when' = 'ended', false), coalesce(options ->> 'notes', '{}'),
    parents::text, options ->> 'key',
    case when spans then minium.span_us('timeout', options -> 'timeout') end,
    case when spans then minium.span_us('backoff', options -> 'backoff') end,
    (options ->> 'origin')::numeric::bigint, unique_us, on_failure, options ->> 'partition');
end $$;

-- Enqueues requests, at most 1,000, in their order.
create function minium.enqueue_requests(requests minium.request[]) returns setof bigint language sql as $$
  select e.job
    from (select array_agg(r.task) as tasks, array_agg(r.args) as args, array_agg(r.queue) as queues,
                 array_agg(r.priority) as priorities, array_agg(r.attempts) as attempts, array_agg(r.delay) as delays,
                 array_agg(r.expiry) as expiries, array_agg(r.lax) as laxes, array_agg(r.notes) as notes,
                 array_agg(r.parents) as parents, array_agg(r.key) as keys, array_agg(r.timeout) as timeouts,
                 array_agg(r.backoff) as backoffs, array_agg(r.origin) as origins, array_agg(r.unique_us) as uniques,
                 array_agg(r.on_failure) as on_failures, array_agg(r.part) as parts
            from unnest(requests) r) a,
         minium.enqueue_jobs(a.tasks, a.args, a.queues, a.priorities, a.attempts, a.delays, a.expiries, a.laxes, a.notes,
                             a.parents, a.keys, a.timeouts, a.backoffs, array[null]::text[], a.origins,
                             array[null]::text[], a.uniques, a.on_failures, a.parts, array[null]::text[]) e
$$;

-- As before, read by the function above.
create or replace function minium.enqueue(task text, args jsonb, options jsonb default '{}') returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
  request minium.request := minium.read_request(task, options);
  answer bigint;
begin
  perform minium.check_json('args', args);
  request.args := coalesce(args, '[]')::text;
  select e into strict answer from minium.enqueue_requests(array[request]) e;
  return answer;
end $$;

-- A line is a call of minium.enqueue: `copy minium.bulk (task, args, options) from stdin`, or an insert of many rows. A role
-- that is to do so needs USAGE on the schema and INSERT on this table, and nothing else. UNLOGGED, since it is always empty
-- when a transaction ends: what is written into it is gone with the statement that wrote it.
create unlogged table minium.bulk (
  task    text not null,
  args    jsonb not null default '[]',
  options jsonb not null default '{}'
);

-- Enqueues the lines of one statement, in pieces of 1,000, and empties the table. Lines that say the same task and options as
-- the one before are read once. Locks: those of minium.enqueue_jobs; nobody else sees the rows that are deleted.
create function minium.enqueue_bulk() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
  added   record;
  line    bigint := 0;
  task    text;
  options jsonb;
  request minium.request;
  piece   minium.request[] := '{}';
  words   text;
  advice  text;
begin
  for added in select l.task, l.args as value, l.args::text as args, l.options from lines l loop
    line := line + 1;
    perform minium.check_json('args', added.value);
    if added.task is distinct from task or added.options is distinct from options then
      request := minium.read_request(added.task, added.options);
      task := added.task;
      options := added.options;
    end if;
    request.args := added.args;
    piece := piece || request;
    if line % 1000 = 0 then
      perform minium.enqueue_requests(piece);
      piece := '{}';
    end if;
  end loop;
  if cardinality(piece) > 0 then
    perform minium.enqueue_requests(piece);
  end if;
  delete from minium.bulk;
  return null;
exception when invalid_parameter_value then
  get stacked diagnostics words = message_text, advice = pg_exception_hint;
  raise exception using errcode = 'invalid_parameter_value', message = format('line %s: %s', line, words), hint = advice;
end $$;

create trigger enqueue_bulk after insert on minium.bulk
  referencing new table as lines for each statement execute function minium.enqueue_bulk();

-- as all of them in the first migration
revoke execute on function minium.check_json(text, jsonb), minium.read_request(text, jsonb), minium.enqueue_requests(minium.request[]), minium.enqueue_bulk()
from public;
