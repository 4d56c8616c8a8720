// @ts-check
// One hour of task events in figures: how many were enqueued, finished and failed, how long they waited and ran.
//
// Pure and bounded: a ring of 5 s pieces; times are counted in bins that grow by a quarter each, so any pieces can be
// put together and quantiles are right to about an eighth. The events' own times count, not those of this machine.

/** Seconds of a piece, and how many there are. */
export const PIECE = 5;
export const PIECES = 720;
const FIRST = 0.001;
const GROWTH = 1.25;
const BINS = 84; // up to about 36 h

/** @param {number} seconds */
export function bin(seconds) {
  if (!(seconds > FIRST)) return 0;
  return Math.min(BINS - 1, Math.ceil(Math.log(seconds / FIRST) / Math.log(GROWTH)));
}

/** The middle of a bin. @param {number} index */
const value = (index) => (index === 0 ? FIRST : FIRST * GROWTH ** (index - 0.5));

/** @param {Uint32Array} bins @param {number} q @returns {number | null} */
export function quantile(bins, q) {
  const all = bins.reduce((sum, n) => sum + n, 0);
  if (all === 0) return null;
  let left = Math.ceil(q * all);
  for (let i = 0; i < bins.length; i += 1) {
    left -= bins[i];
    if (left <= 0) return value(i);
  }
  return null;
}

/** @typedef {{at: number, enqueued: number, finished: number, failed: number, waits: Uint32Array, runs: Uint32Array}} Piece */

export class Figures {
  constructor() {
    /** By number of the piece, modulo their count. @type {(Piece | undefined)[]} */
    this.ring = new Array(PIECES);
    /** The number of the first piece that anything is known of. */
    this.first = Infinity;
    /** Changes with every event. */
    this.version = 0;
  }

  /** @param {any} event A task event. */
  add(event) {
    const time = Date.parse(event.time);
    if (!Number.isFinite(time)) return;
    const piece = this.#piece(Math.floor(time / 1000 / PIECE));
    if (!piece) return;
    const job = event.data;
    this.version += 1;
    this.first = Math.min(this.first, piece.at);
    if (event.type === "task.enqueue") piece.enqueued += 1;
    if (event.type === "task.dequeue") count(piece.waits, latest(job.created, job.delayed, job.retried), job.started);
    if (event.type === "task.finished" || event.type === "task.failed") {
      piece[event.type === "task.finished" ? "finished" : "failed"] += 1;
      count(piece.runs, job.started, job.finished ?? event.time);
    }
  }

  /** @param {number} number @returns {Piece | null} */
  #piece(number) {
    const slot = number % PIECES;
    const there = this.ring[slot];
    if (there?.at === number) return there;
    if (there && there.at > number) return null; // too old for the ring
    const made = { at: number, enqueued: 0, finished: 0, failed: 0, waits: new Uint32Array(BINS), runs: new Uint32Array(BINS) };
    this.ring[slot] = made;
    return made;
  }

  /**
   * The last `span` seconds before `now` in columns for a chart; rates are per second, times in seconds. Before the
   * first event that was heard nothing is known, and nothing is said.
   * @param {number} now Milliseconds. @param {number} span @param {number} step Seconds, a multiple of a piece.
   */
  columns(now, span, step) {
    const per = Math.max(1, Math.round(step / PIECE));
    const end = Math.floor(now / 1000 / PIECE / per) * per + per;
    const steps = Math.round(span / PIECE / per);
    /** @type {{at: number[]} & Record<"enqueued" | "finished" | "failed" | "wait50" | "wait95" | "run50" | "run95", (number | null)[]>} */
    const out = { at: [], enqueued: [], finished: [], failed: [], wait50: [], wait95: [], run50: [], run95: [] };
    for (let s = 0; s < steps; s += 1) {
      const first = end - (steps - s) * per;
      const sum = this.#sum(first, per);
      // the last column is not over yet
      const seconds = Math.min(per * PIECE, Math.max(1, now / 1000 - first * PIECE));
      out.at.push(first * PIECE);
      const known = first + per > this.first;
      for (const what of /** @type {const} */ (["enqueued", "finished", "failed"])) out[what].push(known ? sum[what] / seconds : null);
      out.wait50.push(quantile(sum.waits, 0.5));
      out.wait95.push(quantile(sum.waits, 0.95));
      out.run50.push(quantile(sum.runs, 0.5));
      out.run95.push(quantile(sum.runs, 0.95));
    }
    return out;
  }

  /** @param {number} first @param {number} many */
  #sum(first, many) {
    const sum = { enqueued: 0, finished: 0, failed: 0, waits: new Uint32Array(BINS), runs: new Uint32Array(BINS) };
    for (let n = first; n < first + many; n += 1) {
      const piece = this.ring[((n % PIECES) + PIECES) % PIECES];
      if (!piece || piece.at !== n) continue;
      for (const what of /** @type {const} */ (["enqueued", "finished", "failed"])) sum[what] += piece[what];
      for (const what of /** @type {const} */ (["waits", "runs"])) piece[what].forEach((many, i) => (sum[what][i] += many));
    }
    return sum;
  }

  /** Everything of the last `span` seconds. @param {number} now @param {number} span */
  total(now, span) {
    const end = Math.floor(now / 1000 / PIECE) + 1;
    const many = Math.round(span / PIECE);
    const sum = this.#sum(end - many, many);
    return { ...sum, wait50: quantile(sum.waits, 0.5), wait95: quantile(sum.waits, 0.95), run50: quantile(sum.runs, 0.5), run95: quantile(sum.runs, 0.95) };
  }
}

/** @param {Uint32Array} bins @param {string | null} from @param {string | null} to */
function count(bins, from, to) {
  if (!from || !to) return;
  const seconds = (Date.parse(to) - Date.parse(from)) / 1000;
  if (Number.isFinite(seconds)) bins[bin(seconds)] += 1;
}

/** @param {(string | null)[]} times */
function latest(...times) {
  return times.reduce((last, time) => (time && (!last || Date.parse(time) > Date.parse(last)) ? time : last), null);
}
