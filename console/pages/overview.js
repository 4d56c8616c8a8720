// @ts-check
// What goes on: counts that lead to their jobs, rates and times of the last hour, the last day, who works, what is down.

import { ask, useLoad } from "../lib/api.js";
import { Figures, PIECE } from "../lib/figures.js";
import { clock, count, gist, rate, span } from "../lib/format.js";
import { html, useEffect, useMemo, useRef, useState } from "../lib/html.js";
import { onTasks } from "../lib/live.js";
import { write } from "../lib/route.js";
import { useStore } from "../lib/store.js";
import { Dot, Failure, Head, now } from "../parts/bits.js";
import { Chart } from "../parts/chart.js";

/** One hour of events, for as long as the page is open, whichever page is shown. */
const figures = new Figures();
/** The newest events, for the list. @type {any[]} */
let recent = [];
const RECENT_MAX = 20;
/** What was counted up to. @type {string} */
let counted = "";

onTasks((events) => {
  // a stream that begins anew says once more what was heard
  const fresh = events.filter((event) => {
    const place = `${event.epoch}:${event.sequence}`;
    if (place <= counted && event.epoch === counted.split(":")[0]) return false;
    counted = place;
    return true;
  });
  fresh.forEach((event) => figures.add(event));
  recent = [...fresh.slice(-RECENT_MAX).reverse(), ...recent].slice(0, RECENT_MAX);
});

const WINDOWS = /** @type {[string, number, number][]} */ ([["5 min", 300, 5], ["15 min", 900, 15], ["1 h", 3600, 60]]);
const RATES = [
  { label: "enqueued", colour: "--c-enqueued" },
  { label: "finished", colour: "--c-finished", fill: true },
  { label: "failed", colour: "--c-failed" },
];
const TIMES = [
  { label: "wait, median", colour: "--c-wait" },
  { label: "wait, 95 %", colour: "--c-wait", dash: [4, 3] },
  { label: "run, median", colour: "--c-run" },
  { label: "run, 95 %", colour: "--c-run", dash: [4, 3] },
];
const DAY = [
  { label: "finished", colour: "--c-finished", bars: true },
  { label: "failed", colour: "--c-failed", bars: true },
];

/** @param {{stats: any}} props */
function Tiles({ stats }) {
  const ready = stats ? Math.max(0, stats.inactive - stats.delayed - stats.blocked) : null;
  const tiles = /** @type {[string, number | null, Record<string, string>, string?][]} */ ([
    ["ready", ready, { state: "inactive", phase: "ready" }],
    ["delayed", stats?.delayed, { state: "inactive", phase: "delayed" }],
    ["blocked", stats?.blocked, { state: "inactive", phase: "blocked" }],
    ["active", stats?.active, { state: "active" }],
    ["finished", stats?.finished, { state: "finished" }],
    ["failed", stats?.failed, { state: "failed" }],
    ["cancelled", stats?.cancelled, { state: "cancelled" }],
  ]);
  return html`<ul class="tiles" aria-label="Jobs by state">${tiles.map(
    ([word, value, query]) => html`<li><a href=${write("jobs", "", query)} data-state=${word} data-some=${value ? "yes" : undefined}><b>
      ${count(value)}</b><span>${word}</span></a></li>`,
  )}</ul>`;
}

/** Redraws at most once in a piece, and at once when another window is chosen. @param {number} length @param {number} step */
function useColumns(length, step) {
  const time = useStore(now);
  const beat = Math.floor(time / 1000 / PIECE);
  const version = figures.version;
  return useMemo(() => figures.columns(time, length, step), [beat, version, length, step]);
}

