// @ts-check
// What was said, in order, in some time: to and by a machine, or on any topic that is kept.

import { ApiError, useLoad } from "../lib/api.js";
import { absolute, clock, count, gist, line } from "../lib/format.js";
import { html, useEffect, useMemo, useRef, useState } from "../lib/html.js";
import { machineIn } from "../lib/images.js";
import { collect, kindOf, useReading, wanted } from "../lib/reading.js";
import { write } from "../lib/route.js";
import { Empty, Failure, Head, Json } from "../parts/bits.js";
import { say } from "../parts/toast.js";

const DAYS = 7;
const DAY = 86_400_000;
const KINDS = ["command", "status", "inventory", "task.enqueue", "task.dequeue", "task.finished", "task.failed", "task.removed"];

/** A local time for a field of that kind. @param {number} time */
const local = (time) => new Date(time - new Date(time).getTimezoneOffset() * 60_000).toISOString().slice(0, 16);

/** @param {string[]} parts @param {string} name */
function download(parts, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts, { type: "application/x-ndjson" }));
  link.download = `${name.replace(/\W+/g, "-")}.ndjson`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** All that is wanted, and not only what is shown. @param {{want: import("../lib/reading.js").Wanted, name: string}} props */
function SaveAll({ want, name }) {
  const [told, tell] = useState(/** @type {{many: number, time: number} | null} */ (null));
  const stop = useRef(/** @type {AbortController | null} */ (null));
  useEffect(() => () => stop.current?.abort(), []);
  const save = async () => {
    const control = (stop.current = new AbortController());
    tell({ many: 0, time: NaN });
    try {
      const { parts, many, cut } = await collect(want, control.signal, (n, time) => control.signal.aborted || tell({ many: n, time }));
      if (control.signal.aborted) return;
      download(parts, name);
      say(cut === null ? `${count(many)} entries were saved.` : `${count(many)} entries up to ${absolute(new Date(cut).toISOString())} were saved; that many at most go into one file.`);
    } catch (e) {
      say(/** @type {Error} */ (e).message, "bad");
    } finally {
      stop.current = null;
      if (!control.signal.aborted) tell(null);
    }
  };
  const leave = () => {
    stop.current?.abort();
    tell(null);
  };
  if (!told) return html`<button type="button" class="small" onClick=${save}>Save all of it</button>`;
  return html`<span class="soft" role="status">${count(told.many)} read${Number.isFinite(told.time) ? `, up to ${absolute(new Date(told.time).toISOString())}` : ""}</span>
    <button type="button" class="small" onClick=${leave}>Stop</button>`;
}

/** What a task event says: at first what is to be done, then how that goes. @param {any} event */
function told({ type, data }) {
  if (type === "task.enqueue") return line(data?.args, 400);
  return `${data?.state ?? ""} ${gist(data ?? {})}`;
}

/** @param {{entry: import("../lib/reading.js").Entry}} props */
function Entry({ entry }) {
  const [open, setOpen] = useState(false);
  const { event } = entry;
  const task = event.type?.startsWith("task.");
  const words = task ? told(event) : line(event.data, 400);
  return html`<li data-row=${event.sequence}>
    <button type="button" class="bare" data-open aria-expanded=${open ? "true" : "false"} onClick=${() => setOpen(!open)}>
    <time datetime=${event.time}>${absolute(event.time)}</time>
      <span class="topic">${task ? `task/${event.data?.task ?? ""}/${event.subject}` : event.subject}</span><span class="what">
        ${kindOf(event)}</span><span class="said soft">${words}</span></button>
    ${open && html`<${Json} value=${event} label=${`Entry ${event.sequence}`} />`}</li>`;
}

/** What is shown, in words. @param {import("../lib/reading.js").Window_} now */
function shown(now) {
  if (now.busy && now.rows.length === 0) return "reading…";
  if (now.rows.length === 0) return "";
  const [first, last] = [now.rows[0], now.rows[now.rows.length - 1]].map((r) => absolute(r.event.time).slice(0, 19));
  const until = first.slice(0, 10) === last.slice(0, 10) ? last.slice(11) : last;
  return `${count(now.rows.length)} ${now.rows.length === 1 ? "entry" : "entries"}, ${first} to ${until}`;
}

/** @param {{query: Record<string, string>, want: import("../lib/reading.js").Wanted}} props */
function Entries({ query, want }) {
  const now = useReading(want);
  const name = query.machine || query.topic;
  const list = useRef(/** @type {any} */ (null));
  const unkept = now.error instanceof ApiError && now.error.code === "invalid_request";
  const partly = now.looked > 0 && !now.busy && now.rows.length === 0;
  // what was added above must not push away what one reads
  const move = (/** @type {"earlier" | "later"} */ way) => {
    now.move(way);
    list.current?.focus({ preventScroll: true });
  };
  const save = () => download(now.rows.map((r) => `${r.line}\n`), name);
  const looked = `Looked at ${count(now.looked)} entries.`;
  return html`${unkept ? html`<${Empty}>Nothing is kept of this topic. <code>durable = true</code> in <code>[channels."${want.topics[0].split("/")[0]}"]</code> keeps what is said from then on.</${Empty}>` : html`<${Failure} error=${now.error} />`}
    ${now.unread.length > 0 && html`<p class="missing soft" role="status">${now.unread.map(({ topic, why }) => html`<span key=${topic}>Not among it is what was said on <code>${topic}</code>: ${why.code === "forbidden" ? "this token may not read it." : "nothing is kept of it."}</span> `)}</p>`}
    <section class="panel" aria-labelledby="h-said"><header><h2 id="h-said">${query.machine ? "Said by and to" : "Said on"} <span class="mono">${name}</span></h2>
      <div class="acts"><span class="soft" role="status">${shown(now)}</span>
      <button type="button" class="small" disabled=${now.rows.length === 0} onClick=${save}>Save what is shown</button>
      ${!now.error && html`<${SaveAll} want=${want} name=${name} />`}</div></header>
      ${!now.begins && html`<div class="edge"><button type="button" class="small" disabled=${now.busy !== null} onClick=${() => move("earlier")}>Earlier</button>
        ${partly && html`<span class="soft">${looked}</span>`}</div>`}
      ${now.rows.length === 0 && !now.busy && !now.error && html`<${Empty}>${now.begins && now.ends ? "Nothing, in that time." : "Nothing so far."}</${Empty}>`}
      <ol class="entries" ref=${list} tabindex="-1" aria-label="Entries, oldest first" aria-busy=${now.busy ? "true" : "false"}>
        ${now.rows.map((r) => html`<${Entry} key=${r.offset} entry=${r} />`)}</ol>
      ${!now.error && html`<div class="edge"><button type="button" class="small" disabled=${now.busy !== null} onClick=${() => move("later")}>
        ${now.ends ? "Look again" : "Later"}</button>${!now.ends && partly && html`<span class="soft">${looked}</span>`}</div>`}</section>`;
}

