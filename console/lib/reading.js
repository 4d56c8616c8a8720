// @ts-check
// What an auditor reads: some topics in some time, a window of it at once, moved to and fro without holding the whole.

import { at, lines } from "./api.js";
import { useEffect, useRef, useState } from "./html.js";
import { ALL, TOPIC } from "./images.js";
import { PAGE_MAX, ahead, behind } from "./journal.js";
import { SLACK, seek } from "./seek.js";

/** So many are read at once, and held. */
export const [PIECE, ROWS_MAX] = [200, 1000];
/** So much is saved at once: entries, and their characters. */
const [SAVED_MAX, SAVED_CHARS_MAX] = [500_000, 256 << 20];

/** @typedef {import("./journal.js").Entry} Entry */
/** @typedef {{topics: string[], from: number, to: number, kind: string, word: string, machine: boolean}} Wanted */

/**
 * What a machine is told comes to it alone or to all, or is a job that it takes: all of that is its history.
 * @param {Record<string, string>} query @returns {Wanted | null}
 */
export function wanted(query) {
  const [topic, machine] = [(query.topic ?? "").trim(), (query.machine ?? "").trim()];
  const topics = machine ? (machine === ALL ? [`${TOPIC}/${ALL}`] : [`${TOPIC}/${machine}`, `${TOPIC}/${ALL}`, `task/${TOPIC}/${machine}`]) : topic ? [topic] : [];
  if (topics.length === 0) return null;
  const time = (/** @type {string | undefined} */ said, /** @type {number} */ none) => (said && !Number.isNaN(Date.parse(said)) ? Date.parse(said) : none);
  return { topics, from: time(query.from, -Infinity), to: time(query.to, Infinity), kind: (query.kind ?? "").trim(), word: (query.q ?? "").trim().toLowerCase(), machine: machine !== "" };
}

/** What an entry is called: by its data where it is a message, else by its event. @param {any} event @returns {string} */
export const kindOf = (event) => String(event.type === "message" ? (event.data?.type ?? "message") : event.type);

/** A machine is told something by a command, or by a job. @param {Wanted} want @param {any} event */
const isOf = (want, event) => kindOf(event) === want.kind || (want.machine && want.kind === "command" && event.type === "task.enqueue");

/** @param {Wanted} want */
export const fits = (want) => (/** @type {Entry} */ entry) =>
  entry.time >= want.from && entry.time < want.to && (!want.kind || isOf(want, entry.event)) && (!want.word || entry.line.toLowerCase().includes(want.word));

/** @param {Wanted} want */
const late = (want) => (/** @type {Entry} */ entry) => entry.time >= want.to + SLACK;
/** @param {Wanted} want */
const early = (want) => (/** @type {Entry} */ entry) => entry.time < want.from - SLACK;

/** @param {string} topic */
export const pathOf = (topic) => `/history/${topic.split("/").map((s) => (s === "+" ? "+" : encodeURIComponent(s))).join("/")}`;

/** @param {string} line @returns {Entry} */
function entry(line) {
  const event = JSON.parse(line);
  return { offset: Number(event.sequence), time: Date.parse(event.time), event, line };
}

/** @param {string} position */
const parts = (position) => /** @type {[string, number]} */ ([position.split(":")[0], Number(position.split(":")[1])]);

/** A topic of which nothing can be read, and why. @typedef {{topic: string, why: any}} Unread */

/** Where each topic's journal ends; of some nothing is kept, others the token may not read. @param {Wanted} want */
async function ends(want) {
  const asked = await Promise.all(want.topics.map(async (topic) => {
    const answer = await lines(at(pathOf(topic), { after: "latest", limit: 1 })).catch((why) => ({ why }));
    if (!("why" in answer)) return { topic, end: parts(answer.next), why: null };
    if (!["invalid_request", "forbidden"].includes(answer.why.code)) throw answer.why;
    return { topic, end: null, why: answer.why };
  }));
  const open = asked.flatMap(({ topic, end }) => (end ? [{ topic, epoch: end[0], end: end[1] }] : []));
  const unread = /** @type {Unread[]} */ (asked.filter(({ end }) => !end));
  if (open.length === 0) throw unread[0].why;
  return { topics: open.map((o) => o.topic), epoch: open[0].epoch, end: Math.max(...open.map((o) => o.end)), unread };
}

/** Where the journal of these topics begins and ends, and how it is read. @param {Wanted} want */
export async function journal(want) {
  const { topics, epoch, end, unread } = await ends(want);
  /** @type {import("./journal.js").Read} */
  const read = async (topic, after, limit) => {
    const page = (/** @type {string} */ position) => lines(at(pathOf(topic), { after: position, limit }));
    const answer = await page(`${epoch}:${after}`).catch((e) => {
      // retention has taken what stood there: what is kept goes on behind it
      if (e.code !== "offset_expired" || !e.earliest) throw e;
      return page(e.earliest);
    });
    return { entries: answer.lines.map(entry), next: parts(answer.next)[1] };
  };
  const oldest = await Promise.all(topics.map(async (topic) => (await lines(at(pathOf(topic), { limit: 1 }))).lines.map(entry)[0]?.offset ?? end + 1));
  const first = Math.min(...oldest);
  const look = async (/** @type {number} */ after) => {
    const found = (await Promise.all(topics.map((topic) => read(topic, after, 1)))).flatMap((p) => p.entries);
    return found.length > 0 ? found.reduce((a, b) => (b.offset < a.offset ? b : a)) : null;
  };
  /** Behind which offset all from that time on is found. */
  const where = (/** @type {number} */ time) => (time === -Infinity ? Promise.resolve(first - 1) : seek(time, first - 1, end, look));
  return { topics, unread, read, first, end, where };
}

