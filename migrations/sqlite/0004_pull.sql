-- Pullers take jobs of single tasks, however many jobs of other tasks are ready in the same queue.
create index job_ready_task on job (task, queue, priority desc, seq) where ready;
