-- Pullers take jobs of single tasks, however many jobs of other tasks are ready in the same queue: a thousand images
-- that pull a task each must cost a thousand short looks into an index, not a thousand walks over all that is ready.
-- A claim changes `ready` anyhow, and a finish touches none of these columns, so it stays a HOT update.
create index job_ready_task on minium.job (task, queue, priority, seq) where ready;
