// @ts-check
// The queues: what waits in each, and which stand still.

import { post, useLoad } from "../lib/api.js";
import { count } from "../lib/format.js";
import { html } from "../lib/html.js";
import { useMay } from "../lib/may.js";
import { write } from "../lib/route.js";
import { Dot, Head, Status, Time } from "../parts/bits.js";
import { Table } from "../parts/table.js";
import { attempt } from "../parts/toast.js";

/** Counted up to there. */
const READY_MAX = 10_000;

export function Queues() {
  const loaded = useLoad("/api/v1/queues", { every: 2000 });
  const limits = useLoad("/api/v1/limits", { every: 5000 });
  const may = useMay("jobs:write");
  const queues = loaded.data?.queues ?? [];
  const bounds = limits.data?.limits ?? [];
  const turn = (/** @type {any} */ q) => {
    const word = q.paused ? "resume" : "pause";
    return attempt(q.paused ? `${q.name} goes on.` : `${q.name} stands still; what runs runs on.`, () => post(`/api/v1/queues/${encodeURIComponent(q.name)}/${word}`)).then(loaded.reload);
  };
  const columns = [
    { title: "Queue", kind: "lead", cell: (/** @type {any} */ q) => html`<a data-open class="mono" href=${write("jobs", "", { queue: q.name })}>
      ${q.name}</a>` },
    { title: "Ready", kind: "number", cell: (/** @type {any} */ q) => html`${count(q.ready)}${q.ready >= READY_MAX ? " or more" : ""}` },
    { title: "State", cell: (/** @type {any} */ q) => (q.paused ? html`<${Dot} tone="calm">paused <${Time} at=${q.paused} /></${Dot}>` : html`<${Dot} tone="good">open</${Dot}>`) },
    ...(may ? [{ title: "", kind: "hand", cell: (/** @type {any} */ q) => html`<button type="button" class="small" onClick=${() => turn(q)}>
      ${q.paused ? "Resume" : "Pause"}</button>` }] : []),
  ];
  const per = (/** @type {any} */ l) => (l.rate ? `${l.rate} in ${l.per} s` : "–");
  const bound = [
    { title: "Task", kind: "lead", cell: (/** @type {any} */ l) => html`<a class="mono" href=${write("jobs", "", { task: l.task })}>${l.task}</a>` },
    { title: "Running", kind: "number", cell: (/** @type {any} */ l) => `${count(l.active)} of ${l.running ?? "–"}` },
    { title: "Each partition", kind: "number", cell: (/** @type {any} */ l) => l.per_partition ?? "–" },
    { title: "Rate", kind: "number", cell: per },
  ];
  return html`<${Head} title="Queues" about="Those with jobs that are ready, and those that are paused." />
    <${Status} loaded=${loaded} many=${queues.length} none="Nothing waits, and nothing is paused." />
    <${Table} label="Queues" columns=${columns} rows=${queues} id=${(/** @type {any} */ q) => q.name} />
    ${bounds.length > 0 && html`<header class="head later"><h2>Limits</h2></header>
      <${Table} label="Limits" columns=${bound} rows=${bounds} id=${(/** @type {any} */ l) => l.task} />`}`;
}
