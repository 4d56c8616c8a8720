// @ts-check
// The jobs: filters that stand in the address, rows that follow events, one action on many.

import { at, get, useLoad } from "../lib/api.js";
import { asked, body, renewed, some } from "../lib/filter.js";
import { count, gist } from "../lib/format.js";
import { html, useEffect, useMemo, useRef, useState } from "../lib/html.js";
import { onTasks } from "../lib/live.js";
import { useMay } from "../lib/may.js";
import { write } from "../lib/route.js";
import { Failure, Head, Progress, State, Time } from "../parts/bits.js";
import { Bulk } from "../parts/bulk.js";
import { Table } from "../parts/table.js";

const PAGE = 50;
/** Beyond that many rows one narrows the filter instead of reading on. */
const ROWS_MAX = 1000;
/** So many are read anew by their numbers in one request. */
const IDS_MAX = 100;
/** What was missed is read anew, and when that fails again after so long. In milliseconds. */
const AGAIN = 2000;
/** After events the first page is read anew, this often at most. In milliseconds. */
const RENEW = 1500;

const FIELDS = /** @type {[string, string, string, string?][]} */ ([
  ["q", "Search", "in task, arguments, notes, error", "broad"],
  ["task", "Task", "import"],
  ["queue", "Queue", "default"],
  ["note", "Note", "rack or rack=3"],
]);
const FURTHER = /** @type {[string, string, string, string?][]} */ ([
  ["arg", "Argument", "/0/serial=ABC"],
  ["id", "Ids", "1, 2, 3"],
  ["origin", "Enqueued by", "id of a job"],
  ["enqueued_after", "Enqueued from", "2026-11-28 08:00"],
  ["enqueued_before", "Enqueued before", ""],
  ["ended_after", "Ended from", ""],
  ["ended_before", "Ended before", ""],
]);

/** @param {{query: Record<string, string>}} props */
function States({ query }) {
  const { data } = useLoad("/api/v1/stats", { every: 3000 });
  const waiting = data ? Math.max(0, data.inactive - data.delayed - data.blocked) : null;
  const all = data ? data.inactive + data.active + data.finished + data.failed + data.cancelled : null;
  const chips = /** @type {[string, Record<string, string>, number | null][]} */ ([
    ["all", { state: "", phase: "" }, all],
    ["ready", { state: "inactive", phase: "ready" }, waiting],
    ["delayed", { state: "inactive", phase: "delayed" }, data?.delayed],
    ["blocked", { state: "inactive", phase: "blocked" }, data?.blocked],
    ...["active", "finished", "failed", "cancelled"].map((s) => [s, { state: s, phase: "" }, data?.[s]]),
  ]);
  return html`<nav class="chips" aria-label="States">${chips.map(([word, part, many]) => {
    const here = (query.state ?? "") === part.state && (query.phase ?? "") === part.phase;
    return html`<a href=${write("jobs", "", { ...query, ...part })} aria-current=${here ? "true" : undefined}>${word} <b>${count(many)}</b></a>`;
  })}</nav>`;
}

/** @param {{query: Record<string, string>}} props */
function Filters({ query }) {
  const [further, setFurther] = useState(FURTHER.some(([name]) => query[name]));
  const [typed, setTyped] = useState(query);
  const known = JSON.stringify(query);
  useEffect(() => setTyped(query), [known]);
  const go = (/** @type {Event} */ event) => {
    event.preventDefault();
    location.hash = write("jobs", "", typed);
  };
  const field = (/** @type {[string, string, string, string?]} */ [name, label, hint, kind], /** @type {number} */ i) => html`<div class=${`field ${kind ?? ""}`}>
    <label for=${`f-${name}`}>${label}</label>
    <input id=${`f-${name}`} type="search" placeholder=${hint} autocomplete="off" spellcheck="false" data-search=${name === "q" && i === 0 ? "yes" : undefined} value=${typed[name] ?? ""}
      onInput=${(/** @type {any} */ e) => setTyped((now) => ({ ...now, [name]: e.target.value }))} /></div>`;
  return html`<form class="filters" role="search" aria-label="Jobs" onSubmit=${go}>${FIELDS.map(field)}${further && FURTHER.map((f) => field(f, 1))}
    <button type="submit">Apply</button>
      <button type="button" class="bare" aria-expanded=${further ? "true" : "false"} onClick=${() => setFurther(!further)}>
      ${further ? "Fewer" : "More"} filters</button>
    ${some(query) && html`<a class="button" href=${write("jobs")}>Clear</a>`}</form>`;
}

/** All rows, when older ones were asked for: the first page as it was then, and what came behind it.
 * @typedef {{path: string, rows: any[], next: number | null, busy: boolean, error: any}} Further */

/**
 * The jobs of rows as they are now; one that is not there any more was removed.
 * @param {any[]} rows @returns {Promise<[number, any][]>}
 */