function Charts() {
  const [which, choose] = useState(0);
  const [, length, step] = WINDOWS[which];
  const c = useColumns(length, step);
  const total = figures.total(Date.now(), length);
  const ratesData = useMemo(() => [c.at, c.enqueued, c.finished, c.failed], [c]);
  const timesData = useMemo(() => [c.at, c.wait50, c.wait95, c.run50, c.run95], [c]);
  const per = (/** @type {number} */ n) => rate(n / length);
  const words = (/** @type {number | null} */ n) => (n === null ? "none" : span(n));
  return html`<section class="panel" aria-labelledby="h-rates"><header><h2 id="h-rates">Throughput and times</h2>
      <div class="choice" role="group" aria-label="Window">
        ${WINDOWS.map(([label], i) => html`<button type="button" aria-pressed=${i === which ? "true" : "false"} onClick=${() => choose(i)}>
        ${label}</button>`)}</div></header>
    <div class="charts">
      <${Chart} key=${`r${which}`} title="Jobs per second" series=${RATES} data=${ratesData} write=${rate}
        words=${`${per(total.enqueued)} enqueued, ${per(total.finished)} finished, ${per(total.failed)} failed on the average`} />
      <${Chart} key=${`t${which}`} title="Wait and run" series=${TIMES} data=${timesData} write=${span} logarithmic=${true}
        words=${`median wait ${words(total.wait50)}, 95 % ${words(total.wait95)}; median run ${words(total.run50)}, 95 % ${words(total.run95)}`} />
    </div>
    <dl class="sums"><div><dt>enqueued</dt><dd>${count(total.enqueued)}</dd></div><div><dt>finished</dt><dd>${count(total.finished)}</dd></div>
      <div><dt>failed</dt><dd>${count(total.failed)}</dd></div><div><dt>wait, median</dt><dd>${words(total.wait50)}</dd></div><div><dt>wait, 95 %</dt>
        <dd>${words(total.wait95)}</dd></div>
      <div><dt>run, median</dt><dd>${words(total.run50)}</dd></div><div><dt>run, 95 %</dt><dd>${words(total.run95)}</dd></div></dl>
  </section>`;
}

function Day() {
  const loaded = useLoad("/api/v1/history", { every: 60_000 });
  const hours = loaded.data?.hours;
  const data = useMemo(() => {
    if (!hours) return null;
    const at = hours.map((/** @type {any} */ h) => Date.parse(h.hour) / 1000);
    // what failed stands in front of the sum, so that both are seen
    return [at, hours.map((/** @type {any} */ h) => h.finished + h.failed), hours.map((/** @type {any} */ h) => h.failed)];
  }, [hours]);
  const sum = (/** @type {string} */ what) => (hours ?? []).reduce((/** @type {number} */ n, /** @type {any} */ h) => n + h[what], 0);
  return html`<section class="panel" aria-labelledby="h-day"><header><h2 id="h-day">The last day</h2><span class="soft">
    ${count(sum("finished"))} finished, ${count(sum("failed"))} failed, ${count(sum("cancelled"))} cancelled</span></header>
    <${Failure} error=${loaded.error} />
      ${data && html`<${Chart} title="Jobs per hour" series=${DAY} data=${data} write=${(/** @type {number} */ n) => count(Math.round(n))} words=${`${sum("finished")} finished, ${sum("failed")} failed`} />`}</section>`;
}

/** What of a node may be down, as /readyz names it. @typedef {{reached: boolean, down: string[], why: string}} Ready */
/** @typedef {{ready: Ready | null, lag: number | null, behind: number | null, delivered: number | null, perSecond: number | null, at: number}} Health_ */

/** What /readyz and /metrics say. */
function useHealth() {
  const [health, set] = useState(/** @type {Health_} */ ({ ready: null, lag: null, behind: null, delivered: null, perSecond: null, at: 0 }));
  const time = useStore(now);
  const beat = Math.floor(time / 5000);
  const over = useRef(false);
  useEffect(() => () => void (over.current = true), []);
  useEffect(() => {
    if (document.hidden) return;
    const look = async () => {
      const ready = await ask("GET", "/readyz").then(() => ({ reached: true, down: [], why: "" }), (e) => ({ reached: e.status === 503, down: e.down, why: e.message }));
      const text = await ask("GET", "/metrics").catch(() => "");
      const gauge = (/** @type {string} */ name) => {
        const found = [...String(text).matchAll(new RegExp(`^${name}(?:{[^}]*})? (\\S+)$`, "gm"))];
        return found.length ? found.reduce((sum, one) => sum + Number(one[1]), 0) : null;
      };
      const [delivered, at] = [gauge("minium_bus_messages_delivered_total"), performance.now()];
      if (over.current) return;
      set((was) => {
        // a node that began anew counts from nothing
        const more = delivered === null || was.delivered === null || at <= was.at ? -1 : delivered - was.delivered;
        const perSecond = more < 0 ? null : more / ((at - was.at) / 1000);
        return { ready, lag: gauge("minium_notifier_journal_lag_seconds"), behind: gauge("minium_notifier_journal_lag_events"), delivered, perSecond, at };
      });
    };
    void look();
  }, [beat]);
  return health;
}

/** @param {{ready: Ready | null, part: string, good: string, bad: string}} props */
function Lamp({ ready, part, good, bad }) {
  if (!ready) return "–";
  if (!ready.reached) return html`<span class="soft">not known</span>`;
  return ready.down.includes(part) ? html`<${Dot} tone="bad" title=${ready.why}>${bad}</${Dot}>` : html`<${Dot} tone="good">${good}</${Dot}>`;
}

