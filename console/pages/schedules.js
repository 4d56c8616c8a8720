// @ts-check
// What repeats: when it fires next, what it did last, and a hand on it.

import { ask, post } from "../lib/api.js";
import { span } from "../lib/format.js";
import { html } from "../lib/html.js";
import { useList } from "../lib/list.js";
import { useMay } from "../lib/may.js";
import { write } from "../lib/route.js";
import { Dot, Head, Status, Time } from "../parts/bits.js";
import { confirm } from "../parts/dialog.js";
import { More } from "../parts/more.js";
import { Table } from "../parts/table.js";
import { attempt } from "../parts/toast.js";

const PAGE = 500;

export function Schedules() {
  const loaded = useList("/api/v1/schedules", "schedules", { limit: PAGE, every: 3000 });
  const may = useMay("jobs:write");
  const schedules = loaded.rows;
  const path = (/** @type {any} */ s) => `/api/v1/schedules/${encodeURIComponent(s.name)}`;
  const turn = (/** @type {any} */ s) => attempt(s.paused ? `${s.name} goes on.` : `${s.name} fires no more until it is resumed.`, () => post(`${path(s)}/${s.paused ? "resume" : "pause"}`)).then(loaded.reload);
  const run = async (/** @type {any} */ s) => {
    const job = await attempt(`${s.name}: its job was enqueued.`, () => post(`${path(s)}/run`));
    if (job?.id) location.hash = write("jobs", job.id);
  };
  const remove = (/** @type {any} */ s) => confirm({ title: `Remove ${s.name}?`, text: "It fires no more. Its jobs stay.", yes: "Remove", harmful: true, act: () => ask("DELETE", path(s)).then(loaded.reload) });
  const columns = [
    { title: "Schedule", kind: "lead", cell: (/** @type {any} */ s) => html`<b>${s.name}</b>
      ${s.configured ? html` <span class="soft" title="It stands in a node's configuration.">configured</span>` : ""}` },
    { title: "Task", kind: "lead", cell: (/** @type {any} */ s) => html`<a class="mono" href=${write("jobs", "", { task: s.task })}>${s.task}</a>` },
    { title: "When", cell: (/** @type {any} */ s) => (s.cron ? html`<span class="mono">${s.cron}</span> <span class="soft">
      ${s.zone}</span>` : `every ${span(s.every)}`) },
    { title: "State", cell: (/** @type {any} */ s) => html`<${Dot} tone=${s.paused ? "calm" : "good"}>${s.paused ? "paused" : "on"}</${Dot}>` },
    { title: "Next", kind: "no-wrap", cell: (/** @type {any} */ s) => (s.paused ? "–" : html`<${Time} at=${s.due} />`) },
    { title: "Fired", kind: "no-wrap", cell: (/** @type {any} */ s) => html`<${Time} at=${s.fired} none="never" />` },
    { title: "Last job", cell: (/** @type {any} */ s) => (s.job ? html`<a data-open href=${write("jobs", s.job)}>#${s.job}</a>` : "–") },
    ...(may ? [{ title: "", kind: "hand", cell: (/** @type {any} */ s) => html`<button type="button" class="small" onClick=${() => run(s)}>Run now</button>
      <button type="button" class="small" onClick=${() => turn(s)}>${s.paused ? "Resume" : "Pause"}</button>
      ${!s.configured && html`<button type="button" class="small harmful" onClick=${() => remove(s)}>Remove…</button>`}` }] : []),
  ];
  return html`<${Head} title="Schedules" />
    <${Status} loaded=${loaded} many=${schedules.length} none=${html`Nothing repeats. <code>minium schedule put</code> or <code>[schedules.NAME]</code> in the configuration makes one.`} />
    <${Table} label="Schedules" columns=${columns} rows=${schedules} id=${(/** @type {any} */ s) => s.name} /><${More} list=${loaded} />`;
}
