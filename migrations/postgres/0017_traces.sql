-- Jobs that SQL enqueues belong to the trace of whoever enqueues them. (As options, as over HTTP: a further argument of
-- minium.enqueue would make another function of it, without the rights that were granted on this one.)

-- A trace context as the column `trace` holds it: `traceparent` and, behind a blank, `tracestate` (ADR 0020). The first is
-- well-formed by now; one that is all zeroes names nothing, and null is the answer. A state that is not well-formed is dropped,
-- as W3C asks, and the trace goes on without it.
create function minium.trace_context(parent text, state text) returns text language sql immutable as $$
  select case when s.good and octet_length(s.list) <= 512 then parent || ' ' || s.list else parent end
    from (select count(*) <= 32
                 and bool_and(m.member ~ '^[a-z0-9][a-z0-9_*/-]*(@[a-z0-9][a-z0-9_*/-]*)?=[^=]*[^= ]$' and m.member ~ '^[ -~]*$'
                              and position('=' in m.member) <= 257
                              and octet_length(m.member) - position('=' in m.member) <= 256) as good,
                 string_agg(m.member, ',' order by m.place) as list
            from (select btrim(t.member, E' \t') collate "C" as member, t.place
                    from string_to_table(state, ',') with ordinality as t (member, place)) m
           where m.member <> '') s
   where substr(parent, 4, 32) !~ '^0*$' and substr(parent, 37, 16) !~ '^0*$'
$$;

alter type minium.request add attribute trace text;

-- As before, with the options `traceparent` and `tracestate`.
create or replace function minium.read_request(task text, options jsonb) returns minium.request
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
  unknown := options - '{attempts,delay,expire,lax,when,notes,parents,priority,queue,key,unique,partition,timeout,backoff,origin,traceparent,tracestate}'::text[];
  if unknown <> '{}' then
    raise exception using errcode = 'invalid_parameter_value',
      message = format('there is no option %L', (select min(k) from jsonb_object_keys(unknown) k)),
      hint = 'options are attempts delay expire lax when notes parents priority queue key unique partition timeout backoff origin traceparent tracestate';
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
  if options ? 'traceparent' and (jsonb_typeof(options -> 'traceparent') <> 'string'
                                  or options ->> 'traceparent' !~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$') then
    raise exception using errcode = 'invalid_parameter_value',
      message = 'traceparent is no trace context as W3C has it, version 00';
  end if;
  if options ? 'tracestate' and jsonb_typeof(options -> 'tracestate') <> 'string' then
    raise exception using errcode = 'invalid_parameter_value', message = 'tracestate must be a text';
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
    (options ->> 'origin')::numeric::bigint, unique_us, on_failure, options ->> 'partition',
    case when options ? 'traceparent' then minium.trace_context(options ->> 'traceparent', options ->> 'tracestate') end);
end $$;

-- As before, with the traces.
create or replace function minium.enqueue_requests(requests minium.request[]) returns setof bigint language sql as $$
  select e.job
    from (select array_agg(r.task) as tasks, array_agg(r.args) as args, array_agg(r.queue) as queues,
                 array_agg(r.priority) as priorities, array_agg(r.attempts) as attempts, array_agg(r.delay) as delays,
                 array_agg(r.expiry) as expiries, array_agg(r.lax) as laxes, array_agg(r.notes) as notes,
                 array_agg(r.parents) as parents, array_agg(r.key) as keys, array_agg(r.timeout) as timeouts,
                 array_agg(r.backoff) as backoffs, array_agg(r.origin) as origins, array_agg(r.unique_us) as uniques,
                 array_agg(r.on_failure) as on_failures, array_agg(r.part) as parts,
                 array_agg(r.trace) as traces
            from unnest(requests) r) a,
         minium.enqueue_jobs(a.tasks, a.args, a.queues, a.priorities, a.attempts, a.delays, a.expiries, a.laxes, a.notes,
                             a.parents, a.keys, a.timeouts, a.backoffs, array[null]::text[], a.origins,
                             a.traces, a.uniques, a.on_failures, a.parts, array[null]::text[]) e
$$;

-- Only the owner calls this; roles are given what they need, above all EXECUTE on minium.enqueue.
revoke execute on function minium.trace_context(text, text) from public;
