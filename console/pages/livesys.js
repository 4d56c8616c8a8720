// @ts-check
// The machines that run a livesys image: whether each is there, what it has, what it was told last and how that ended.

import { ask, at, get, useLoad } from "../lib/api.js";
import { bytes } from "../lib/format.js";
import { html, useEffect, useState } from "../lib/html.js";
import { ALL, heard, summary } from "../lib/images.js";
import { follow, onTasks } from "../lib/live.js";
import { useMay } from "../lib/may.js";
import { persist } from "../lib/persist.js";
import { write } from "../lib/route.js";
import { machineOf, uses } from "../lib/topic.js";
import { Dot, Empty, Failure, Fold, Head, Time } from "../parts/bits.js";
import { Dialog } from "../parts/dialog.js";
import { say } from "../parts/toast.js";

const TOPIC = "livesys";
const PAST = 1000;
const SPEAKS_FOR = 60_000;

/** Why something is not known. @typedef {{past: any, inventories: any}} Failed */

/** Everything that is known of the images: what is kept, what jobs found out, and what comes. */
function useImages() {
  const [images, set] = useState(/** @type {ReadonlyMap<string, import("../lib/images.js").Image>} */ (new Map()));
  const [refused, setRefused] = useState(/** @type {string | null} */ (null));
  const [failed, setFailed] = useState(/** @type {Failed} */ ({ past: null, inventories: null }));
  useEffect(() => {
    let over = false;
    let read = false;
    /** What the past had goes up to there; null while it is being read. @type {number | null} */
    let known = /** @type {number | null} */ (null);
    const take = (/** @type {{topic: string, data: any, at: string}[]} */ messages) => over || set((now) => messages.reduce(heard, new Map(now)));
    // the journal knows when each was said, a subscription only what
    const past = async () => {
      const answer = await get(at(`/history/${TOPIC}`, { last: PAST, limit: PAST }));
      if (!read) return;
      take(answer.messages.map((/** @type {any} */ m) => ({ topic: m.subject ?? TOPIC, data: m.data, at: m.time })));
      known = Number(answer.messages.at(-1)?.sequence ?? 0);
      live(early.splice(0));
    };
    /** Reads the past. */
    let reading = () => {};
    /** @type {import("../lib/live.js").Message[]} */
    const early = [];
    const live = (/** @type {import("../lib/live.js").Message[]} */ messages) => {
      const fresh = messages.filter((m) => !m.position || (known !== null && m.position.offset > known));
      take(fresh.map((m) => ({ topic: m.topic, data: m.data, at: new Date().toISOString() })));
    };
    const inventories = (/** @type {any[]} */ jobs) => take(jobs.filter((j) => j.result?.type === "inventory" && j.result.host).map((j) => ({ topic: `${TOPIC}/${j.result.host}`, data: j.result, at: j.finished })));
    const found = async () => {
      const answer = await get(at("/api/v1/jobs", { task: "livesys/inventory", state: "finished", limit: 50 }));
      inventories([...answer.jobs].reverse());
    };
    const trouble = (/** @type {keyof Failed} */ what) => (/** @type {any} */ error) => setFailed((now) => ({ ...now, [what]: error }));
    const stops = [
      persist(found, trouble("inventories")),
      onTasks((events) => inventories(events.filter((e) => e.type === "task.finished").map((e) => e.data))),
      follow(TOPIC, { last: 1 }, {
        hear: (messages) => {
          if (!read && messages.some((m) => m.position)) [read, reading] = [true, persist(past, trouble("past"))];
          if (!read || known !== null) return live(messages);
          // the newest: the journal has the others
          early.push(...messages);
          early.splice(0, early.length - PAST);
        },
        missed: () => {
          // another journal, perhaps
          reading();
          read = false;
          known = null;
        },
        state: (now, why) => setRefused(now === "refused" ? (why ?? "") : null),
      }),
    ];
    return () => {
      over = true;
      [...stops, reading].forEach((stop) => stop());
    };
  }, []);
  return { images, refused, failed };
}

/** Which images have a session, where the server tells. */
function useConnected() {
  const loaded = useLoad("/api/v1/sessions?limit=1000", { every: 5000 });
  if (!loaded.data) return null;
  const found = new Set();
  for (const s of loaded.data.sessions ?? []) {
    for (const use of uses(s)) {
      const name = machineOf(use, TOPIC, ALL);
      if (name) found.add(name);
    }
  }
  return found;
}

/** @param {{to: string, known: string[], close: () => void}} props */
function Send({ to, known, close }) {
  const [name, setName] = useState(to);
  const [command, setCommand] = useState("");
  const [args, setArgs] = useState("");
  const [error, setError] = useState(/** @type {any} */ (null));
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    try {
      const id = [...crypto.getRandomValues(new Uint8Array(8))].map((b) => b.toString(16).padStart(2, "0")).join("");
      const order = { type: "command", command: command.trim(), id, ...(args.trim() ? { args: JSON.parse(args) } : {}) };
      await ask("POST", `/pub/${TOPIC}/${encodeURIComponent(name)}`, JSON.stringify(order), { raw: true, headers: { "content-type": "text/plain" } });
      say(`${order.command} was sent to ${name === ALL ? "all" : name}.`);
      close();
    } catch (e) {
      setError(e instanceof SyntaxError ? new Error("The arguments are no JSON.") : e);
    }
  };
  return html`<${Dialog} title="Send a command" close=${close}><form onSubmit=${submit}>
    <div class="field"><label for="to">Machine</label><select id="to" value=${name} onChange=${(/** @type {any} */ e) => setName(e.target.value)}>
      ${[...new Set([to, ...known, ALL])].map((n) => html`<option value=${n}>${n === ALL ? "all of them" : n}</option>`)}</select></div>
    <div class="field"><label for="command">Command</label>
      <input id="command" required autofocus autocomplete="off" spellcheck="false" placeholder="burn-in, reboot" value=${command} onInput=${(/** @type {any} */ e) => setCommand(e.target.value)} /></div>
    <div class="field"><label for="args">Arguments</label>
      <textarea id="args" class="mono" rows="3" placeholder="JSON; may be left empty" spellcheck="false" value=${args} onInput=${(/** @type {any} */ e) => setArgs(e.target.value)}></textarea></div>
    <${Failure} error=${error} what="Not sent." /><footer><button type="button" onClick=${close}>Leave it</button>
      <button type="submit" class="main">Send</button></footer></form></${Dialog}>`;
}

