# What a real statement (enqueue.sql, exchange.sql) becomes when the row of a job is in two. For `sed -E`.

# The enqueue writes both rows, and joins them for the snapshot.
/^j as \($/,/^  returning /c\
x as (\
  insert into split.fixed as x (id, created, origin, timeout_us, backoff_us, schedule, trace, notes, args)\
  select r.id, statement_timestamp(), r.origin, r.timeout, r.backoff, r.schedule, r.trace, r.notes, r.args from r\
  returning x.*),\
n as (\
  insert into split.job as j (id, task, queue, priority, attempts, lax, delayed, later_at, expires, ready, part)\
  select r.id, r.task, r.queue, r.priority, r.attempts, r.lax, r.due, case when r.later then r.due end, r.expires,\
         not r.later, r.part\
    from r\
  returning j.*),\
j as (\
  select j.id, j.task, j.queue, j.priority, x.trace, split.snapshot(j::split.job, x::split.fixed) as data\
    from n j join x using (id)),

# Finish and claim change the narrow row, and read the other.
/^[fc] as \($/,/^[fc]_(events|keys) as/{
  s/^   where j\./     from split.fixed as x\n   where x.id = j.id and j./
  s/\bminium\.snapshot\(j\)/split.snapshot(j, x)/
  s/\bj\.notes\b/coalesce(j.notes, x.notes)/
  s/\bj\.(args|timeout_us|trace|key|parents|unique_us)\b/x.\1/g
}

# Whoever looks for jobs looks at the narrow rows.
s/\bminium\.job\b/split.job/g
