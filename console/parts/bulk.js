// @ts-check
// One action on many jobs: first what it would do, then that. What matches a filter is done by the server behind the
// request; an older one that cannot is asked piece by piece.

import { ApiError, ask, post } from "../lib/api.js";
import { count } from "../lib/format.js";
import { html, useEffect, useState } from "../lib/html.js";
import { Failure } from "./bits.js";
import { Dialog } from "./dialog.js";
import { say } from "./toast.js";

/** @typedef {{matched: number, changed: number, refused: number, done: boolean, error?: string | null, partial?: boolean}} Told */
/** @typedef {{action: "retry" | "cancel" | "remove", ids: number[] | null, filter: Record<string, any>, words: string}} Task */

const IDS_MAX = 100;
const PIECES_MAX = 200;
/** How often one looks, and how often when that fails. In milliseconds. */
const [LOOK, LOOK_AGAIN] = [400, 2000];
const STOPS_MAX = 10;

/** @param {AbortSignal} stop @param {number} ms @returns {Promise<void>} */
const pause = (stop, ms) => new Promise((resolve) => {
  const done = () => {
    clearTimeout(timer);
    stop.removeEventListener("abort", done);
    resolve();
  };
  const timer = setTimeout(done, ms);
  if (stop.aborted) done();
  else stop.addEventListener("abort", done);
});

/**
 * @param {Task} task @param {boolean} dry @param {AbortSignal} stop @param {(told: Told) => void} tell
 * @param {(error: any) => void} trouble Told what keeps it from looking, and null when it looks again.
 */
async function run(task, dry, stop, tell, trouble) {
  const sum = { matched: 0, changed: 0, refused: 0, done: false };
  const add = (/** @type {any} */ piece) => {
    for (const name of /** @type {const} */ (["matched", "changed", "refused"])) sum[name] += piece[name];
    tell({ ...sum });
  };
  const body = (/** @type {any} */ filter) => ({ action: task.action, filter, dry_run: dry });
  if (task.ids) {
    for (let i = 0; i < task.ids.length && !stop.aborted; i += IDS_MAX) add(await post("/api/v1/jobs:bulk", body({ id: task.ids.slice(i, i + IDS_MAX) })));
    return tell({ ...sum, done: true });
  }
  let begun;
  try {
    begun = await post("/api/v1/jobs:bulk", { ...body(task.filter), all: true });
  } catch (e) {
    if (!(e instanceof ApiError) || e.status !== 400) throw e;
    await pieces(body(task.filter), stop, add);
    return tell({ ...sum, done: true });
  }
  if (!(await watched(begun, stop, tell, trouble)) && !dry) say("Whether it has stopped is not known.", "bad");
}

/**
 * Looks until it is done. A look that fails changes nothing: the node goes on behind it, and has to be told to stop.
 * @param {any} begun @param {AbortSignal} stop @param {(told: Told) => void} tell @param {(error: any) => void} trouble
 * @returns {Promise<boolean>} Has it ended, as far as is known?
 */
async function watched(begun, stop, tell, trouble) {
  const path = `/api/v1/bulk/${encodeURIComponent(begun.id)}`;
  let told = begun;
  let failed = false;
  while (tell(told), !told.done) {
    await pause(stop, failed ? LOOK_AGAIN : LOOK);
    if (stop.aborted) return stopped(path);
    try {
      told = await ask("GET", path);
      failed = false;
      trouble(null);
    } catch (e) {
      failed = true;
      trouble(e);
    }
  }
  return true;
}

/** Nobody waits for it any more: it is tried a few times. @param {string} path */
async function stopped(path) {
  for (let i = 0; i < STOPS_MAX; i += 1) {
    try {
      await ask("DELETE", path);
      return true;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN));
    }
  }
  return false;
}

/** @param {any} body @param {AbortSignal} stop @param {(piece: any) => void} add */
async function pieces(body, stop, add) {
  let before = null;
  for (let i = 0; i < PIECES_MAX && !stop.aborted; i += 1) {
    const piece = await post("/api/v1/jobs:bulk", before === null ? body : { ...body, filter: { ...body.filter, before } });
    add(piece);
    before = piece.next;
    if (before === null) return;
  }
}

const VERBS = { retry: "Retry", cancel: "Cancel", remove: "Remove" };
const DONE = { retry: "wait again", cancel: "were cancelled", remove: "were removed" };

/** @param {{task: Task, close: (done: boolean) => void}} props */
export function Bulk({ task, close }) {
  const [said, tell] = useState(/** @type {{told: Told, of: string} | null} */ (null));
  const [phase, go] = useState(/** @type {"preview" | "run"} */ ("preview"));
  const [error, setError] = useState(/** @type {any} */ (null));
  // what the preview said is not what the run says
  const told = said?.of === phase ? said.told : null;
  useEffect(() => {
    const control = new AbortController();
    setError(null);
    const trouble = (/** @type {any} */ e) => control.signal.aborted || setError(e);
    run(task, phase === "preview", control.signal, (now) => control.signal.aborted || tell({ told: now, of: phase }), trouble).catch(trouble);
    return () => control.abort();
  }, [phase]);
  const verb = VERBS[task.action];
  useEffect(() => {
    if (phase !== "run" || !told?.done || told.error) return;
    say(`${count(told.changed)} ${told.changed === 1 ? "job" : "jobs"} ${DONE[task.action]}${told.refused ? `; ${count(told.refused)} could not` : ""}.`);
    close(true);
  }, [phase, told?.done]);
  const words = () => {
    if (!told) return "Looking…";
    const still = told.done ? "" : " so far";
    if (phase === "run") return `${count(told.changed)} of ${count(told.matched)} done${still}.`;
    return html`<b data-preview=${told.done ? "done" : "counting"}>
      ${count(told.changed)}</b> of ${count(told.matched)} that match would be changed${still}${told.refused ? html`; the state of <b>
      ${count(told.refused)}</b> forbids it` : ""}.`;
  };
  return html`<${Dialog} title=${`${verb} jobs`} close=${() => close(false)}>
    <p class="soft">${task.words}</p><p aria-live="polite">${words()}</p><${Failure} error=${error ?? (told?.error ? new Error(told.error) : null)} />
    <footer><button type="button" onClick=${() => close(phase === "run")}>${phase === "run" ? "Stop" : "Leave it"}</button>
      <button type="button" class=${task.action === "retry" ? "main" : "harmful"} disabled=${phase === "run" || !told || (told.done && told.changed === 0)} onClick=${() => go("run")}>${verb}${told?.done ? ` ${count(told.changed)}` : ""}</button></footer>
  </${Dialog}>`;
}
