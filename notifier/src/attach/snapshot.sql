-- A row of Minion's as our snapshot: the members of minium.snapshot, in its order. `r` is the row. What the row does not
-- say is left out rather than guessed; each rule is told in docs/minion-attach.md, and a test holds them together. It has
-- no FROM, so that it becomes part of the statement around it; a subquery would be started for each row.
lateral (
  select r.id, r.task, r.queue, r.state, r.priority,
         -- what a schema of ours hides of this task's arguments is hidden here too
         case when (select exists (select from minium.mask m where m.paths <> '[]'))
              then coalesce(minium.args_shown(r.task, r.args::json), r.args::json) else r.args::json end as args,
         r.notes,
         -- Minion does not count runs: those before the last retry, and one more if there was one since
         least(case when r.state in ('active', 'finished') then r.retries::bigint + 1
                    when r.started is null then 0
                    when r.state = 'inactive' or r.retried > r.started then r.retries
                    else r.retries::bigint + 1 end, 2147483647) as attempt,
         -- its own number is of those that are left, and goes down as the retries go up
         least(greatest(r.attempts, 1)::bigint + r.retries, 2147483647) as attempts,
         r.retries, r.parents, r.lax, null::text as key, null::text as schedule,
         -- of one that Minion has forgotten only the number is known
         case when r.worker is not null then coalesce(
           (select row_to_json(w) from (select m.id, m.host, m.pid from {workers} m where m.id = r.worker) w),
           row_to_json((select x from (select r.worker as id, null::text as host, null::int as pid) x))) end as worker,
         -- a row that was retried keeps the outcome of an earlier run, and does not say which kind that was
         case when r.state = 'finished' then r.result end as result,
         case when r.state = 'failed' then r.result #>> '{}' end as error,
         null::json as progress, null::bigint as origin,
         minium.time_text(r.created) as created, minium.minion_time(r.delayed) as delayed,
         minium.minion_time(r.expires) as expires, minium.time_text(r.started) as started,
         case when r.state in ('finished', 'failed') then minium.time_text(r.finished) end as finished,
         minium.time_text(r.retried) as retried) s
