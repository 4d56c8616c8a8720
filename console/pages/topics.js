// @ts-check
// The bus: which topics there are, what is said on one while it is said or again, and a box to say something.

import { ask } from "../lib/api.js";
import { useSchema } from "../lib/catalogue.js";
import { clock, count, gist, line, rate } from "../lib/format.js";
import { html, useEffect, useMemo, useRef, useState } from "../lib/html.js";
import { useList } from "../lib/list.js";
import { follow } from "../lib/live.js";
import { useMay } from "../lib/may.js";
import { write } from "../lib/route.js";
import { timesOf } from "../lib/times.js";
import { isTopic, tree } from "../lib/topic.js";
import { Empty, Failure, Head, Time } from "../parts/bits.js";
import { Document } from "../parts/form.js";
import { More } from "../parts/more.js";
import { say } from "../parts/toast.js";

const ROWS_MAX = 500;
const TOPICS = 500;

/** The topics with a word in them. Where not all were read, those that begin with it are asked for besides. @param {string} typed */
function useTopics(typed) {
  const word = typed.trim();
  const list = useList("/api/v1/topics", "topics", { limit: TOPICS, every: 3000 });
  const below = useList("/api/v1/topics", "topics", { query: { prefix: word }, limit: TOPICS, every: 3000, off: list.next === null || !isTopic(word) });
  const all = useMemo(() => {
    const found = new Map([...list.rows, ...below.rows].map((t) => [`${t.pattern} ${t.topic}`, t]));
    return [...found.values()].filter((t) => t.topic.includes(word));
  }, [list.data, below.data, word]);
  // below a topic that was named one reads on, else in all of them
  return { list, further: below.next === null ? list : below, shown: useMemo(() => tree(all), [all]) };
}

/** @param {{topic: string, query: Record<string, string>}} props */
function Tree({ topic, query }) {
  const [prefix, setPrefix] = useState("");
  const { list: loaded, further, shown } = useTopics(prefix);
  if (loaded.error?.status === 404) return html`<section class="panel" aria-label="Topics">
    <${Empty}>This node has no list of its topics. A topic that you know can be tailed all the same.</${Empty}>
    ${["task", "livesys"].map((t) => html`<div class="tree"><a href=${write("topics", t)}><span class="name">${t}</span></a></div>`)}</section>`;
  return html`<section class="panel" aria-label="Topics"><div class="body"><div class="field"><label for="prefix">Topics</label>
    <input id="prefix" type="search" placeholder="narrow" autocomplete="off" data-search value=${prefix} onInput=${(/** @type {any} */ e) => setPrefix(e.target.value)} /></div></div>
    <${Failure} error=${loaded.error} />
    <div class="tree" tabindex="0" role="region" aria-label="List of topics">${shown.length > 0 && html`<p class="columns" aria-hidden="true">
      <span>topic</span><span>listen</span>
      <span>rate, or last</span></p>`}${shown.map(({ topic: name, deep, entry, rate: all, patterns: [pattern] }) => {
      const ears = !entry ? null : pattern === "push" || pattern === "pull" ? entry.pullers : pattern === "bus" ? entry.peers : entry.subscribers;
      return html`<a key=${`${pattern} ${name}`} href=${write("topics", name, { pattern: pattern === "sub" ? "" : pattern, view: query.view })} data-row data-open aria-current=${name === topic && (query.pattern ?? "sub") === pattern ? "true" : undefined}
        title=${entry ? `${name}: ${count(entry.messages)} messages${entry.durable ? ", kept" : ""}` : `${name} and below`}>
          <span class="name" style=${{ "--deep": deep }}>${name.split("/").at(-1)}${pattern === "sub" ? "" : html` <span class="soft">
          ${pattern}</span>`}</span><span class="soft">${ears === null ? "" : count(ears)}</span><span class="soft">
          ${all >= 0.01 ? rate(all) : entry?.last ? html`<${Time} at=${entry.last} />` : ""}</span></a>`;
    })}${shown.length === 0 && html`<${Empty}>
      ${loaded.loading ? "Loading…" : loaded.rows.length > 0 ? "None of them matches." : "Nothing has been said yet."}</${Empty}>`}</div>
    <div class="body"><${More} list=${further} narrowed=${prefix.trim() !== ""} /></div></section>`;
}

/** An event says when it was; anything else is as old as its arrival, unless it was there before. @param {any} data @param {boolean} past */
const saidAt = (data, past) => (data?.specversion && Date.parse(data.time)) || (past ? null : Date.now());

/** A message in one line: a task event by what it means, anything else as it is. @param {any} data */
function short(data) {
  if (data instanceof Uint8Array) return `${data.length} bytes`;
  if (typeof data?.type !== "string" || !data.type.startsWith("task.") || !data.data) return line(data, 600);
  return [data.type.slice(5), data.data.state, gist(data.data)].filter(Boolean).join("  ·  ");
}

