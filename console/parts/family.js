// @ts-check
// Who stands before and behind a job: the nearest as a picture, and all of them as a list, a page at a time.

import { at, useLoad } from "../lib/api.js";
import { count, gist } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { ROW_MAX } from "../lib/kin.js";
import { write } from "../lib/route.js";
import { Failure, State } from "./bits.js";
import { Graph } from "./graph.js";

/** So many are asked for at once. */
const PAGE = 50;

/** Jobs by their numbers, asked for anew while they may change. @param {number[]} ids */
function useJobs(ids) {
  const loaded = useLoad(ids.length > 0 ? at("/api/v1/jobs", { id: ids, limit: 100 }) : null, { every: 3000 });
  return { known: new Map((loaded.data?.jobs ?? []).map((/** @type {any} */ j) => [j.id, j])), asked: Boolean(loaded.data), error: loaded.error };
}

/** @param {{ids: number[], word: string}} props */
function Relatives({ ids, word }) {
  const [page, turn] = useState(0);
  const shown = ids.slice(page * PAGE, (page + 1) * PAGE);
  const { known, asked, error } = useJobs(shown);
  const last = Math.ceil(ids.length / PAGE) - 1;
  const gone = { state: "removed" };
  return html`<${Failure} error=${error} /><ol class="relatives" aria-label=${`All ${word}`}>${shown.map((id) => {
    const job = known.get(id);
    return html`<li key=${id} data-row=${id}><a data-open href=${write("jobs", id)}>#${id}</a> ${(job || asked) && html`<${State} job=${job ?? gone} />`}
      <span class="mono">${job?.task ?? ""}</span><span class="gist mono">${job ? gist(job) : ""}</span></li>`;
  })}</ol>${last > 0 && html`<div class="edge"><button type="button" class="small" disabled=${page === 0} onClick=${() => turn(page - 1)}>Before</button>
    <span class="soft" role="status">${count(page * PAGE + 1)} to ${count(page * PAGE + shown.length)} of ${count(ids.length)}</span>
    <button type="button" class="small" disabled=${page === last} onClick=${() => turn(page + 1)}>Behind</button></div>`}`;
}

/** @param {{job: any}} props */
export function Kin({ job }) {
  const [listed, list] = useState("");
  const parents = /** @type {number[]} */ (job.parents ?? []);
  const children = /** @type {number[]} */ (job.children ?? []);
  const { known, asked, error } = useJobs([...parents.slice(0, ROW_MAX), ...children.slice(0, ROW_MAX)]);
  if (parents.length + children.length === 0) return null;
  const one = (/** @type {number} */ id) => ({ id, state: known.get(id)?.state ?? (asked ? "gone" : ""), task: known.get(id)?.task ?? null });
  const more = /** @type {[string, number[]][]} */ ([["parents", parents], ["children", children]]).filter(([, ids]) => ids.length > ROW_MAX);
  const shown = more.find(([word]) => word === listed);
  return html`<section class="panel" aria-labelledby="h-kin"><header><h2 id="h-kin">Parents and children</h2>
    ${job.lax && html`<span class="soft">runs though parents fail</span>`}</header><${Failure} error=${error} />
    <${Graph} parents=${parents.slice(0, ROW_MAX).map(one)} job=${{ id: job.id, state: job.state, task: job.task }} children=${children.slice(0, ROW_MAX).map(one)} />
    ${more.length > 0 && html`<div class="edge">${more.map(([word, ids]) => html`<button type="button" class="small" aria-expanded=${listed === word ? "true" : "false"}
      onClick=${() => list(listed === word ? "" : word)}>All ${count(ids.length)} ${word}</button>`)}</div>`}
    ${shown && html`<${Relatives} key=${listed} ids=${shown[1]} word=${listed} />`}</section>`;
}
