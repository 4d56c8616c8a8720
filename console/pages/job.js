// @ts-check
// One job: what it is, what became of it and when, why runs failed, what it says, who stands before and behind it.

import { ask, at, get, post, useLoad } from "../lib/api.js";
import { between, clock, gist, line, span } from "../lib/format.js";
import { useGrown } from "../lib/grown.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { onTasks } from "../lib/live.js";
import { useMay } from "../lib/may.js";
import { write } from "../lib/route.js";
import { useStore } from "../lib/store.js";
import { Empty, Failure, Fold, Head, Json, Progress, State, Status, Time, now } from "../parts/bits.js";
import { confirm } from "../parts/dialog.js";
import { Kin } from "../parts/family.js";
import { attempt } from "../parts/toast.js";

const LOG_MAX = 1000;
/** Of the events so many are asked for at once, and shown. */
const [EVENTS_PAGE, EVENTS_MAX] = [500, 1000];

/** Grows while the job's events come. @param {number} id @param {() => void} gone */
function useBeat(id, gone) {
  const [beat, set] = useState(0);
  useEffect(() => onTasks((events) => {
    const mine = events.filter((e) => e.data.id === id);
    if (mine.length > 0) set((n) => n + 1);
    if (mine.some((e) => e.type === "task.removed" || e.type === "task.expired")) gone();
  }, () => set((n) => n + 1)), [id]);
  return beat;
}

/** Asks anew with each beat. @param {string | null} path @param {number} beat */
function useFresh(path, beat) {
  const loaded = useLoad(path);
  const first = useRef(true);
  useEffect(() => {
    if (first.current) first.current = false;
    else loaded.reload();
  }, [beat]);
  return loaded;
}