/**
 * @typedef {object} Window_
 * @property {Entry[]} rows
 * @property {number} low Everything that fits from this offset on…
 * @property {number} high …up to this one is shown.
 * @property {boolean} begins Nothing stands before it. @property {boolean} ends Nothing stands behind it.
 * @property {number} looked How many entries the last look has seen.
 * @property {"earlier" | "later" | null} busy @property {any} error
 * @property {Unread[]} unread Of the topics that are wanted.
 */
const NOTHING = /** @type {Window_} */ ({ rows: [], low: 0, high: 0, begins: true, ends: true, looked: 0, busy: "later", error: null, unread: [] });

/** The window, and what moves it. @param {Wanted} want It must stay the same object. */
export function useReading(want) {
  const [now, set] = useState(NOTHING);
  const over = useRef(false);
  const book = useRef(/** @type {Awaited<ReturnType<typeof journal>> | null} */ (null));
  const held = useRef(now);
  held.current = now;
  const put = (/** @type {Partial<Window_>} */ part) => over.current || set((was) => ({ ...was, busy: null, error: null, ...part }));
  const failed = (/** @type {any} */ error) => put({ error });

  const later = async (window = held.current) => {
    const { topics, read } = /** @type {NonNullable<typeof book.current>} */ (book.current);
    const piece = await behind(read, topics, window.high, PIECE, fits(want), late(want));
    const all = [...window.rows, ...piece.entries];
    const rows = all.slice(-ROWS_MAX);
    const gone = rows.length < all.length;
    put({ rows, low: gone ? rows[0].offset : window.low, high: piece.to, begins: window.begins && !gone, ends: piece.end, looked: piece.looked });
  };
  const earlier = async (window = held.current) => {
    const { topics, read, first } = /** @type {NonNullable<typeof book.current>} */ (book.current);
    const piece = await ahead(read, topics, window.low, first, PIECE, fits(want), early(want));
    const all = [...piece.entries, ...window.rows];
    const rows = all.slice(0, ROWS_MAX);
    const gone = rows.length < all.length;
    put({ rows, low: piece.to, high: gone ? rows[rows.length - 1].offset : window.high, begins: piece.end, ends: window.ends && !gone, looked: piece.looked });
  };
  const move = (/** @type {"earlier" | "later"} */ way) => {
    if (held.current.busy || !book.current) return;
    set((was) => ({ ...was, busy: way, error: null }));
    (way === "later" ? later() : earlier()).catch(failed);
  };

  useEffect(() => {
    over.current = false;
    const begin = async () => {
      const { first, end, where, unread } = (book.current = await journal(want));
      if (!over.current) set((was) => ({ ...was, unread }));
      if (want.from > -Infinity) {
        const low = await where(want.from);
        return later({ ...NOTHING, low: low + 1, high: low, begins: true });
      }
      // the newest of it, which is read backwards; the end of a time lies a little behind its last entry
      const high = want.to < Infinity ? Math.min(end, await where(want.to + 3 * SLACK)) : end;
      await earlier({ ...NOTHING, low: high + 1, high: high, ends: true });
    };
    begin().catch(failed);
    return () => void (over.current = true);
  }, [want]);
  return { ...now, move };
}

/**
 * All that is wanted, from its beginning to its end, as lines of the very bytes that the server has.
 * @param {Wanted} want @param {AbortSignal} stop @param {(many: number, time: number) => void} tell
 * @returns {Promise<{parts: string[], many: number, cut: number | null}>} `cut`: it was too much, and ends at that time.
 */
export async function collect(want, stop, tell) {
  const { topics, read, where } = await journal(want);
  /** @type {string[]} */
  const found = [];
  let [many, chars, to] = [0, 0, await where(want.from)];
  for (;;) {
    const piece = await behind(read, topics, to, PAGE_MAX, fits(want), late(want));
    if (piece.entries.length > 0) {
      const text = piece.entries.map((e) => `${e.line}\n`).join("");
      [many, chars] = [many + piece.entries.length, chars + text.length];
      found.push(text);
    }
    const last = piece.entries.at(-1);
    to = piece.to;
    if (last) tell(many, last.time);
    if (piece.end || stop.aborted) return { parts: found, many, cut: null };
    if (many >= SAVED_MAX || chars >= SAVED_CHARS_MAX) return { parts: found, many, cut: last?.time ?? null };
  }
}
