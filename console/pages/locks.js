// @ts-check
// Named locks: who holds which until when.

import { ask } from "../lib/api.js";
import { html } from "../lib/html.js";
import { useList } from "../lib/list.js";
import { useMay } from "../lib/may.js";
import { Head, Status, Time } from "../parts/bits.js";
import { confirm } from "../parts/dialog.js";
import { More } from "../parts/more.js";
import { Table } from "../parts/table.js";

const PAGE = 500;

export function Locks() {
  const loaded = useList("/api/v1/locks", "locks", { limit: PAGE, every: 2000 });
  const may = useMay("jobs:write");
  const locks = loaded.rows.map((/** @type {any} */ l, /** @type {number} */ i) => ({ ...l, i }));
  const release = (/** @type {any} */ l) => confirm({
    title: `Let ${l.name} go?`, text: "All holds of this name end. Whoever holds it is not told, and goes on as if it were held.", yes: "Let go", harmful: true,
    act: () => ask("DELETE", `/api/v1/locks/${encodeURIComponent(l.name)}`).then(loaded.reload),
  });
  const columns = [
    { title: "Lock", kind: "lead", cell: (/** @type {any} */ l) => html`<span class="mono" title=${l.name}>${l.name}</span>` },
    { title: "Owner", cell: (/** @type {any} */ l) => html`<span class="cut" title=${l.owner}>${l.owner ?? "–"}</span>` },
    { title: "Limit", kind: "number", cell: (/** @type {any} */ l) => l.limit },
    { title: "Taken", kind: "no-wrap", cell: (/** @type {any} */ l) => html`<${Time} at=${l.taken} />` },
    { title: "Until", kind: "no-wrap", cell: (/** @type {any} */ l) => html`<${Time} at=${l.until} />` },
    ...(may ? [{ title: "", kind: "hand", cell: (/** @type {any} */ l) => html`<button type="button" class="small harmful" onClick=${() => release(l)}>Let go…</button>` }] : []),
  ];
  return html`<${Head} title="Locks" /><${Status} loaded=${loaded} many=${locks.length} none="Nothing is locked." />
    <${Table} label="Locks" columns=${columns} rows=${locks} id=${(/** @type {any} */ l) => `${l.name} ${l.taken} ${l.i}`} /><${More} list=${loaded} first="longest held" />`;
}
