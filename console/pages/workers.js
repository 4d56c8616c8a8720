// @ts-check
// The workers: what each does, and what it can be told.

import { post } from "../lib/api.js";
import { count } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { useList } from "../lib/list.js";
import { useMay } from "../lib/may.js";
import { write } from "../lib/route.js";
import { Dot, Failure, Head, Status, Time } from "../parts/bits.js";
import { Dialog, confirm } from "../parts/dialog.js";
import { More } from "../parts/more.js";
import { Table } from "../parts/table.js";
import { attempt, say } from "../parts/toast.js";

const COMMANDS = /** @type {[string, string, string[]][]} */ ([
  ["pause", "Claims nothing more; what runs runs on.", []],
  ["resume", "Claims again.", []],
  ["concurrency", "Runs so many at once; 0 is a pause.", ["number of slots"]],
  ["spare", "Keeps so many further slots for urgent jobs.", ["number of slots"]],
  ["stop", "Ends the run of one job, which fails.", ["id of the job"]],
  ["signal", "Sends a signal to one job's process.", ["id of the job", "INT, TERM, KILL, USR1, USR2 or HUP"]],
  ["shutdown", "Ends the worker as SIGTERM does.", []],
]);

/** @param {string} text */
const valued = (text) => (/^\d+$/.test(text) ? Number(text) : text);

/** @param {{to: any, close: () => void, reload: () => void}} props `to` is a worker, or null for all. */
function Tell({ to, close, reload }) {
  const [word, setWord] = useState("pause");
  const [own, setOwn] = useState("");
  const [args, setArgs] = useState(["", ""]);
  const [error, setError] = useState(/** @type {any} */ (null));
  const known = COMMANDS.find(([name]) => name === word);
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const command = word === "" ? own.trim() : word;
    const given = known ? known[2].map((_, i) => valued(args[i].trim())) : args[0].trim() ? args[0].trim().split(/\s+/).map(valued) : [];
    try {
      const path = to ? `/api/v1/workers/${to.id}/command` : "/api/v1/workers:broadcast";
      const { sent } = await post(path, { command, args: given });
      say(`${command} stands in ${count(sent)} ${sent === 1 ? "inbox" : "inboxes"}.`);
      reload();
      close();
    } catch (e) {
      setError(e);
    }
  };
  const field = (/** @type {string} */ label, /** @type {number} */ i) => html`<div class="field"><label for=${`a${i}`}>
    ${label[0].toUpperCase() + label.slice(1)}</label>
    <input id=${`a${i}`} autocomplete="off" value=${args[i]} onInput=${(/** @type {any} */ e) => setArgs((now) => now.map((v, n) => (n === i ? e.target.value : v)))} /></div>`;
  return html`<${Dialog} title=${to ? `Tell worker ${to.id} on ${to.host}` : "Tell all workers"} close=${close}><form onSubmit=${submit}>
    <div class="field"><label for="word">Command</label><select id="word" value=${word} onChange=${(/** @type {any} */ e) => setWord(e.target.value)}>
      ${COMMANDS.map(([name]) => html`<option value=${name}>${name}</option>`)}<option value="">one of the program's own</option></select><small>
      ${known ? known[1] : "A worker that does not know it logs that and goes on."}</small></div>
    ${!known && html`<div class="field"><label for="own">Name</label>
      <input id="own" required autocomplete="off" value=${own} onInput=${(/** @type {any} */ e) => setOwn(e.target.value)} /></div>`}
    ${known ? known[2].map(field) : field("arguments, parted by blanks", 0)}
    <${Failure} error=${error} /><footer><button type="button" onClick=${close}>Leave it</button>
      <button type="submit" class="main">Send</button></footer></form></${Dialog}>`;
}

const TONES = /** @type {Record<string, string>} */ ({ idle: "good", processing: "busy", stale: "bad" });

const PAGE = 200;

export function Workers() {
  const loaded = useList("/api/v1/workers", "workers", { limit: PAGE, every: 2000, cursor: "before" });
  const may = useMay("admin");
  const [to, setTo] = useState(/** @type {{worker: any} | null} */ (null));
  const workers = loaded.rows;
  const tell = (/** @type {any} */ w, /** @type {string} */ command) => attempt(`${command} was sent to worker ${w.id}.`, () => post(`/api/v1/workers/${w.id}/command`, { command, args: [] })).then(loaded.reload);
  const takes = (/** @type {any} */ w) => w.kind === "minium" && w.state !== "stale";
  const shutdown = (/** @type {any} */ w) => confirm({ title: `End worker ${w.id} on ${w.host}?`, text: "It claims no more, and gives its jobs time, as with SIGTERM.", yes: "End it", harmful: true, act: () => post(`/api/v1/workers/${w.id}/command`, { command: "shutdown", args: [] }).then(loaded.reload) });
  const columns = [
    { title: "Worker", kind: "lead", cell: (/** @type {any} */ w) => html`#${w.id} <b>${w.host}</b> <span class="soft">pid ${w.pid}</span>` },
    { title: "State", kind: "lead", cell: (/** @type {any} */ w) => html`<${Dot} tone=${w.paused ? "calm" : TONES[w.state]}>
      ${w.paused ? "paused" : w.state}</${Dot}>` },
    { title: "Slots", kind: "number", cell: (/** @type {any} */ w) => (w.kind === "pullers" ? `${w.running ?? 0}` : `${w.running}/${w.concurrency}${w.spare ? `+${w.spare}` : ""}`) },
    { title: "Runs", cell: (/** @type {any} */ w) => (w.jobs?.length ? w.jobs.slice(0, 6).map((/** @type {any} */ j) => html`<a href=${write("jobs", j.id ?? j)}>#${j.id ?? j}</a> `) : html`<span class="soft">–</span>`) },
    { title: "Done", kind: "number", cell: (/** @type {any} */ w) => count(w.performed) },
    { title: "Queues", cell: (/** @type {any} */ w) => html`<span class="wrap">${(w.queues ?? []).join(", ")}</span>` },
    { title: "Tasks", cell: (/** @type {any} */ w) => html`<span class="mono soft wrap">
      ${w.kind === "pullers" ? "over WebSocket" : (w.tasks ?? []).join(" ")}</span>` },
    { title: "Heard", kind: "no-wrap", cell: (/** @type {any} */ w) => html`<${Time} at=${w.heartbeat} />` },
    { title: "Since", kind: "no-wrap", cell: (/** @type {any} */ w) => html`<${Time} at=${w.started} />` },
    ...(may ? [{ title: "", kind: "hand", cell: (/** @type {any} */ w) => takes(w) && html`<button type="button" class="small" onClick=${() => tell(w, w.paused ? "resume" : "pause")}>${w.paused ? "Resume" : "Pause"}</button>
      <button type="button" class="small" onClick=${() => setTo({ worker: w })}>Tell…</button>
      <button type="button" class="small harmful" onClick=${() => shutdown(w)}>End…</button>` }] : []),
  ];
  return html`<${Head} title="Workers">${may && html`<button type="button" onClick=${() => setTo({ worker: null })}>Tell all…</button>`}</${Head}>
    <${Status} loaded=${loaded} many=${workers.length} none=${html`No worker is there. <code>minium worker --task NAME=COMMAND</code> is one.`} />
    <${Table} label="Workers" columns=${columns} rows=${workers} id=${(/** @type {any} */ w) => w.id} /><${More} list=${loaded} first="newest" />
    ${to && html`<${Tell} to=${to.worker} close=${() => setTo(null)} reload=${loaded.reload} />`}`;
}
