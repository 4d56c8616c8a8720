// @ts-check
// The filters of the list of jobs: as they stand in the address, as the API takes them in a query and in a body. Pure.

/** What can be asked for, and how it is called. */
export const KNOWN = /** @type {const} */ (["state", "phase", "task", "queue", "q", "note", "arg", "id", "origin", "enqueued_after", "enqueued_before", "ended_after", "ended_before"]);
const MANY = /** @type {readonly string[]} */ (["state", "phase", "task", "queue", "id"]);
const TIMES = /** @type {readonly string[]} */ (["enqueued_after", "enqueued_before", "ended_after", "ended_before"]);

/** @param {string} text */
const parts = (text) => text.split(/[\s,]+/).filter(Boolean);

/** A time as people type it, as RFC 3339. @param {string} text */
const time = (text) => (Number.isNaN(Date.parse(text)) ? text : new Date(text).toISOString());

/**
 * For GET /api/v1/jobs.
 * @param {Record<string, string>} query @returns {Record<string, string | string[]>}
 */
export function asked(query) {
  /** @type {Record<string, string | string[]>} */
  const out = {};
  for (const name of KNOWN) {
    const said = query[name]?.trim();
    if (!said) continue;
    out[name] = MANY.includes(name) ? parts(said) : TIMES.includes(name) ? time(said) : said;
  }
  return out;
}

/**
 * For POST /api/v1/jobs:bulk.
 * @param {Record<string, string>} query @returns {Record<string, any>}
 */
export function body(query) {
  const out = /** @type {Record<string, any>} */ (asked(query));
  if (out.id) out.id = out.id.map(Number);
  if (out.origin) out.origin = Number(out.origin);
  // in a query the server parts names at commas, and leaves what has a value whole
  if (out.note && !out.note.includes("=")) out.note = out.note.split(",");
  return out;
}

/** Is anything asked for? @param {Record<string, string>} query */
export const some = (query) => KNOWN.some((name) => query[name]?.trim());

/**
 * A row after a further event of its job, or read anew. An event has no phase: an older one stands while the state does.
 * @param {any} row @param {any} job
 */
export const renewed = (row, job) => ({ ...job, phase: job.phase ?? (row.state === job.state ? row.phase : job.state === "inactive" ? phase(job) : null) });

/** @param {any} job */
const phase = (job) => (Date.parse(job.delayed) > Date.now() ? "delayed" : undefined);