/** @param {{job: any}} props */
function Facts({ job }) {
  const clockNow = useStore(now);
  const ran = between(job.started, job.finished) ?? (job.state === "active" && job.started ? (clockNow - Date.parse(job.started)) / 1000 : null);
  const rows = /** @type {[string, any][]} */ ([
    ["State", html`<${State} job=${job} />`],
    ["Task", html`<a class="mono" href=${write("jobs", "", { task: job.task })}>${job.task}</a>`],
    ["Queue", html`<a href=${write("jobs", "", { queue: job.queue })}>${job.queue}</a>`],
    ["Attempt", `${job.attempt} of ${job.attempts}${job.retries ? `, retried ${job.retries} times` : ""}`],
    ["Priority", job.priority],
    ["Enqueued", html`<${Time} at=${job.created} />`],
    ...(Date.parse(job.delayed) > Date.parse(job.created) ? [["Not before", html`<${Time} at=${job.delayed} />`]] : []),
    ...(job.expires ? [["Expires", html`<${Time} at=${job.expires} />`]] : []),
    ["Started", html`<${Time} at=${job.started} />`],
    ["Ended", html`<${Time} at=${job.finished} />`],
    ["Waited", span(between(job.retried ?? job.delayed, job.started) ?? NaN)],
    ["Ran", ran === null ? "–" : span(Math.max(0, ran))],
    ["Worker", job.worker ? html`<a href=${write("workers")}>#${job.worker.id}</a> on ${job.worker.host}, pid ${job.worker.pid}` : "–"],
    ...(job.key ? [["Key", html`<span class="mono">${job.key}</span>`]] : []),
    ...(job.schedule ? [["Schedule", html`<a href=${write("schedules")}>${job.schedule}</a>`]] : []),
    ...(job.origin ? [["Enqueued by", html`<a href=${write("jobs", job.origin)}>#${job.origin}</a>`]] : []),
  ]);
  return html`<dl class="facts">${rows.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;
}

/** The job's events behind a position, or all that are kept. @param {number} id @param {string | undefined} task @param {string | null} after */
async function eventsBehind(id, task, after) {
  const page = (/** @type {string | null} */ from) => get(at(`/api/v1/jobs/${id}/events`, { task, after: from, limit: EVENTS_PAGE }));
  let anew = false;
  const answer = await page(after).catch((e) => {
    // another journal, or one that has let go of what lies between
    if (e.status !== 410 || after === null) throw e;
    anew = true;
    return page(null);
  });
  const last = answer.events.at(-1);
  const behind = last ? `${last.epoch}:${Number(last.sequence)}` : after;
  return { items: /** @type {any[]} */ (answer.events), cursor: answer.next ?? behind, more: answer.next !== null && answer.next !== after, anew };
}

/** @param {{id: number, task: string | undefined, beat: number}} props */
function Timeline({ id, task, beat }) {
  const { items: events, cut, error } = useGrown(`${id} ${task}`, beat, EVENTS_MAX, (after) => eventsBehind(id, task, after));
  return html`<section class="panel" aria-labelledby="h-time"><header><h2 id="h-time">Timeline</h2>
    <a href=${write("audit", "", { topic: `task/${task ?? ""}/${id}` })}>journal</a></header>
    <${Failure} error=${error} />
    ${cut && html`<${Empty}>The newest ${EVENTS_MAX} are shown; the journal has those before them.</${Empty}>`}
    ${!cut && events.length > 0 && events[0].type !== "task.enqueue" && html`<${Empty}>What came before is no longer kept.</${Empty}>`}
    <ol class="timeline">${events.map((/** @type {any} */ e, /** @type {number} */ i) => {
      const since = i > 0 ? span((Date.parse(e.time) - Date.parse(events[i - 1].time)) / 1000) : "";
      const said = e.type === "task.progress" ? (e.data.progress ? `${Math.round(e.data.progress.percent)} % ${e.data.progress.text ?? ""}` : "") : e.type === "task.dequeue" ? `attempt ${e.data.attempt} by worker #${e.data.worker?.id ?? "?"}` : /finished|failed|lost|late/.test(e.type) ? gist(e.data) : "";
      return html`<li key=${e.id} data-state=${e.data.state}><span class="what">${e.type.replace(/^task\./, "")}</span>
        <span><${Time} at=${e.time} />${since ? html` <span class="soft">+${since}</span>` : ""} ${said && html`<span class="mono soft">
          ${line(said, 160)}</span>`}</span></li>`;
    })}</ol></section>`;
}

/** @param {{id: number, beat: number}} props */
function Failures({ id, beat }) {
  const loaded = useFresh(`/api/v1/jobs/${id}/failures`, beat);
  const failures = loaded.data?.failures ?? [];
  if (failures.length === 0 && !loaded.error) return null;
  return html`<section class="panel" aria-labelledby="h-fail"><header><h2 id="h-fail">Why runs failed</h2></header>
    <${Status} loaded=${loaded} many=${failures.length} /><div class="body">${failures.map(
    (/** @type {any} */ f) => html`<div><p><b>Attempt ${f.attempt}</b> <span class="soft"><${Time} at=${f.at} />
      ${f.worker ? ` on ${f.worker.host ?? `worker ${f.worker.id ?? f.worker}`}` : ""}</span></p>
      <${Json} value=${f.backtrace ? `${f.error}\n\n${typeof f.backtrace === "string" ? f.backtrace : JSON.stringify(f.backtrace, null, 2)}` : f.error} label=${`Error of attempt ${f.attempt}`} /></div>`,
  )}</div></section>`;
}

/** @param {{id: number, beat: number}} props */
function Log({ id, beat }) {
  const [dropped, setDropped] = useState(0);
  const box = useRef(/** @type {any} */ (null));
  const { items: lines, error } = useGrown(String(id), beat, LOG_MAX, async (/** @type {number | null} */ last) => {
    const answer = await get(at(`/api/v1/jobs/${id}/log`, { after: last ?? 0, limit: LOG_MAX }));
    const fresh = /** @type {any[]} */ (answer.lines.filter((/** @type {any} */ l) => l.n > (last ?? 0)));
    setDropped(answer.dropped);
    return { items: fresh, cursor: fresh.at(-1)?.n ?? last, more: answer.next !== null && fresh.length > 0 };
  });
  // who reads further up is left there
  useEffect(() => {
    const list = box.current;
    if (list && list.scrollHeight - list.scrollTop - list.clientHeight < 160) list.scrollTop = list.scrollHeight;
  }, [lines]);
  return html`<section class="panel" aria-labelledby="h-log"><header><h2 id="h-log">Log</h2><span class="soft">
    ${lines.length > 0 ? `${lines.length} ${lines.length === 1 ? "line" : "lines"}${dropped ? `, ${dropped} older ones are gone` : ""}` : ""}</span></header>
    <${Failure} error=${error} />
    ${lines.length === 0 ? html`<${Empty}>It has said nothing.</${Empty}>` : html`<ol class="log" ref=${box} tabindex="0" aria-label="Log lines">
      ${lines.map(
      (l) => html`<li key=${l.n} data-level=${l.level}><time datetime=${l.at} title=${l.at}>${clock(l.at)}</time><span class="level">${l.level}</span>
        <span class="said">${l.text}</span></li>`,
    )}</ol>`}</section>`;
}

/** @param {{job: any, reload: () => void}} props */
function Acts({ job, reload }) {
  if (!useMay("jobs:write")) return html`<span class="soft">read only</span>`;
  const path = `/api/v1/jobs/${job.id}`;
  const act = (/** @type {string} */ done, /** @type {() => Promise<any>} */ does) => attempt(done, does).then(reload);
  const remove = () => confirm({
    title: `Remove job ${job.id}?`, text: "Its row, log and failures go. The journal keeps its events for as long as it keeps any.", yes: "Remove", harmful: true,
    act: async () => {
      await ask("DELETE", path);
      location.hash = write("jobs");
    },
  });
  const cascade = () => confirm({
    title: `Cancel job ${job.id} and all that it enqueued?`, text: "What has ended stays as it is.", yes: "Cancel them", harmful: true,
    act: () => post(`${path}/cancel`, { cascade: true }).then(reload),
  });
  return html`<button type="button" disabled=${job.state === "active"} onClick=${() => act(`Job ${job.id} waits again.`, () => post(`${path}/retry`))}>Retry</button>
    <button type="button" disabled=${!["inactive", "active"].includes(job.state)} onClick=${() => act(`Job ${job.id} was cancelled.`, () => post(`${path}/cancel`))}>Cancel</button>
    <button type="button" onClick=${cascade}>Cancel all of it…</button>
    <button type="button" class="harmful" disabled=${job.state === "active"} onClick=${remove}>Remove…</button>
    <a class="button" href=${write("enqueue", "", { like: job.id })}>Enqueue like it</a>`;
}

/** @param {{rest: string}} props */
export function Job({ rest }) {
  const id = Number(rest);
  const [gone, setGone] = useState(false);
  const beat = useBeat(id, () => setGone(true));
  const loaded = useFresh(Number.isInteger(id) && !gone ? `/api/v1/jobs/${id}` : null, beat);
  const last = useRef(/** @type {any} */ (null));
  if (loaded.data) last.current = loaded.data;
  const job = last.current;
  if (!job) {
    const words = loaded.error?.status === 404 ? html`There is no job ${rest}, or no longer. <a href=${write("audit", "", { topic: "task" })}>The journal</a> may still know of it.` : null;
    return html`<${Head} title=${`Job ${rest}`} />${words ? html`<${Empty}>${words}</${Empty}>` : html`<${Failure} error=${loaded.error} />`}`;
  }
  const notes = Object.keys(job.notes ?? {}).length > 0;
  return html`<${Head} title=${`Job ${id}`} about=${html`<span class="mono">${job.task}</span>`}>
    ${!gone && html`<${Acts} job=${job} reload=${loaded.reload} />`}</${Head}>
    ${!gone && html`<${Status} loaded=${loaded} many=${1} />`}
    ${gone && html`<p class="failure" role="status">This job was removed. What is shown is the last that was known.</p>`}
    <div class="halves even"><div class="stack">
      <section class="panel" aria-labelledby="h-job"><header><h2 id="h-job">The job</h2>${job.state === "active" && job.progress && html`<span>
        <${Progress} percent=${job.progress.percent} text=${job.progress.text} /></span>`}</header><${Facts} job=${job} /></section>
      ${job.error && html`<section class="panel" aria-labelledby="h-error"><header><h2 id="h-error">Error</h2></header><div class="body">
        <${Json} value=${job.error} label="Error" /></div></section>`}
      ${job.result !== null && job.result !== undefined && html`<section class="panel" aria-labelledby="h-result"><header>
        <h2 id="h-result">Result</h2></header><div class="body"><${Json} value=${job.result} label="Result" /></div></section>`}
      <section class="panel" aria-labelledby="h-args"><header><h2 id="h-args">Arguments</h2></header><div class="body">
        <${Json} value=${job.args} label="Arguments" /></div></section>
      ${notes && html`<section class="panel" aria-labelledby="h-notes"><header><h2 id="h-notes">Notes</h2></header><dl class="facts">
        ${Object.entries(job.notes).map(([name, value]) => html`<dt class="mono">${name}</dt><dd>
        ${typeof value === "object" ? html`<${Fold} value=${value} label=${name} />` : html`<span class="mono">
        ${String(value)}</span>`}</dd>`)}</dl></section>`}
    </div><div class="stack"><${Timeline} id=${id} task=${job.task} beat=${beat} /><${Kin} job=${job} />${!gone && html`<${Failures} id=${id} beat=${beat} />
      <${Log} id=${id} beat=${beat} />`}</div></div>`;
}
