#!/usr/bin/env bash
# What would it save to keep a job in two rows, a narrow one that changes and one that is written once? On a throwaway server:
#
#     scripts/with-postgres --fsync bench/layouts/narrow.sh
#
# The real schema, the real statements (others are made of them by split.sed and ordered.sed), the life of JOBS jobs: enqueued
# BULK at a time, finished and claimed BATCH at a time by WORKERS in one transaction as the product does, then numbered. The
# layouts in turn, ROUNDS times, each on a database of its own; medians in Markdown on stdout. With WORKERS=1 the log of claims
# and finishes is told apart; with BACKLOG=1 there is a checkpoint between enqueue and claim. FILLFACTOR is the narrow table's.
# README.md has the figures and what they mean.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

here=bench/layouts
url=${MINIUM_TEST_POSTGRES:?run it by scripts/with-postgres --fsync}
# the schema and the statements as they were: split.sed and ordered.sed fit them, and the figures can be had again
commit=${COMMIT:-4d556cd}
jobs=${JOBS:-10000} bulk=${BULK:-1000} batch=${BATCH:-100} workers=${WORKERS:-2} rounds=${ROUNDS:-5}
sizes=${SIZES:-60 1024} fillfactor=${FILLFACTOR:-24} backlog=${BACKLOG:-}
warm=$bulk
((jobs % (batch * workers) == 0 && jobs % bulk == 0 && warm % (batch * workers) == 0)) ||
    die "JOBS and BULK must be multiples of BATCH * WORKERS, JOBS of BULK"
# as the product's sessions are set (queue/src/postgres/connection.rs)
export PGOPTIONS='-c jit=off -c enable_seqscan=off -c enable_bitmapscan=off -c plan_cache_mode=force_generic_plan
  -c client_min_messages=warning'
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"; sql postgres -c "drop database if exists layouts_round" -c "drop database if exists layouts"' EXIT

at() { printf '%s' "${url/\/postgres\?//$1?}"; }
sql() { psql --no-psqlrc -qXAt -F ' ' -v ON_ERROR_STOP=1 -d "$(at "$1")" "${@:2}"; }

# A statement's file as the body of a function, so that its plan is kept, what it answers stays in the server, and its time and
# log are known without a client's. Kept in the schema of its layout.
wrap() {
    local layout=$1 edit=$2
    cat <<SQL
create function $layout.enqueue(text[], text[], text[], int[], int[], bigint[], bigint[], bool[], text[], bigint[], bigint[],
                                text[], bigint[], text[], text[]) returns void language plpgsql as \$body\$
declare
  v_x text;
begin
  for v_x in
$(sed -E -f "$edit" "$scratch"/queue/src/postgres/enqueue.sql)
  loop
  end loop;
end \$body\$;

create function $layout.exchange(bigint[], uuid[], text[], bigint, text, bigint, text[], text[], int, text[], int[], bigint[],
                                 bigint, out ids bigint[], out leases uuid[], out results text[], out mark bigint)
language plpgsql as \$body\$
declare
  v_x text; v_kind text; v_job bigint; v_place bigint; v_lease uuid;
  v_began timestamptz := clock_timestamp();
  v_from pg_lsn := pg_current_wal_insert_lsn();
begin
  ids := '{}'; leases := '{}'; mark := 0;
  for v_kind, v_job, v_place, v_x, v_x, v_x, v_x, v_x, v_x, v_lease in
$(sed -E -f "$edit" "$scratch"/queue/src/postgres/exchange.sql)
  loop
    if v_kind = 'c' then
      ids := ids || v_job; leases := leases || v_lease; mark := greatest(mark, v_place);
    end if;
  end loop;
  insert into bench.call values (case when \$4 = 0 then 'finish' else 'claim' end,
    extract(epoch from clock_timestamp() - v_began) * 1e6, pg_current_wal_insert_lsn() - v_from);
  -- a finish looks for jobs by halving its way through their ids
  select coalesce(array_agg(u.id order by u.id), '{}'), coalesce(array_agg(u.lease order by u.id), '{}'),
         coalesce(array_agg('null'::text), '{}')
    into ids, leases, results from unnest(ids, leases) as u (id, lease);
end \$body\$;
SQL
}

cat >"$scratch/enqueue" <<'PGBENCH'
select from :layout.enqueue(array(select 'noop' from bench.request), array(select args from bench.request),
  array(select 'default' from bench.request), array(select 0 from bench.request), array(select 1 from bench.request),
  array(select 0 from bench.request), array(select null::bigint from bench.request), array(select false from bench.request),
  array(select '{}' from bench.request), array(select null::bigint from bench.request),
  array(select null::bigint from bench.request), array(select null::text from bench.request),
  array(select null::bigint from bench.request), array(select null::text from bench.request),
  array(select null::text from bench.request));
PGBENCH
cat >"$scratch/work" <<'PGBENCH'
\set turn :turn + 1
\set limit case when :turn > :turns then 0 else :batch end
begin;
select from :layout.exchange(':ids', ':leases', ':results', 0, '{}', 0, '{}', null, 0, '{}', '{}', '{}', null);
\if :limit > 0
select * from :layout.exchange('{}', '{}', '{}', :limit, '{"id":1,"host":"vm","pid":12345}', 60000000, '{default}', '{noop}',
  -2147483648, '{default}', '{0}', '{:mark}', null) \gset