/** @param {{row: any, pretty: boolean}} props */
function Row({ row, pretty }) {
  const [open, setOpen] = useState(false);
  const whole = typeof row.data === "string" ? row.data : row.data instanceof Uint8Array ? short(row.data) : JSON.stringify(row.data, null, 2);
  const at = row.at === null ? undefined : new Date(row.at).toISOString();
  const place = row.position ? `position ${row.position.epoch}:${row.position.offset}` : at;
  return html`<li data-row=${row.n} data-whole=${open || pretty ? "yes" : undefined}>${at ? html`<time datetime=${at} title=${place}>
    ${clock(row.at)}</time>` : html`<span class="soft" title=${place}>earlier</span>`}<a class="topic" title=${row.topic} href=${write("topics", row.topic)}>${row.topic}</a>
    ${pretty ? html`<span class="said">
      ${whole}</span>` : html`<button type="button" class="bare said" data-open aria-expanded=${open ? "true" : "false"} onClick=${() => setOpen(!open)}>${open ? whole : short(row.data)}</button>`}</li>`;
}

/** @param {{topic: string, query: Record<string, string>}} props */
function Tail({ topic, query }) {
  const [rows, setRows] = useState(/** @type {any[]} */ ([]));
  const [paused, setPaused] = useState(false);
  const [waiting, setWaiting] = useState(0);
  const [needle, setNeedle] = useState("");
  const [state, setState] = useState(/** @type {[string, string | null]} */ (["connecting", null]));
  const held = useRef(/** @type {any[]} */ ([]));
  const still = useRef(false);
  const next = useRef(0);
  const box = useRef(/** @type {any} */ (null));
  const from = query.after ?? "last:50";
  const pretty = query.view === "pretty";
  still.current = paused;
  useEffect(() => {
    setRows([]);
    held.current = [];
    setWaiting(0);
    const options = from.startsWith("last:") ? { last: Number(from.slice(5)) || 50 } : from === "latest" ? {} : { after: from };
    const add = (/** @type {any[]} */ some) => {
      if (!still.current) return setRows((now) => [...some.reverse(), ...now].slice(0, ROWS_MAX));
      held.current = [...held.current, ...some].slice(-ROWS_MAX);
      setWaiting(held.current.length);
    };
    let over = false;
    // what was said before is heard without its time, which the journal knows
    const timed = async (/** @type {any[]} */ some) => {
      const without = some.filter((r) => r.at === null && r.position);
      if (without.length === 0) return;
      const times = await timesOf(topic, without.map((r) => r.position)).catch(() => new Map());
      if (over || times.size === 0) return;
      const put = (/** @type {any} */ r) => (r.at === null && r.position ? { ...r, at: times.get(`${r.position.epoch}:${r.position.offset}`) ?? null } : r);
      held.current = held.current.map(put);
      setRows((now) => now.map(put));
    };
    const stop = follow(topic, options, {
      hear: (messages) => {
        const some = messages.map((m) => ({ n: next.current++, topic: m.topic, at: saidAt(m.data, m.past), data: m.data, position: m.position }));
        void timed(some.slice(-ROWS_MAX));
        add(some);
      },
      missed: (why) => add([{ n: next.current++, note: why === "gap" ? "Messages were missed here." : "This position is gone; what is kept begins here." }]),
      state: (now, why) => setState([now, why]),
    });
    return () => {
      over = true;
      stop();
    };
  }, [topic, from]);
  const pause = () => {
    if (paused) {
      setRows((now) => [...held.current.reverse(), ...now].slice(0, ROWS_MAX));
      held.current = [];
      setWaiting(0);
    }
    setPaused(!paused);
  };
  const shown = useMemo(() => {
    const word = needle.trim().toLowerCase();
    return word ? rows.filter((r) => r.note || r.topic.toLowerCase().includes(word) || JSON.stringify(r.data).toLowerCase().includes(word)) : rows;
  }, [rows, needle]);
  const view = (/** @type {string} */ word) => write("topics", topic, { ...query, view: word });
  return html`<section class="panel" aria-labelledby="h-tail"><header><h2 id="h-tail">Tail of <span class="mono">${topic}</span></h2>
    <div class="acts">
      <label class="away" for="needle">Filter what is shown</label>
        <input id="needle" type="search" placeholder="filter" value=${needle} onInput=${(/** @type {any} */ e) => setNeedle(e.target.value)} />
      <label class="away" for="from">Begin</label>
        <select id="from" value=${["latest", "last:50", "last:500", "earliest"].includes(from) ? from : "at"} onChange=${(/** @type {any} */ e) => e.target.value !== "at" && (location.hash = write("topics", topic, { ...query, after: e.target.value }))}>
        <option value="latest">from now on</option><option value="last:50">last 50 and on</option><option value="last:500">last 500 and on</option>
          <option value="earliest">from the beginning</option>
          ${!["latest", "last:50", "last:500", "earliest"].includes(from) && html`<option value="at">behind ${from}</option>`}</select>
      <div class="choice" role="group" aria-label="Layout">
        <button type="button" aria-pressed=${pretty ? "false" : "true"} onClick=${() => (location.hash = view(""))}>Compact</button>
        <button type="button" aria-pressed=${pretty ? "true" : "false"} onClick=${() => (location.hash = view("pretty"))}>Pretty</button></div>
      <button type="button" data-pause aria-pressed=${paused ? "true" : "false"} onClick=${pause}>
        ${paused ? `Go on${waiting ? ` (${waiting})` : ""}` : "Pause"}</button>
        <button type="button" onClick=${() => setRows([])}>Clear</button></div></header>
    ${state[0] === "refused" && html`<${Failure} error=${new Error(state[1] ?? "")} what="Not heard." />`}
    ${shown.length === 0 ? html`<${Empty}>
      ${rows.length > 0 ? "Nothing of it matches." : "Nothing yet. What is said here shows as it is said."}</${Empty}>` : html`<ol class=${pretty ? "tail pretty" : "tail"} ref=${box} tabindex="0" aria-label="Messages, newest first">${shown.map((r) =>
      r.note ? html`<li class="note" key=${r.n}>${r.note}</li>` : html`<${Row} key=${r.n} row=${r} pretty=${pretty} />`,
    )}</ol>`}</section>`;
}

