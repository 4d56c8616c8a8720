// @ts-check
// The machines that run a livesys image: whether each is there, what it has, what it was told last and how that ended.

import { bytes, count } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { ALL, TOPIC, summary, worked } from "../lib/images.js";
import { useMachines } from "../lib/machines.js";
import { useMay } from "../lib/may.js";
import { write } from "../lib/route.js";
import { Dot, Empty, Failure, Fold, Head, Time } from "../parts/bits.js";
import { Command } from "../parts/command.js";

const SPEAKS_FOR = 60_000;

/** The word goes into the address as it is typed, and makes no history. @param {any} event */
function narrow(event) {
  history.replaceState(null, "", write("livesys", "", { q: event.target.value }));
  dispatchEvent(new HashChangeEvent("hashchange"));
}

const TONES = /** @type {Record<string, "good" | "bad" | "busy" | "calm">} */ ({
  ready: "good", busy: "busy", booting: "busy", failed: "bad", leaving: "calm", taken: "busy", finished: "good", expired: "bad",
});

/** What a machine was told last, and what has become of that. @param {{order: import("../lib/images.js").Order}} props */
function Told({ order }) {
  const { outcome } = order;
  const job = order.job === null ? "" : html` <a class="mono" href=${write("jobs", order.job)}>#${order.job}</a>`;
  return html`<b>${order.command}</b> <${Time} at=${order.at} />${job}<br />
    ${outcome ? html`<span data-outcome=${outcome.state}><${Dot} tone=${TONES[outcome.state] ?? "calm"}>
      ${outcome.state}</${Dot}> ${outcome.text}</span>` : html`<span class="soft">no answer yet</span>`}`;
}

/** Is it there? @param {{image: import("../lib/images.js").Image, there: Props["there"]}} props */
function There({ image, there }) {
  const pulls = there.pulling.has(image.name);
  if (pulls || there.hearing.has(image.name)) return html`<${Dot} tone="good" title=${pulls ? "It takes work." : "It listens for what it is told."}>connected</${Dot}>`;
  const lately = image.heard !== null && Date.now() - Date.parse(image.heard) < SPEAKS_FOR;
  return html`<${Dot} tone=${lately ? "good" : "calm"} title="No session of this node is there for it alone.">heard <${Time} at=${image.heard} none="never" /></${Dot}>`;
}

/** @typedef {{there: {hearing: ReadonlySet<string>, pulling: ReadonlySet<string>, known: boolean}}} Props */


/** @param {{image: import("../lib/images.js").Image, may: boolean, send: () => void} & Props} props */
function Image({ image, there, may, send }) {
  const { order, inventory, state } = image;
  // who only takes work is heard of by its jobs
  const topic = image.works && !state && !inventory ? `task/${TOPIC}/${image.name}` : `${TOPIC}/${image.name}`;
  return html`<section class="panel image" aria-label=${image.name} data-row=${image.name}><header><h2>
    <a data-open class="mono" href=${write("livesys", image.name)}>${image.name}</a></h2><${There} image=${image} there=${there} /></header>
    ${!state && !order && !inventory ? html`<p class="empty">Nothing was heard from it, and it was told nothing.</p>` : html`<dl class="facts">${state && html`<dt>state</dt><dd><${Dot} tone=${TONES[state] ?? "calm"}>
      ${state}</${Dot}> ${image.text}</dd>`}
      ${order && html`<dt>told</dt><dd><${Told} order=${order} /></dd>`}
      ${inventory && summary(inventory, bytes).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`}
    <footer>${may && html`<button type="button" class="small" onClick=${send}>Send a command…</button>`}${image.works && html`<a class="button small" href=${write("jobs", "", { task: `${TOPIC}/${image.name}` })}>Jobs</a>`}
      <a class="button small" href=${write("topics", topic)}>Tail</a><a class="button small" href=${write("audit", "", { machine: image.name })}>History</a></footer></section>`;
}

/** What is not known, or was left out. @param {{of: ReturnType<typeof useMachines>}} props */
function Gaps({ of: { refused, failed, left, cut } }) {
  return html`${refused !== null && html`<${Failure} error=${new Error(refused)} what="Machines are not heard." />`}
    <${Failure} error=${failed.past} what="What machines said before is not known." />
    <${Failure} error=${failed.orders} what="What machines were told as work is not known." />
    <${Failure} error=${failed.inventories} what="Inventories that jobs made are not known." />
    <${Failure} error=${failed.names} what="Who is there is not known." />
    <${Failure} error=${failed.asked} what="What silent machines said last is not known of all." />
    ${cut && html`<p class="failure" role="status">This node has more topics or sessions than are looked at here: a machine may be missing, or be there although it does not seem so.</p>`}
    ${left > 0 && html`<p class="failure" role="status">Of ${count(left)} further machines that were silent for long only what comes now is shown.</p>`}`;
}

/** @param {{rest: string, query: Record<string, string>}} props */
export function Livesys({ rest, query }) {
  const machines = useMachines();
  const { images, there } = machines;
  const [mayPub, mayPush] = [useMay("pub"), useMay("push")];
  const may = mayPub || mayPush;
  const [to, setTo] = useState(/** @type {string | null} */ (null));
  const word = (query.q ?? "").toLowerCase();
  const all = [...images.values()].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const shown = all.filter((i) => (rest ? i.name === rest : JSON.stringify(i).toLowerCase().includes(word)));
  const one = rest ? (images.get(rest) ?? null) : null;
  // its events tell what becomes of it; until the first comes it was sent
  const told = (/** @type {string} */ name, /** @type {number} */ id, /** @type {import("../parts/command.js").Words} */ words) =>
    machines.change((now) => worked(now, { id, task: `${TOPIC}/${name}`, args: words, state: "inactive", attempt: 0, created: new Date().toISOString(), started: null }, { told: -1 }));
  return html`<${Head} title=${rest ? `Livesys: ${rest}` : "Livesys"} about=${rest ? html`<a href=${write("livesys")}>All machines</a>` : "Machines that run an image, as they tell of themselves."}>${may && html`<button type="button" onClick=${() => setTo(rest || ALL)}>${rest ? "Send a command…" : "Command to all…"}</button>`}</${Head}>
    <${Gaps} of=${machines} />
    ${!rest && html`<div class="filters"><div class="field broad"><label for="q">Narrow</label>
      <input id="q" type="search" data-search placeholder="name, serial, model" value=${query.q ?? ""} onInput=${narrow} /></div></div>`}
    ${all.length === 0 && machines.loading && !machines.failed.past ? html`<p class="empty" aria-busy="true">Loading…</p>` : shown.length === 0 ? (all.length > 0 || !machines.failed.past) && html`<${Empty}>
      ${all.length > 0 ? "No machine is called so or has that." : html`No machine has spoken yet. This makes one: <code>minium pub livesys/7 '{"type":"status","state":"ready"}'</code>`}</${Empty}>` : html`<div class="images">${shown.map(
      (image) => html`<${Image} key=${image.name} image=${image} there=${there} may=${may} send=${() => setTo(image.name)} />`,
    )}</div>`}
    ${one?.inventory && html`<section class="panel later" aria-labelledby="h-inv"><header><h2 id="h-inv">Inventory</h2><span class="soft">
      <${Time} at=${one.inventoried} /></span></header><div class="body"><${Fold} value=${one.inventory} label="Inventory" /></div></section>`}
    ${to && html`<${Command} to=${to} images=${all} there=${there} told=${told} close=${() => setTo(null)} />`}`;
}