\endif
commit;
PGBENCH
cat >"$scratch/number" <<'PGBENCH'
begin isolation level repeatable read;
select count(*) from minium.journal_step(1000, 1000, 1048576, interval '0');
commit;
PGBENCH

# Microseconds of CPU of all sessions that have ended
cpu() { awk -v tick="$(getconf CLK_TCK)" '{ print ($16 + $17) * 1e6 / tick }' "/proc/$postmaster/stat"; }

# Runs a phase on a database; answers where the log began and ended, and microseconds of wall time and of PostgreSQL's CPU
phase() {
    local db=$1 name=$2 clients=$3 transactions=$4 from log cpu
    # sessions count when the postmaster has seen them end
    sleep 0.1
    cpu=$(cpu)
    from=$(sql "$db" -c 'select pg_current_wal_insert_lsn()')
    log=$(pgbench --no-vacuum -M simple -c "$clients" -t "$transactions" -f "$scratch/$name" \
        -D layout="$layout" -D batch="$batch" -D turns=$((transactions - 1)) -D turn=0 -D mark=0 \
        -D ids={} -D leases={} -D results={} \
        "$(at "$db")" 2>&1) || die "$log"
    if grep -q 'aborted\|ERROR' <<<"$log"; then die "$log"; fi
    sleep 0.1
    printf '%s %s ' "$from" "$(sql "$db" -c 'select pg_current_wal_insert_lsn()')"
    awk -v n="$transactions" -v from="$cpu" -v to="$(cpu)" '/^latency average/ { print $4 * n * 1000, to - from }' <<<"$log"
}

life() {
    local n=$1
    phase "$db" enqueue 1 $((n / bulk))
    if [ -n "$backlog" ]; then sql "$db" -c checkpoint; fi
    phase "$db" work "$workers" $((n / batch / workers + 1))
    phase "$db" number 1 $((3 * n / 1000 + 1))
}

# One round of one layout; adds lines to figures: layout, bytes, round, what, value
round() {
    local layout=$1 bytes=$2 i=$3 db=layouts_round from to us cpu first='' last='' place=0
    local names=(enqueue work number)
    sql postgres -c "drop database if exists $db" -c "create database $db template layouts"
    sql "$db" -c "insert into bench.request select bench.args(n, $bytes) from generate_series(1, $bulk) n"
    life "$warm" >/dev/null
    # counted from here
    sql "$db" -c 'vacuum analyze' -c 'truncate bench.call' -c 'select from pg_stat_reset()' -c 'checkpoint'
    while read -r from to us cpu; do
        first=${first:-$from} last=$to
        sql "$db" -c "select '$layout', $bytes, $i, '${names[place]}_wal', ('$to'::pg_lsn - '$from')::float8 / $jobs" \
            -c "select '$layout', $bytes, $i, '${names[place]}_us', $us::float8 / $jobs" \
            -c "select '$layout', $bytes, $i, '${names[place]}_cpu', $cpu::float8 / $jobs" >>"$scratch/figures"
        place=$((place + 1))
    done < <(life "$jobs")
    [ "$place" = 3 ] || exit 1
    sql "$db" -v layout="$layout" -v bytes="$bytes" -v i="$i" -v jobs="$jobs" -v all=$((jobs + warm)) -v workers="$workers" \
        >>"$scratch/figures" <<'SQL'
select :'layout', :bytes, :i, phase || '_us', sum(us) / :jobs from bench.call group by phase;
select :'layout', :bytes, :i, phase || '_wal', sum(wal)::float8 / :jobs from bench.call where :workers = 1 group by phase;
select :'layout', :bytes, :i, w.what, w.value
  from (select sum(n_tup_hot_upd)::float8 / sum(n_tup_upd) as hot, sum(pg_table_size(relid))::float8 / :all as heap,
               sum(pg_indexes_size(relid))::float8 / :all as indexes
          from pg_stat_user_tables
         where schemaname = :'layout' or schemaname = 'minium' and relname = 'job' and :'layout' = 'today') s,
       lateral (values ('hot', hot), ('table', heap), ('indexes', indexes)) as w (what, value);
SQL
    # everything was done once, and all layouts tell the same events
    sql "$db" -v all=$((jobs + warm)) -v jobs="${layout/today/minium}.job" >"$scratch/story.$layout" <<'SQL'
select count(*) = :all and bool_and(state = 'finished' and attempt = 1) from :jobs;
select count(*) = 3 * :all and count(distinct (subject, type)) = 3 * :all from minium.entry;
select count(*) = 3 * :all and max("offset") = 3 * :all from minium.entry_offset;
select md5(string_agg(type || regexp_replace(data::text, '"[0-9-]{10}T[^"]*Z"', '"t"', 'g'), ',' order by subject::bigint, type))
  from minium.entry;
SQL
    ! grep -q '^f' <<<"$(head -n 3 "$scratch/story.$layout")" || die "$layout: jobs or events are missing"
    # a checkpoint removes what would be read
    if [ "$i" = 0 ] && [ -z "$backlog" ]; then
        sql "$db" -F '|' -c "select '$layout', $bytes, kind, what, bytes::float8 / $jobs
            from bench.log_by_kind('$first', least('$last', pg_current_wal_flush_lsn()))" >>"$scratch/log"
    fi
}

