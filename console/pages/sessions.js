// @ts-check
// Who is connected: what each listens to or sends, how far behind it is, and a way to end it.

import { ask, at } from "../lib/api.js";
import { count } from "../lib/format.js";
import { html, useEffect, useState } from "../lib/html.js";
import { useList } from "../lib/list.js";
import { useMay } from "../lib/may.js";
import { write } from "../lib/route.js";
import { uses } from "../lib/topic.js";
import { Dot, Empty, Head, Status, Time } from "../parts/bits.js";
import { confirm } from "../parts/dialog.js";
import { More } from "../parts/more.js";
import { Table } from "../parts/table.js";

const PAGE = 200;
const SHOWN = 5;

/** What a session listens to or sends. @param {any} s */
function topics(s) {
  const further = (s.filters ?? []).length + (s.more_filters ?? 0) - SHOWN;
  return html`${uses(s).slice(0, SHOWN).map(
    ({ verb, filter }) => html`<a class="mono" href=${write("topics", filter)}>${s.pattern === null ? `${verb} ` : ""}${filter}</a> `,
  )}${further > 0 ? html`<span class="soft">and ${further} more</span>` : ""}`;
}

/** @param {{query: Record<string, string>}} props */
export function Sessions({ query }) {
  const loaded = useList("/api/v1/sessions", "sessions", { limit: PAGE, every: 3000 });
  const may = useMay("admin");
  const [word, setWord] = useState(query.q ?? "");
  useEffect(() => setWord(query.q ?? ""), [query.q]);
  if (loaded.error?.status === 404) return html`<${Head} title="Sessions" />
    <${Empty}>This node has no list of its sessions; their number stands in the <a href=${write("overview")}>overview</a>.</${Empty}>`;
  const text = (/** @type {any} */ s) => [s.id, s.mode, s.pattern, ...(s.filters ?? []), s.remote, s.subject].join(" ").toLowerCase();
  const rows = loaded.rows.filter((s) => text(s).includes(word.trim().toLowerCase()));
  const end = (/** @type {any} */ s, /** @type {number | undefined} */ reconnect) => ask("DELETE", at(`/api/v1/sessions/${encodeURIComponent(s.id)}`, { reconnect })).then(loaded.reload);
  const close = (/** @type {any} */ s) => confirm({
    title: `Close session ${s.id}?`, text: "A client that comes back by itself does so at once.", yes: "Close it", harmful: true,
    act: () => end(s, undefined),
  });
  const dismiss = (/** @type {any} */ s) => confirm({
    title: `Dismiss session ${s.id}?`, yes: "Dismiss it", harmful: true,
    text: "It is closed by a code after which clients stay away. Nothing keeps them from it but that.",
    act: () => end(s, 0),
  });
  const behind = (/** @type {any} */ b) => (b === true || b > 0 ? html`<${Dot} tone="bad">
    ${b === true ? "behind" : `${count(b)} behind`}</${Dot}>` : html`<span class="soft">no</span>`);
  const columns = [
    { title: "Session", kind: "lead", cell: (/** @type {any} */ s) => html`<span class="mono">${s.id}</span>` },
    { title: "Does", kind: "lead", cell: (/** @type {any} */ s) => html`${s.pattern ?? "–"} <span class="soft">${s.mode}</span>` },
    { title: "Topics", cell: topics },
    { title: "Who", cell: (/** @type {any} */ s) => html`${s.subject ?? "–"} <span class="soft mono">${s.remote ?? ""}</span>` },
    { title: "Since", kind: "no-wrap", cell: (/** @type {any} */ s) => html`<${Time} at=${s.since} />` },
    { title: "Sent", kind: "number", cell: (/** @type {any} */ s) => count(s.sent) },
    { title: "Received", kind: "number", cell: (/** @type {any} */ s) => count(s.received) },
    { title: "Behind", cell: (/** @type {any} */ s) => behind(s.behind) },
    ...(may ? [{ title: "", kind: "hand", cell: (/** @type {any} */ s) => html`<button type="button" class="small" onClick=${() => close(s)}>Close…</button>
      <button type="button" class="small harmful" onClick=${() => dismiss(s)}>Dismiss…</button>` }] : []),
  ];
  return html`<${Head} title="Sessions" /><div class="filters"><div class="field broad"><label for="q">Narrow</label>
    <input id="q" type="search" data-search placeholder="topic, address, subject" value=${word}
      onInput=${(/** @type {any} */ e) => setWord(e.target.value)} onChange=${() => (location.hash = write("sessions", "", { q: word }))} /></div></div>
    <${Status} loaded=${loaded} many=${rows.length} none=${word ? "None of them matches." : "Nobody is connected."} />
    <${Table} label="Sessions" columns=${columns} rows=${rows} id=${(/** @type {any} */ s) => s.id} />
    <${More} list=${loaded} first="oldest" narrowed=${word.trim() !== ""} />`;
}
