// @ts-check
// Values in words, as people read them. Pure, and the same everywhere.

const STEPS = /** @type {const} */ ([[60, "s"], [60, "min"], [24, "h"], [Infinity, "d"]]);

/** A span of seconds in its largest fitting unit. @param {number} seconds */
export function span(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 0.001) return "0 s";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  let value = seconds;
  for (const [size, unit] of STEPS) {
    if (value < size * 0.9995 || size === Infinity) return `${Math.round(value)} ${unit}`;
    value /= size;
  }
  return "–";
}

/** How far a time is from now. @param {string | null | undefined} time @param {number} now */
export function ago(time, now) {
  if (!time) return "–";
  const seconds = (now - Date.parse(time)) / 1000;
  if (!Number.isFinite(seconds)) return "–";
  if (Math.abs(seconds) < 1) return "now";
  const whole = Math.abs(seconds) < 10 ? Math.floor(Math.abs(seconds)) : Math.abs(seconds);
  return seconds < 0 ? `in ${span(whole)}` : `${span(whole)} ago`;
}

/** The seconds between two times, null where one is missing. @param {string | null} from @param {string | null} to */
export function between(from, to) {
  return from && to ? (Date.parse(to) - Date.parse(from)) / 1000 : null;
}

/** @param {string | null | undefined} time Local, with the offset of its zone, for who looks closely. */
export function absolute(time) {
  if (!time || Number.isNaN(Date.parse(time))) return "";
  const date = new Date(time);
  const two = (/** @type {number} */ n, width = 2) => String(n).padStart(width, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const offset = -date.getTimezoneOffset();
  const zone = offset === 0 ? "UTC" : `${offset < 0 ? "-" : "+"}${two(Math.floor(Math.abs(offset) / 60))}:${two(Math.abs(offset) % 60)}`;
  return `${day} ${clock(time)}.${two(date.getMilliseconds(), 3)} ${zone}`;
}

/** The time of day. @param {string | number} time */
export function clock(time) {
  const date = new Date(time);
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((n) => String(n).padStart(2, "0")).join(":");
}

/** A count with its thousands parted. @param {number | null | undefined} value */
export function count(value) {
  return typeof value === "number" ? value.toLocaleString("en") : "–";
}

/** A rate per second. @param {number | null | undefined} value */
export function rate(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  if (value === 0) return "0/s";
  return `${value < 10 ? Number(value.toFixed(value < 1 ? 2 : 1)) : Math.round(value).toLocaleString("en")}/s`;
}

/** @param {number | null | undefined} value */
export function bytes(value) {
  if (typeof value !== "number") return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let [rest, unit] = [value, 0];
  while (rest >= 1024 && unit < units.length - 1) [rest, unit] = [rest / 1024, unit + 1];
  return `${rest >= 100 || unit === 0 ? Math.round(rest) : rest.toFixed(1)} ${units[unit]}`;
}

/** JSON in one line, cut where it would be too long to look at. @param {any} value @param {number} [most] */
export function line(value, most = 240) {
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? "");
  // of a long one only the beginning is looked at
  const flat = text.slice(0, most * 4).replace(/\s+/g, " ");
  return flat.length > most || text.length > most * 4 ? `${flat.slice(0, most - 1)}…` : flat;
}

/**
 * What a job's state is called where its phase says more. Lists do not tell the phase: who has no parents is not blocked.
 * @param {{state: string, phase?: string | null, parents?: any[], delayed?: string}} job
 */
export function stateOf(job) {
  if (job.state !== "inactive") return job.state;
  if (job.phase) return job.phase;
  if (!Array.isArray(job.parents) || job.parents.length > 0) return "inactive";
  return Date.parse(job.delayed ?? "") > Date.now() ? "delayed" : "ready";
}

/**
 * What a job tells in a list: why it failed, what it brought, how far it is.
 * @param {any} job
 */
export function gist(job) {
  if (job.state === "failed" && job.error) return line(job.error);
  if (job.state === "finished" && job.result !== null && job.result !== undefined) return line(job.result);
  if (job.progress?.text) return job.progress.text;
  const notes = Object.entries(job.notes ?? {});
  return line(notes.map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`).join("  "));
}