postmaster=$(sql postgres -c "select split_part(pg_read_file('postmaster.pid'), E'\n', 1)")
sql postgres -c 'drop database if exists layouts' -c 'create database layouts'
git archive "$commit" migrations/postgres queue/src/postgres | tar -x -C "$scratch"
{ echo 'create schema minium;'; cat "$scratch"/migrations/postgres/*.sql; } | sql layouts -f - >/dev/null
sql layouts -v fillfactor="$fillfactor" -c 'create schema today' -f "$here/split.sql" -f "$here/ordered.sql" -f "$here/measure.sql"
{ wrap today /dev/null; wrap split "$here/split.sed"; wrap ordered "$here/ordered.sed"; } | sql layouts -f -

for ((i = 0; i < rounds; i++)); do
    if ((i % 2)); then order='ordered split today'; else order='today split ordered'; fi
    for bytes in $sizes; do
        for layout in $order; do
            round "$layout" "$bytes" "$i"
        done
        for layout in split ordered; do
            cmp -s "$scratch/story.today" "$scratch/story.$layout" || die "$layout tells other events than the layout of today"
        done
    done
done

sql layouts -c 'create table figure (layout text, bytes int, round int, what text, value float8)' \
    -c "\\copy figure from '$scratch/figures' with (delimiter ' ')"
printf 'PostgreSQL %s, %s jobs, WORKERS=%s, FILLFACTOR=%s, medians of %s rounds\n\n' \
    "$(sql layouts -c 'show server_version')" "$jobs" "$workers" "$fillfactor" "$rounds"
printf '| arguments | for each job | one row | two rows | ratio | one row, reordered | ratio |\n|---|---|---|---|---|---|---|\n'
sql layouts -F ' | ' <<'SQL'
insert into figure
  select layout, bytes, round, 'life' || substring(what from '_.*'), sum(value) from figure
   where what ~ '^(enqueue|work|number)_' group by 1, 2, 3, 4;
select '| ' || m.bytes || ' B', n.name, round(today, n.digits), round(split, n.digits), round(split / nullif(today, 0), 3),
       round(ordered, n.digits), round(ordered / nullif(today, 0), 3) || ' |'
  from (select bytes, what,
               (percentile_cont(0.5) within group (order by value) filter (where layout = 'today'))::numeric as today,
               (percentile_cont(0.5) within group (order by value) filter (where layout = 'split'))::numeric as split,
               (percentile_cont(0.5) within group (order by value) filter (where layout = 'ordered'))::numeric as ordered
          from figure group by bytes, what) m
  join (values (1, 'enqueue_wal', 'log of the enqueue, B', 0), (2, 'claim_wal', 'log of the claim, B', 0),
               (3, 'finish_wal', 'log of the finish, B', 0), (4, 'work_wal', 'log of claim, finish and commit, B', 0),
               (5, 'number_wal', 'log of the numbering, B', 0), (6, 'life_wal', '**log of its life, B**', 0),
               (7, 'enqueue_us', 'enqueue, µs', 1), (8, 'claim_us', 'claim, µs inside of the statement', 1),
               (9, 'finish_us', 'finish, µs inside of the statement', 1), (10, 'work_us', 'claim, finish and commit, µs', 1),
               (11, 'number_us', 'numbering, µs', 1), (12, 'life_us', '**its life, µs**', 1),
               (13, 'enqueue_cpu', 'enqueue, µs of CPU', 1), (14, 'work_cpu', 'claim, finish and commit, µs of CPU', 1),
               (15, 'number_cpu', 'numbering, µs of CPU', 1), (16, 'life_cpu', '**its life, µs of CPU**', 1),
               (17, 'hot', 'share of HOT updates', 2), (18, 'table', 'tables of jobs, B', 0), (19, 'indexes', 'their indexes, B', 0))
         as n (place, what, name, digits) using (what)
 order by m.bytes, n.place;
SQL
if [ -n "$backlog" ]; then exit; fi
printf '\n| arguments | log of its life, B, first round | one row | two rows | one row, reordered |\n|---|---|---|---|---|\n'
sql layouts -F ' | ' -c 'create table log (layout text, bytes int, kind int, what text, value numeric)' \
    -c "\\copy log from '$scratch/log' with (delimiter '|')" -f - <<'SQL'
select '| ' || bytes || ' B', what, round(coalesce(sum(value) filter (where layout = 'today'), 0)),
       round(coalesce(sum(value) filter (where layout = 'split'), 0)),
       round(coalesce(sum(value) filter (where layout = 'ordered'), 0)) || ' |'
  from log group by bytes, kind, what order by bytes, kind;
SQL
