// @ts-check
// A new job: its task, its arguments by the task's schema or as JSON, and the options that people use by hand.

import { get, post, useLoad } from "../lib/api.js";
import { useSchema } from "../lib/catalogue.js";
import { html, useEffect, useMemo, useState } from "../lib/html.js";
import { HIDDEN, hidden } from "../lib/hidden.js";
import { useMay } from "../lib/may.js";
import { write } from "../lib/route.js";
import { Failure, Head } from "../parts/bits.js";
import { Document } from "../parts/form.js";
import { say } from "../parts/toast.js";

const OPTIONS = /** @type {[string, string, string, "text" | "number" | "ids" | "json"][]} */ ([
  ["queue", "Queue", "default", "text"],
  ["priority", "Priority", "0", "number"],
  ["delay", "Delay", "90s, 5m", "text"],
  ["attempts", "Attempts", "1", "number"],
  ["timeout", "Time-out", "10m", "text"],
  ["expire", "Expires after", "1h", "text"],
  ["key", "Key", "unique while it lives", "text"],
  ["parents", "Parents", "ids: 1, 2", "ids"],
  ["notes", "Notes", '{"rack": 3}', "json"],
]);

/** So many places are named. */
const MASKED_SHOWN = 5;

/** @param {Record<string, string>} typed @returns {Record<string, any>} */
function options(typed) {
  /** @type {Record<string, any>} */
  const out = {};
  for (const [name, label, , kind] of OPTIONS) {
    const said = typed[name]?.trim();
    if (!said) continue;
    if (kind === "number") out[name] = Number(said);
    else if (kind === "ids") out[name] = said.split(/[\s,]+/).filter(Boolean).map(Number);
    else if (kind === "json") {
      try {
        out[name] = JSON.parse(said);
      } catch {
        throw new Error(`${label} is no JSON.`);
      }
    } else out[name] = said;
  }
  return out;
}

/** @param {{query: Record<string, string>}} props */
export function Enqueue({ query }) {
  const may = useMay("jobs:write");
  const [task, setTask] = useState(query.task ?? "");
  const [settled, settle] = useState(task);
  const [typed, setTyped] = useState(/** @type {Record<string, string>} */ ({}));
  const [args, setArgs] = useState({ document: /** @type {any} */ ([]), ok: true, made: true });
  const [like, setLike] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  const workers = useLoad("/api/v1/workers?limit=1000");
  const tasks = useMemo(() => [...new Set((workers.data?.workers ?? []).flatMap((/** @type {any} */ w) => w.tasks ?? []))].sort(), [workers.data]);
  const { schema, entry, error: unknown } = useSchema("tasks", settled);
  useEffect(() => {
    const timer = setTimeout(() => settle(task.trim()), 250);
    return () => clearTimeout(timer);
  }, [task]);
  useEffect(() => {
    if (!query.like) return;
    get(`/api/v1/jobs/${encodeURIComponent(query.like)}`).then((job) => {
      setLike(job);
      setTask(job.task);
      setTyped({ queue: job.queue, priority: String(job.priority), attempts: String(job.attempts), notes: "" });
    }, setError);
  }, [query.like]);
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const job = await post("/api/v1/jobs", { task: task.trim(), args: args.document, ...options(typed) });
      say(job.existing ? `Job ${job.id} holds this key already.` : `Job ${job.id} was enqueued.`);
      location.hash = write("jobs", job.id);
    } catch (e) {
      setError(e);
      setBusy(false);
    }
  };
  // such a place can be left out by hand, not in silence: what stands behind it would move up
  const masked = like ? hidden(args.document) : [];
  const initial = like ? JSON.stringify(like.args, null, 2) : "[]";
  return html`<${Head} title="Enqueue a job" about=${like ? `Like job ${like.id}.` : undefined} />
    ${!may && html`<p class="failure" role="status">This token may look at jobs, and not enqueue any.</p>`}
    <form class="form panel" onSubmit=${submit}><div class="body">
      <div class="field"><label for="task">Task<span class="need" title="needed">*</span></label>
        <input id="task" required autocomplete="off" spellcheck="false" list="tasks" data-search value=${task} onInput=${(/** @type {any} */ e) => setTask(e.target.value)} />
        <datalist id="tasks">${tasks.map((t) => html`<option value=${t}></option>`)}</datalist>
        <small>${entry ? html`Its arguments are judged by <a href=${write("schemas", entry.path)}>
          ${entry.title ?? entry.path}</a>.` : settled && tasks.length > 0 && !workers.data?.next && !tasks.includes(settled) ? "No living worker has said that it knows this task." : "Those that living workers know are offered."}</small></div>
      <${Failure} error=${unknown} what="Its schema is not known." />
      <${Document} key=${`${entry?.url ?? ""}${like?.id ?? ""}`} schema=${like ? null : schema} label="Arguments" initial=${initial} rows=${like ? 10 : 5} change=${setArgs} />
      ${masked.length > 0 && html`<p class="failure" role="status">Job ${like.id} shows ${HIDDEN} where something is kept from sight. Put in what belongs there, or take it out:
        <code>${masked.slice(0, MASKED_SHOWN).join(" ")}</code>${masked.length > MASKED_SHOWN ? " and more" : ""}</p>`}
      <div class="fields">${OPTIONS.map(
        ([name, label, hint, kind]) => html`<div class="field"><label for=${`o-${name}`}>${label}</label>
          <input id=${`o-${name}`} class=${kind === "json" ? "mono" : ""} inputmode=${kind === "number" ? "numeric" : undefined} placeholder=${hint} autocomplete="off" value=${typed[name] ?? ""}
          onInput=${(/** @type {any} */ e) => setTyped((now) => ({ ...now, [name]: e.target.value }))} /></div>`,
      )}</div>
      <${Failure} error=${error} what="Not enqueued." />
      <footer><button type="submit" class="main" disabled=${!may || busy || !task.trim() || !args.ok || masked.length > 0}>Enqueue</button></footer>
    </div></form>`;
}