async function asTheyAre(rows) {
  /** @type {[number, any][]} */
  const found = [];
  for (let i = 0; i < rows.length; i += IDS_MAX) {
    const some = rows.slice(i, i + IDS_MAX);
    const { jobs } = await get(at("/api/v1/jobs", { id: some.map((r) => r.id), limit: IDS_MAX }));
    const known = new Map(jobs.map((/** @type {any} */ j) => [j.id, j]));
    found.push(...some.map((row) => /** @type {[number, any]} */ ([row.id, known.get(row.id) ?? { ...row, state: "removed", phase: null }])));
  }
  return found;
}

/**
 * The rows, kept fresh: those that are shown follow their events at once, and the first page is read anew after some.
 * @param {Record<string, string>} query @param {boolean} paused
 */
function useRows(query, paused) {
  const path = at("/api/v1/jobs", { ...asked(query), limit: PAGE });
  const first = useLoad(path);
  const [further, setFurther] = useState(/** @type {Further | null} */ (null));
  const older = further?.path === path ? further : null;
  const [changed, setChanged] = useState(/** @type {ReadonlyMap<number, any>} */ (new Map()));
  const listed = /** @type {any[]} */ (older ? older.rows : (first.data?.jobs ?? []));
  const hold = useRef({ paused, deep: false, listed, changed, reload: first.reload });
  hold.current = { paused, deep: older !== null, listed, changed, reload: first.reload };
  useEffect(() => setFurther(null), [path]);
  // a node that comes back may be asked a little too early
  useEffect(() => {
    if (!first.error || (first.error.status !== 0 && first.error.status < 500)) return;
    const timer = setTimeout(() => document.hidden || first.reload(), AGAIN);
    return () => clearTimeout(timer);
  }, [first.error]);
  // what is read anew has it all; older rows are read anew only when something was missed
  useEffect(() => {
    if (!hold.current.deep) setChanged(new Map());
  }, [first.data]);
  useEffect(() => {
    let [timer, again, over] = [0, 0, false];
    // events were missed: older rows are read anew, too, until that succeeds
    const missed = () => {
      clearTimeout(again);
      hold.current.reload();
      if (!hold.current.deep) return;
      const { listed, changed: before } = hold.current;
      // what an event has told meanwhile is newer
      const newer = (/** @type {ReadonlyMap<number, any>} */ now) => [...now].filter(([id, job]) => before.get(id) !== job);
      asTheyAre(listed).then(
        (found) => over || setChanged((now) => new Map([...now, ...found, ...newer(now)])),
        () => over || (again = window.setTimeout(missed, AGAIN)),
      );
    };
    const renew = () => {
      timer = 0;
      if (!hold.current.paused && !hold.current.deep && !document.hidden) hold.current.reload();
    };
    const stop = onTasks((events) => {
      setChanged((now) => {
        const next = new Map(now);
        for (const event of events) next.set(event.data.id, event.type === "task.removed" ? { ...event.data, state: "removed" } : event.data);
        return next.size > ROWS_MAX * 2 ? narrowed(next, hold.current.listed) : next;
      });
      timer ||= window.setTimeout(renew, RENEW);
    }, missed);
    return () => {
      over = true;
      stop();
      clearTimeout(timer);
      clearTimeout(again);
    };
  }, [path]);
  const rows = useMemo(() => listed.map((row) => {
    // the list does not tell the phase, but what was asked for
    const one = row.state === "inactive" && query.phase && !query.phase.includes(",") ? { ...row, phase: query.phase } : row;
    return changed.has(row.id) ? renewed(one, changed.get(row.id)) : one;
  }), [listed, changed, query.phase]);
  const still = useRef(rows);
  if (!paused) still.current = rows;
  const next = older ? older.next : (first.data?.next ?? null);
  const more = async () => {
    /** @type {Further} */
    const begun = { path, rows: listed, next, busy: true, error: null };
    // another filter, or a way back to the newest: the answer is nobody's then
    const end = (/** @type {Partial<Further>} */ part) => setFurther((now) => (now === begun ? { ...begun, busy: false, ...part } : now));
    setFurther(begun);
    try {
      const answer = await get(at("/api/v1/jobs", { ...asked(query), limit: PAGE, before: next }));
      end({ rows: [...listed, ...answer.jobs], next: answer.next });
    } catch (error) {
      end({ error });
    }
  };
  const newest = () => {
    setFurther(null);
    first.reload();
  };
  return { rows: paused ? still.current : rows, next, more, older, first, newest };
}

/** Those that are shown, and the newest of the others: they may be on the next page. @param {Map<number, any>} changed @param {any[]} listed */
function narrowed(changed, listed) {
  const shown = new Set(listed.map((row) => row.id));
  const others = [...changed].filter(([id]) => !shown.has(id)).slice(-ROWS_MAX / 2);
  return new Map([...others, ...[...changed].filter(([id]) => shown.has(id))]);
}

/** @param {any} job */
function told(job) {
  if (job.state === "active" && job.progress) return html`<${Progress} percent=${job.progress.percent} text=${job.progress.text} />`;
  const words = gist(job);
  return html`<span class="mono soft" title=${words}>${words}</span>`;
}

/** @param {number} id @param {boolean} on @param {(id: number, on: boolean) => void} pick */
const box = (id, on, pick) => html`<input type="checkbox" aria-label=${`Select job ${id}`} checked=${on}
  onChange=${(/** @type {any} */ e) => pick(id, e.target.checked)} />`;

