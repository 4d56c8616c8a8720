-- Arguments that a task's schema marks `writeOnly`: whoever runs the job gets them, nobody else sees them. What is shown is
-- made once, at the enqueue; a job that was enqueued before its task's mask was there stays as it was.

-- Which places are hidden: an array of paths from the root of the arguments; a step is a member's name, an element's
-- number, or "*" for all of them. The nearest row at or above a task counts, as the nearest schema does.
create table mask (
  task  text primary key,
  paths text not null                             -- JSON array of arrays of text
) without rowid;

-- JSON; null: as they are
alter table job add column args_shown text;
