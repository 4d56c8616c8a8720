-- Less work for each job, and nothing that looks different from outside.

-- Room for the three versions that a job that is run once has. Behind a claim the version before it can be pruned only when every
-- other statement has ended that began earlier, and with several workers there always is one; so at 50 most finishes of a
-- drain went to another page, and so into every index: of 50,000 by two workers 18,000 were HOT, now 38,000, and all of those with
-- 300 bytes of arguments or more. The table of a drain is no larger (60 bytes: 927 a job for 891; 1 KiB: 4,096 for 4,589); 31 and
-- not 30, so that two jobs of 1 KiB still share a page.
alter table minium.job set (fillfactor = 31);

-- Whatever writes these columns has checked what it was asked for; the server reads the text of a check anew for every statement
-- that is run.
alter table minium.job
  drop constraint job_priority_check,
  drop constraint job_attempts_check,
  drop constraint job_notes_check;

-- As before, put together by hand: 3.9 µs a job against 4.6 by row_to_json, which looks up how to write each member's type
-- for every row. What is text without a bound on its letters goes through to_json; names of tasks and queues have no letter
-- that JSON would have to escape. The cast reads all of it once more, so that nothing but JSON can ever be written.
create or replace function minium.snapshot_with(j minium.job, args json) returns json language sql stable parallel safe as $$
  select concat(
    '{"id":', j.id, ',"task":"', j.task, '","queue":"', j.queue, '","state":"', j.state, '","priority":', j.priority,
    ',"args":', args, ',"notes":', j.notes,
    ',"attempt":', j.attempt, ',"attempts":', j.attempts, ',"retries":', j.retries,
    ',"parents":', case when j.parents = '{}' then '[]' else array_to_json(j.parents) end,
    case when j.lax then ',"lax":true' else ',"lax":false' end,
    case when j.key is null and j.schedule is null then ',"key":null,"schedule":null'
         else concat(',"key":', coalesce(to_json(j.key), 'null'), ',"schedule":', coalesce(to_json(j.schedule), 'null')) end,
    ',"worker":', coalesce(j.worker, 'null'), ',"result":', coalesce(j.result, 'null'),
    case when j.error is null and j.progress is null and j.origin is null then ',"error":null,"progress":null,"origin":null'
         else concat(',"error":', coalesce(to_json(j.error), 'null'), ',"progress":', coalesce(j.progress, 'null'),
                     ',"origin":', coalesce(j.origin::text, 'null')) end,
    ',"created":"', minium.time_text(j.created), '","delayed":"', minium.time_text(j.delayed),
    case when j.expires is null then '","expires":null' else concat('","expires":"', minium.time_text(j.expires), '"') end,
    case when j.started is null then ',"started":null' else concat(',"started":"', minium.time_text(j.started), '"') end,
    case when j.finished is null then ',"finished":null' else concat(',"finished":"', minium.time_text(j.finished), '"') end,
    case when j.retried is null then ',"retried":null}' else concat(',"retried":"', minium.time_text(j.retried), '"}') end)::json
$$;

-- Who reads the journal says until when it wants to be woken, anew as long as it is there; upkeep disarms for one that is not there
-- any more. Every commit of a transaction that notifies waits for those before it.
update minium.wake set armed = false where name = 'journal';