/** @param {any} picked @param {(id: number, on: boolean) => void} pick @param {boolean} may */
const columns = (picked, pick, may) => [
  ...(may ? [{ title: "", kind: "pick", cell: (/** @type {any} */ j) => box(j.id, picked.has(j.id), pick) }] : []),
  { title: "Job", kind: "lead", cell: (/** @type {any} */ j) => html`<a data-open href=${write("jobs", j.id)}>#${j.id}</a>` },
  { title: "Task", kind: "lead", cell: (/** @type {any} */ j) => html`<span class="mono" title=${j.task}>${j.task}</span>` },
  { title: "State", kind: "lead", cell: (/** @type {any} */ j) => html`<${State} job=${j} />` },
  { title: "Queue", cell: (/** @type {any} */ j) => html`<span class="cut" title=${j.queue}>${j.queue}</span>` },
  { title: "Try", kind: "number", cell: (/** @type {any} */ j) => `${j.attempt}/${j.attempts}` },
  { title: "Enqueued", kind: "no-wrap", cell: (/** @type {any} */ j) => html`<${Time} at=${j.created} />` },
  { title: "Ended", kind: "no-wrap", cell: (/** @type {any} */ j) => html`<${Time} at=${j.finished} />` },
  { title: "Result, error, progress", kind: "wide", cell: told },
];

/** @param {{query: Record<string, string>}} props */
export function Jobs({ query }) {
  const [paused, setPaused] = useState(false);
  const [picked, setPicked] = useState(/** @type {ReadonlySet<number>} */ (new Set()));
  const [task, setTask] = useState(/** @type {import("../parts/bulk.js").Task | null} */ (null));
  const { rows, next, more, older, first, newest } = useRows(query, paused);
  const may = useMay("jobs:write");
  const filtered = some(query);
  // nothing is done to what is no longer seen
  useEffect(() => setPicked(new Set()), [JSON.stringify(asked(query))]);
  const pick = (/** @type {number} */ id, /** @type {boolean} */ on) => setPicked((now) => (on ? new Set([...now, id]) : new Set([...now].filter((n) => n !== id))));
  const begin = (/** @type {"retry" | "cancel" | "remove"} */ action) =>
    setTask({
      action, ids: picked.size > 0 ? [...picked] : null, filter: body(query),
      words: picked.size > 0 ? `The ${count(picked.size)} that you selected.` : `All that match: ${Object.entries(asked(query)).map(([k, v]) => `${k}=${v}`).join(", ")}.`,
    });
  const ended = (/** @type {boolean} */ done) => {
    setTask(null);
    if (!done) return;
    setPicked(new Set());
    newest();
  };
  return html`<${Head} title="Jobs">
    <button type="button" data-pause aria-pressed=${paused ? "true" : "false"} onClick=${() => (paused && first.reload(), setPaused(!paused))}>
    ${paused ? "Go on" : "Pause"}</button>
      ${may && html`<a class="button main" href=${write("enqueue")}>Enqueue</a>`}</${Head}>
    <${States} query=${query} /><${Filters} query=${query} /><${Failure} error=${first.error ?? older?.error} />
    <${Table} label="Jobs" columns=${columns(picked, pick, may)} rows=${rows} id=${(/** @type {any} */ j) => j.id} mark=${(/** @type {any} */ j) => (picked.has(j.id) ? "selected" : undefined)} />
    ${rows.length === 0 && !first.error && html`<p class="empty" aria-busy=${first.loading ? "true" : "false"}>
      ${first.loading ? "Loading…" : next ? "None so far: the server has looked at a part." : filtered ? "No job matches." : "No job yet."}</p>`}
    <div class="more">${next !== null && rows.length < ROWS_MAX && html`<button type="button" disabled=${older?.busy} onClick=${more}>
      ${rows.length === 0 ? "Look further" : "Older ones"}</button>`}
      ${older && html`<button type="button" onClick=${newest}>Back to the newest</button>`}
      ${rows.length > 0 && html`<span class="soft">${count(rows.length)} shown${next === null ? ", that is all" : ""}</span>`}</div>
    ${may && (picked.size > 0 || (filtered && rows.length > 0)) && html`<div class="bulk" role="group" aria-label="Actions on many">
      <span>${picked.size > 0 ? html`<b>${picked.size}</b> selected` : "All that match"}</span>
      <button type="button" onClick=${() => begin("retry")}>Retry…</button><button type="button" onClick=${() => begin("cancel")}>Cancel…</button>
        <button type="button" class="harmful" onClick=${() => begin("remove")}>Remove…</button>
      ${picked.size > 0 && html`<button type="button" class="bare" onClick=${() => setPicked(new Set())}>Select none</button>`}
      ${picked.size < rows.length && html`<button type="button" class="bare" onClick=${() => setPicked(new Set(rows.map((j) => j.id)))}>Select what is shown</button>`}</div>`}
    ${task && html`<${Bulk} task=${task} close=${ended} />`}`;
}