/** @param {{topic: string, pattern: string}} props */
function Publish({ topic: around, pattern: first }) {
  const [pattern, setPattern] = useState(first === "sub" ? "pub" : first === "pull" ? "push" : first);
  const [topic, setTopic] = useState(around.includes("+") || around.startsWith("task") ? "" : around);
  const [typed, setTyped] = useState({ document: /** @type {any} */ (null), ok: false, made: false });
  const [error, setError] = useState(/** @type {any} */ (null));
  const may = useMay(/** @type {"pub" | "push" | "bus"} */ (pattern));
  const { schema, entry, error: unknown } = useSchema(pattern === "pub" ? "sub" : pattern, topic.trim());
  const send = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setError(null);
    try {
      const text = typeof typed.document === "string" && !schema ? typed.document : JSON.stringify(typed.document);
      const answer = await ask("POST", `/${pattern}/${topic.trim().split("/").map(encodeURIComponent).join("/")}`, text, { raw: true, headers: { "content-type": "text/plain" } });
      say(answer?.offset ? `Kept at ${answer.epoch}:${answer.offset}.` : answer?.job ? `Job ${answer.job} was made of it.` : "It was sent.");
    } catch (e) {
      setError(e);
    }
  };
  return html`<section class="panel" aria-labelledby="h-say"><header><h2 id="h-say">Say something</h2>
    ${entry && html`<span class="soft">judged by <a href=${write("schemas", entry.path)}>${entry.path}</a></span>`}</header>
    <form class="body form" onSubmit=${send}>
    <div class="fields"><div class="field"><label for="say-how">How</label>
      <select id="say-how" value=${pattern} onChange=${(/** @type {any} */ e) => setPattern(e.target.value)}>
      <option value="pub">publish to all who subscribe</option><option value="push">push to one who pulls</option>
      <option value="bus">send to all peers</option></select></div>
      <div class="field"><label for="say-topic">Topic</label>
        <input id="say-topic" required autocomplete="off" spellcheck="false" value=${topic} onInput=${(/** @type {any} */ e) => setTopic(e.target.value)} /></div></div>
    <${Document} key=${entry?.url ?? ""} schema=${schema} label="Message" text=${!schema} rows=${3} change=${setTyped} />
      <${Failure} error=${unknown} what="Its schema is not known." />
      <${Failure} error=${error} what="Not sent." />
    <footer><button type="submit" class="main" disabled=${!may || !topic.trim() || !typed.ok}>Send</button>
      ${!may && html`<span class="soft">This token may not.</span>`}</footer></form></section>`;
}

/** @param {{rest: string, query: Record<string, string>}} props */
export function Topics({ rest, query }) {
  const topic = rest;
  const [typed, setTyped] = useState(topic);
  const [position, setPosition] = useState("");
  useEffect(() => setTyped(topic), [topic]);
  const go = (/** @type {Event} */ event) => {
    event.preventDefault();
    location.hash = write("topics", typed.trim(), { view: query.view, after: position.trim() });
  };
  return html`<${Head} title="Topics" /><div class="halves left"><${Tree} topic=${topic} query=${query} /><div class="stack">
    <form class="filters" onSubmit=${go}><div class="field broad"><label for="topic">Topic or filter</label>
      <input id="topic" placeholder="livesys/+" autocomplete="off" spellcheck="false" value=${typed} onInput=${(/** @type {any} */ e) => setTyped(e.target.value)} /></div>
      <div class="field"><label for="position">Replay from</label>
        <input id="position" placeholder="epoch:offset" autocomplete="off" spellcheck="false" value=${position} onInput=${(/** @type {any} */ e) => setPosition(e.target.value)} /></div>
        <button type="submit">Tail</button></form>
    ${topic ? html`<${Tail} key=${topic} topic=${topic} query=${query} />` : html`<section class="panel">
      <${Empty}>Choose a topic, or name one. Its subtopics are heard, too; <code>+</code> stands for any one segment.</${Empty}></section>`}
    <${Publish} key=${`${topic} ${query.pattern ?? ""}`} topic=${topic} pattern=${query.pattern ?? "sub"} /></div></div>`;
}
