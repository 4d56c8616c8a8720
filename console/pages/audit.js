// @ts-check
// What was said, in order, in some time: the journal of a topic, read from where that time stands.

import { ApiError, at, get, useLoad } from "../lib/api.js";
import { absolute, count, line } from "../lib/format.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { write } from "../lib/route.js";
import { seek } from "../lib/seek.js";
import { Empty, Failure, Head, Json } from "../parts/bits.js";

const PAGE = 200;
const ROWS_MAX = 5000;

/** @param {any} message */
const offset = (message) => Number(message.sequence);

/** A local time for a field of that kind. @param {number} time */
const local = (time) => new Date(time - new Date(time).getTimezoneOffset() * 60_000).toISOString().slice(0, 16);

/**
 * Where reading begins.
 * @param {string} path @param {string} from @param {string | null} head The journal's end, `E:O`.
 */
async function beginning(path, from, head) {
  if (!from || !head) return null;
  const [epoch, end] = head.split(":");
  const first = (await get(at(path, { limit: 1 }))).messages[0];
  if (!first || Date.parse(first.time) >= Date.parse(from)) return null;
  const look = async (/** @type {number} */ behind) => {
    const found = (await get(at(path, { after: `${epoch}:${behind}`, limit: 1 }))).messages[0];
    return found ? { offset: offset(found), time: Date.parse(found.time) } : null;
  };
  return `${epoch}:${await seek(Date.parse(from), offset(first), Number(end), look)}`;
}