/** The last days, each in one press. @param {{typed: Record<string, string>}} props */
function Days({ typed }) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const of = (/** @type {number} */ from, /** @type {number | null} */ to) => write("audit", "", { ...typed, topic: typed.topic || (typed.machine ? "" : "task"), from: local(from), to: to === null ? "" : local(to) });
  const days = Array.from({ length: DAYS }, (_, i) => {
    // by the calendar: two days of a year are not 24 hours long
    const begin = new Date(midnight - i * DAY + DAY / 2).setHours(0, 0, 0, 0);
    const end = new Date(begin + 1.5 * DAY).setHours(0, 0, 0, 0);
    const word = i === 0 ? "Today" : i === 1 ? "Yesterday" : new Date(begin).toLocaleDateString("en", { weekday: "long" });
    return { word, title: absolute(new Date(begin).toISOString()).slice(0, 10), from: begin, to: i === 0 ? null : end };
  });
  const here = (/** @type {number} */ from, /** @type {number | null} */ to) => typed.from === local(from) && (typed.to ?? "") === (to === null ? "" : local(to));
  return html`<nav class="chips" aria-label="Times"><a href=${of(Date.now() - 3_600_000, null)} title=${`since ${clock(Date.now() - 3_600_000)}`}>Last hour</a>${days.map(
    ({ word, title, from, to }) => html`<a href=${of(from, to)} title=${title} aria-current=${here(from, to) ? "true" : undefined}>${word}</a>`,
  )}</nav>`;
}

/** @param {{query: Record<string, string>}} props */
export function Audit({ query }) {
  const [typed, setTyped] = useState(query);
  const known = JSON.stringify(query);
  useEffect(() => setTyped(query), [known]);
  const want = useMemo(() => wanted(query), [known]);
  const list = useLoad("/api/v1/topics?pattern=sub&limit=1000");
  const topics = (list.data?.topics ?? []).filter((/** @type {any} */ t) => t.durable).map((/** @type {any} */ t) => t.topic);
  const machines = [...new Set(topics.map((/** @type {string} */ t) => machineIn(t.replace(/^task\//, ""))).filter(Boolean))].sort();
  const set = (/** @type {string} */ name) => (/** @type {any} */ e) => setTyped((now) => ({ ...now, [name]: e.target.value }));
  const go = (/** @type {Event} */ event) => {
    event.preventDefault();
    // of the two the one that was changed
    const other = typed.machine && typed.topic ? (typed.machine !== query.machine ? { topic: "" } : { machine: "" }) : {};
    location.hash = write("audit", "", { ...typed, ...other });
  };
  const choices = (/** @type {string} */ id, /** @type {string[]} */ all) => html`<datalist id=${id}>${all.map((t) => html`<option value=${t}></option>`)}</datalist>`;
  const field = (/** @type {string} */ name, /** @type {string} */ label, /** @type {Record<string, any>} */ more) => html`<div class="field"><label for=${name}>${label}</label>
    <input id=${name} autocomplete="off" spellcheck="false" value=${typed[name] ?? ""} onInput=${set(name)} ...${more} /></div>`;
  return html`<${Head} title="Audit" about="What a machine, a job or a topic was told and said, in order, in some time." />
    <form class="filters tight" role="search" aria-label="Journal" onSubmit=${go}>
      ${field("machine", "Machine", { "data-search": true, list: "machines", placeholder: "rack-01" })}${choices("machines", machines)}
      ${field("topic", "or topic", { list: "kept", placeholder: "task/import/42" })}${choices("kept", ["task", ...topics])}
      ${field("from", "From", { type: "datetime-local" })}${field("to", "Before", { type: "datetime-local" })}
      ${field("kind", "Kind", { list: "kinds", placeholder: "command" })}${choices("kinds", KINDS)}
      ${field("q", "Containing", { type: "search" })}
      <button type="submit" class="main" disabled=${!typed.machine?.trim() && !typed.topic?.trim()}>Read</button></form>
    <${Days} typed=${typed} />
    ${want ? html`<${Entries} key=${known} query=${query} want=${want} />` : html`<section class="panel">
      <${Empty}>Name a machine, for all that it said and was told, orders to all of them included; or a topic whose messages are kept: <code>task</code> is every event of every job, <code>task/import/42</code> those of one.</${Empty}></section>`}`;
}