/** @param {{stats: any}} props */
function Health({ stats }) {
  const { ready, lag, behind, perSecond } = useHealth();
  const late = lag === null ? "" : behind === 0 ? ", up to date" : `, ${count(behind)} events, ${span(lag)} behind`;
  return html`<section class="panel" aria-labelledby="h-health"><header><h2 id="h-health">Health</h2></header><dl class="facts">
    <dt>Node</dt><dd>${ready && !ready.reached ? html`<${Dot} tone="bad" title=${ready.why}>cannot be reached</${Dot}>` : html`<${Lamp} ready=${ready} part="draining" good="there" bad="ends" />`}</dd>
    <dt>Store</dt><dd><${Lamp} ready=${ready} part="database" good="there" bad="away" /></dd>
    <dt>Notifier</dt><dd><${Lamp} ready=${ready} part="relay" good="relays" bad="stands still" />${late}</dd>
    <dt>Journal</dt><dd class="mono">${stats?.position ?? "–"}</dd>
    <dt>Deliveries</dt><dd>${rate(perSecond)}</dd>
    <dt>Sessions</dt><dd><a href=${write("sessions")}>${count(stats?.sessions)}</a></dd>
    <dt>Schedules</dt><dd><a href=${write("schedules")}>${count(stats?.schedules)}</a>${stats?.inactive_schedules ? html` <span class="soft">
      ${stats.inactive_schedules} paused</span>` : ""}</dd>
    <dt>Locks</dt><dd><a href=${write("locks")}>${count(stats?.active_locks)}</a></dd>
    <dt>Up for</dt><dd>${stats ? span(stats.uptime) : "–"}</dd></dl></section>`;
}

function Crew() {
  const loaded = useLoad("/api/v1/workers?limit=8", { every: 5000 });
  const workers = loaded.data?.workers ?? [];
  return html`<section class="panel" aria-labelledby="h-crew"><header><h2 id="h-crew">Workers</h2><a href=${write("workers")}>all</a></header>
    <${Failure} error=${loaded.error} />
    ${workers.length === 0 && !loaded.loading && html`<p class="empty">No worker is there, so nothing is run.</p>`}
    <ul class="crew">${workers.map(
      (/** @type {any} */ w) => html`<li key=${w.id}>
        <${Dot} tone=${w.state === "stale" ? "bad" : w.paused ? "calm" : w.state === "processing" ? "busy" : "good"}>
        ${w.host}</${Dot}> <span class="soft mono">#${w.id}</span>
        <span class="slots" role="img" aria-label=${`${w.running} of ${w.concurrency} slots`}>
          ${Array.from({ length: Math.min(24, w.concurrency ?? 0) }, (_, i) => html`<i data-on=${i < w.running ? "yes" : undefined}></i>`)}</span>
        <span class="soft">${w.paused ? "paused" : `${w.running}/${w.concurrency ?? "–"}`}</span></li>`,
    )}</ul></section>`;
}

function Recent() {
  const [, draw] = useState(0);
  useEffect(() => onTasks(() => draw((n) => n + 1)), []);
  return html`<section class="panel grow" aria-labelledby="h-recent"><header><h2 id="h-recent">Newest events</h2>
    <a href=${write("topics", "task")}>tail</a></header>
    ${recent.length === 0 && html`<p class="empty">No event yet. <a href=${write("enqueue")}>Enqueue a job</a>, and it shows here.</p>`}
    <ol class="feed">${recent.map(
      (e) => html`<li key=${e.id}><time datetime=${e.time} title=${e.time}>${clock(e.time)}</time>
        <a href=${write("jobs", e.data.id)}>#${e.data.id}</a><span class="task">${e.data.task}</span>
        <span class="state" data-state=${e.data.state} title=${e.data.state}>${e.type.replace(/^task\./, "")}</span><span class="gist mono">
          ${gist(e.data)}</span></li>`,
    )}</ol></section>`;
}

export function Overview() {
  const stats = useLoad("/api/v1/stats", { every: 2000 });
  return html`<${Head} title="Overview"><a class="button main" href=${write("enqueue")}>Enqueue a job</a></${Head}><${Failure} error=${stats.error} />
    <${Tiles} stats=${stats.data} />
    <div class="halves"><div class="stack"><${Charts} /><${Recent} /></div><div class="stack side"><${Health} stats=${stats.data} /><${Crew} />
      <${Day} /></div></div>`;
}