/** @param {any[]} messages */
function save(messages, /** @type {string} */ topic) {
  const blob = new Blob(messages.map((m) => `${JSON.stringify(m)}\n`), { type: "application/x-ndjson" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${topic.replace(/\W+/g, "-")}.ndjson`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** @param {{message: any}} props */
function Entry({ message }) {
  const [open, setOpen] = useState(false);
  const type = message.type === "message" ? (message.data?.type ?? "message") : message.type;
  const gist = message.type.startsWith("task.") ? `${message.data?.state ?? ""} ${message.data?.error ?? ""}` : line(message.data, 400);
  return html`<li data-row=${message.sequence}>
    <button type="button" class="bare" data-open aria-expanded=${open ? "true" : "false"} onClick=${() => setOpen(!open)}>
    <time datetime=${message.time}>${absolute(message.time)}</time>
      <span class="topic">${message.type === "message" ? message.subject : `${message.data?.task ?? ""}/${message.subject}`}</span><span class="what">
        ${type}</span><span class="said soft">${gist}</span></button>
    ${open && html`<${Json} value=${message} label=${`Entry ${message.sequence}`} />`}</li>`;
}

/** @param {{query: Record<string, string>}} props */
function Entries({ query }) {
  const [rows, setRows] = useState(/** @type {any[]} */ ([]));
  const [next, setNext] = useState(/** @type {string | null} */ (null));
  const [state, setState] = useState(/** @type {"busy" | "more" | "end"} */ ("busy"));
  const [error, setError] = useState(/** @type {any} */ (null));
  const over = useRef(false);
  const topic = query.topic.trim();
  const path = `/history/${topic.split("/").map((s) => (s === "+" ? "+" : encodeURIComponent(s))).join("/")}`;
  const until = query.to ? Date.parse(query.to) : Infinity;
  const read = async (/** @type {string | null} */ after, /** @type {boolean} */ first) => {
    setState("busy");
    try {
      const page = await get(first && !after ? at(path, query.from ? { limit: PAGE } : { last: PAGE, limit: PAGE }) : at(path, { after, limit: PAGE }));
      if (over.current) return;
      const from = query.from ? Date.parse(query.from) : -Infinity;
      const fits = page.messages.filter((/** @type {any} */ m) => Date.parse(m.time) >= from && Date.parse(m.time) < until);
      setRows((now) => [...now, ...fits].slice(0, ROWS_MAX));
      setNext(page.next ?? null);
      const last = page.messages.at(-1);
      const past = last && Date.parse(last.time) >= until + 10_000;
      setState(page.messages.length === 0 || past ? "end" : "more");
    } catch (e) {
      if (!over.current) [setError(e), setState("end")];
    }
  };
  useEffect(() => {
    over.current = false;
    const begin = async () => {
      try {
        const head = query.from ? (await get("/api/v1/stats")).position : null;
        await read(await beginning(path, query.from ?? "", head), true);
      } catch (e) {
        if (!over.current) [setError(e), setState("end")];
      }
    };
    void begin();
    return () => void (over.current = true);
  }, []);
  const unkept = error instanceof ApiError && error.code === "invalid_request";
  const word = (query.q ?? "").toLowerCase();
  const shown = word ? rows.filter((m) => JSON.stringify(m).toLowerCase().includes(word)) : rows;
  return html`${unkept ? html`<${Empty}>Nothing is kept of this topic. <code>durable = true</code> in <code>[channels."${topic.split("/")[0]}"]</code> keeps what is said from then on.</${Empty}>` : html`<${Failure} error=${error} />`}
    <section class="panel" aria-labelledby="h-said"><header><h2 id="h-said">What was said on <span class="mono">${topic}</span></h2>
      <span class="soft" role="status">${state === "busy" ? "reading…" : `${count(shown.length)} entries`}</span>
      <button type="button" class="small" disabled=${shown.length === 0} onClick=${() => save(shown, topic)}>Save as NDJSON</button></header>
      ${shown.length === 0 && state !== "busy" && !error && html`<${Empty}>
        ${state === "more" ? "Nothing so far." : "Nothing, in that time."}</${Empty}>`}
      <ol class="entries">${shown.map((m) => html`<${Entry} key=${m.id} message=${m} />`)}</ol></section>
    <div class="more">${state === "more" && rows.length < ROWS_MAX && html`<button type="button" onClick=${() => read(next, false)}>Read on</button>`}${rows.length >= ROWS_MAX && html`<span class="soft">That many are shown at most; a later beginning shows those behind.</span>`}</div>`;
}

/** @param {{query: Record<string, string>}} props */
export function Audit({ query }) {
  const [typed, setTyped] = useState(query);
  const known = JSON.stringify(query);
  useEffect(() => setTyped(query), [known]);
  const list = useLoad("/api/v1/topics?pattern=sub&limit=500");
  const topics = (list.data?.topics ?? []).filter((/** @type {any} */ t) => t.durable).map((/** @type {any} */ t) => t.topic);
  const set = (/** @type {string} */ name) => (/** @type {any} */ e) => setTyped((now) => ({ ...now, [name]: e.target.value }));
  const go = (/** @type {Event} */ event) => {
    event.preventDefault();
    location.hash = write("audit", "", typed);
  };
  const since = (/** @type {number} */ ms) => write("audit", "", { ...typed, topic: typed.topic || "task", from: local(Date.now() - ms), to: "" });
  return html`<${Head} title="Audit" about="What this machine, job or topic was told, in order, in some time." />
    <form class="filters" onSubmit=${go}><div class="field broad"><label for="topic">Topic</label>
      <input id="topic" required data-search list="kept" placeholder="livesys/rack-01, task/import/42" autocomplete="off" spellcheck="false" value=${typed.topic ?? ""} onInput=${set("topic")} />
      <datalist id="kept">${["task", ...topics].map((t) => html`<option value=${t}></option>`)}</datalist></div>
      <div class="field"><label for="from">From</label>
        <input id="from" type="datetime-local" value=${typed.from ?? ""} onInput=${set("from")} /></div><div class="field"><label for="to">To</label>
        <input id="to" type="datetime-local" value=${typed.to ?? ""} onInput=${set("to")} /></div>
      <div class="field"><label for="q">Containing</label><input id="q" type="search" value=${typed.q ?? ""} onInput=${set("q")} /></div>
        <button type="submit" class="main">Read</button>
      <a class="button" href=${since(3600e3)}>Last hour</a><a class="button" href=${since(86_400e3)}>Last day</a></form>
    ${query.topic?.trim() ? html`<${Entries} key=${known} query=${query} />` : html`<section class="panel">
      <${Empty}>Name a topic whose messages are kept: <code>task</code> is every event of every job, <code>task/import/42</code> those of one, <code>livesys/rack-01</code> what one machine said and was told.</${Empty}></section>`}`;
}