/** The word goes into the address as it is typed, and makes no history. @param {any} event */
function narrow(event) {
  history.replaceState(null, "", write("livesys", "", { q: event.target.value }));
  dispatchEvent(new HashChangeEvent("hashchange"));
}

const TONES = /** @type {Record<string, "good" | "bad" | "busy" | "calm">} */ ({ ready: "good", busy: "busy", booting: "busy", failed: "bad", leaving: "calm" });

/** @param {{image: import("../lib/images.js").Image, connected: Set<unknown> | null, may: boolean, send: () => void}} props */
function Image({ image, connected, may, send }) {
  const { order, inventory } = image;
  const lately = image.heard !== null && Date.now() - Date.parse(image.heard) < SPEAKS_FOR;
  const there = connected?.has(image.name);
  return html`<section class="panel image" aria-label=${image.name} data-row=${image.name}><header><h2>
    <a data-open class="mono" href=${write("livesys", image.name)}>${image.name}</a></h2>
      ${there ? html`<${Dot} tone="good">connected</${Dot}>` : html`<${Dot} tone=${lately ? "good" : "calm"} title="No session listens for it; it may listen to all.">heard <${Time} at=${image.heard} none="never" /></${Dot}>`}</header>
    <dl class="facts">${image.state && html`<dt>state</dt><dd><${Dot} tone=${TONES[image.state] ?? "calm"}>
      ${image.state}</${Dot}> ${image.text}</dd>`}
      ${order && html`<dt>told</dt><dd><b>${order.command}</b> <${Time} at=${order.at} /><br />
        ${order.outcome ? html`<${Dot} tone=${TONES[order.outcome.state] ?? "calm"}>
        ${order.outcome.state}</${Dot}> ${order.outcome.text}` : html`<span class="soft">no answer yet</span>`}</dd>`}
      ${inventory && summary(inventory, bytes).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
    <footer>${may && html`<button type="button" class="small" onClick=${send}>Send a command…</button>`}<a class="button small" href=${write("topics", `${TOPIC}/${image.name}`)}>Tail</a>
      <a class="button small" href=${write("audit", "", { machine: image.name })}>History</a></footer></section>`;
}

/** @param {{rest: string, query: Record<string, string>}} props */
export function Livesys({ rest, query }) {
  const { images, refused, failed } = useImages();
  const connected = useConnected();
  const may = useMay("pub");
  const [to, setTo] = useState(/** @type {string | null} */ (null));
  const word = (query.q ?? "").toLowerCase();
  const all = [...images.values()].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const shown = all.filter((i) => (rest ? i.name === rest : JSON.stringify(i).toLowerCase().includes(word)));
  const one = rest ? (images.get(rest) ?? null) : null;
  return html`<${Head} title=${rest ? `Livesys: ${rest}` : "Livesys"} about=${rest ? html`<a href=${write("livesys")}>All machines</a>` : "Machines that run an image, as they tell of themselves."}>${may && html`<button type="button" onClick=${() => setTo(rest || ALL)}>${rest ? "Send a command…" : "Command to all…"}</button>`}</${Head}>
    ${refused !== null && html`<${Failure} error=${new Error(refused)} what="Machines are not heard." />`}
    <${Failure} error=${failed.past} what="What machines said before is not known." />
    <${Failure} error=${failed.inventories} what="Inventories that jobs made are not known." />
    ${!rest && html`<div class="filters"><div class="field broad"><label for="q">Narrow</label>
      <input id="q" type="search" data-search placeholder="name, serial, model" value=${query.q ?? ""} onInput=${narrow} /></div></div>`}
    ${shown.length === 0 ? (all.length > 0 || !failed.past) && html`<${Empty}>
      ${all.length > 0 ? "No machine is called so or has that." : html`No machine has spoken yet. This makes one: <code>minium pub livesys/7 '{"type":"status","state":"ready"}'</code>`}</${Empty}>` : html`<div class="images">${shown.map(
      (image) => html`<${Image} key=${image.name} image=${image} connected=${connected} may=${may} send=${() => setTo(image.name)} />`,
    )}</div>`}
    ${one?.inventory && html`<section class="panel later" aria-labelledby="h-inv"><header><h2 id="h-inv">Inventory</h2><span class="soft">
      <${Time} at=${one.inventoried} /></span></header><div class="body"><${Fold} value=${one.inventory} label="Inventory" /></div></section>`}
    ${to && html`<${Send} to=${to} known=${all.map((i) => i.name)} close=${() => setTo(null)} />`}`;
}
