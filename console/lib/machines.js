// @ts-check
// What is known of the machines that run a livesys image: what the journal has of their messages and their jobs, what
// comes, who is connected; and of those that were silent for long, what each said last.
//
// What must hold: what is read of the past never covers what came meanwhile, and a past that is large is read to its
// end; what was left out is said.

import { at, get } from "./api.js";
import { useEffect, useMemo, useRef, useState } from "./html.js";
import { TOPIC, heard, machineIn, machineOf, seen, under, worked } from "./images.js";
import { useList } from "./list.js";
import { follow, onTasks } from "./live.js";
import { each } from "./many.js";
import { persist } from "./persist.js";
import { pathOf } from "./reading.js";
import { uses } from "./topic.js";

/** So many messages, and events of machines' jobs, are read of the past. */
const PAST = 1000;
/** Of a machine that is not among them so many. */
const OF_ONE = 20;
/** So many of those are asked for, and so many at once: a node reads few histories at a time. */
const [ASKED_MAX, AT_ONCE] = [500, 3];
/** A failed look is tried again with the next list, which comes so often. In milliseconds. */
const LIST_EVERY = 5000;
const [SESSIONS, TOPICS] = [{ limit: 1000, pages: 10 }, { limit: 1000, pages: 5 }];

/** @typedef {{topic: string, data: any, at: string}} Said */
/** @typedef {import("./images.js").Images} Images */
/** @typedef {{past: any, inventories: any, orders: any}} Failed Why something is not known. */
/** @typedef {{images: Images, refused: string | null, failed: Failed, change: (how: (now: Images) => Images) => void, read: boolean}} Known */

/**
 * All that a filter's journal has from the last so many on. A page ends early when its messages are large, and the
 * newest are what counts: so it is read to where the journal ended when this began.
 * @param {string} filter @param {number} last @returns {AsyncGenerator<any[]>} Page by page.
 */
async function* pastOf(filter, last) {
  const path = pathOf(filter);
  const offset = (/** @type {string} */ position) => Number(position.split(":")[1]);
  const end = offset((await get(at(path, { after: "latest", limit: 1 }))).next);
  /** @type {Record<string, any>} */
  let from = { last };
  for (;;) {
    const { messages, next } = await get(at(path, { ...from, limit: PAST }));
    yield messages;
    if (offset(next) >= end || messages.length === 0) return;
    from = { after: next };
  }
}

/** @param {any[]} events @returns {Said[]} */
const said = (events) => events.map((m) => ({ topic: m.subject ?? TOPIC, data: m.data, at: m.time }));

/** Inventories that jobs made, as if the machines had told them. @param {any[]} jobs @returns {Said[]} */
const inventories = (jobs) =>
  jobs.filter((j) => j.result?.type === "inventory" && j.result.host).map((j) => ({ topic: `${TOPIC}/${j.result.host}`, data: j.result, at: j.finished }));

/** What the machines say, and said. @param {(how: (now: Images) => Images) => void} change @param {(error: any) => void} trouble @param {(why: string | null) => void} refuse @param {(yes: boolean) => void} done */
function listen(change, trouble, refuse, done) {
  const take = (/** @type {Said[]} */ messages) => change((now) => messages.reduce(heard, now));
  let begun = false;
  /** What the past had goes up to there; null while it is being read. @type {number | null} */
  let known = null;
  let reading = () => {};
  /** Of the past that is read. */
  let round = 0;
  /** @type {import("./live.js").Message[]} */
  const early = [];
  // the journal knows when each was said, a subscription only what
  const past = async () => {
    const mine = ++round;
    let last = 0;
    for await (const messages of pastOf(TOPIC, PAST)) {
      if (mine !== round) return;
      take(said(messages));
      last = Number(messages.at(-1)?.sequence ?? last);
    }
    known = last;
    live(early.splice(0));
    done(true);
  };
  const live = (/** @type {import("./live.js").Message[]} */ messages) => {
    const fresh = messages.filter((m) => !m.position || (known !== null && m.position.offset > known));
    take(fresh.map((m) => ({ topic: m.topic, data: m.data, at: new Date().toISOString() })));
  };
  const stop = follow(TOPIC, { last: 1 }, {
    hear: (messages) => {
      if (!begun && messages.some((m) => m.position)) [begun, reading] = [true, persist(past, trouble)];
      if (!begun || known !== null) return live(messages);
      // the newest: the journal has the others
      early.push(...messages);
      early.splice(0, early.length - PAST);
    },
    // nothing was ever said, or nothing is kept
    caught: () => begun || done(true),
    missed: () => {
      // another journal, perhaps
      reading();
      round += 1;
      begun = false;
      known = null;
    },
    state: (now, why) => refuse(now === "refused" ? (why ?? "") : null),
  });
  return () => {
    stop();
    reading();
    round += 1;
  };
}

/** What becomes of their jobs, and became. @param {(how: (now: Images) => Images) => void} change @param {(what: "inventories" | "orders") => (error: any) => void} trouble */
function watch(change, trouble) {
  const take = (/** @type {Said[]} */ messages) => change((now) => messages.reduce(heard, now));
  const jobs = (/** @type {any[]} */ events, told = performance.now()) => change((now) => events.reduce((images, e) => worked(images, e.data, { type: e.type, told }), now));
  const found = async () => {
    const answer = await get(at("/api/v1/jobs", { task: `${TOPIC}/inventory`, state: "finished", limit: 50 }));
    take(inventories([...answer.jobs].reverse()));
  };
  let over = false;
  const orders = async () => {
    const told = performance.now();
    for await (const events of pastOf(`task/${TOPIC}`, PAST)) {
      if (over) return;
      jobs(events, told);
    }
  };
  const first = persist(found, trouble("inventories"));
  let reading = persist(orders, trouble("orders"));
  const stop = onTasks((events) => {
    take(inventories(events.filter((e) => e.type === "task.finished").map((e) => e.data)));
    const mine = events.filter((e) => typeof e.data.task === "string" && machineIn(e.data.task));
    if (mine.length > 0) jobs(mine);
  }, () => {
    reading();
    reading = persist(orders, trouble("orders"));
  });
  return () => {
    over = true;
    [first, reading, stop].forEach((end) => end());
  };
}

/** Everything that is known of the images: what is kept, what jobs found out, and what comes. @returns {Known} */
function useImages() {
  const [images, set] = useState(/** @type {Images} */ (new Map()));
  const [refused, setRefused] = useState(/** @type {string | null} */ (null));
  const [failed, setFailed] = useState(/** @type {Failed} */ ({ past: null, inventories: null, orders: null }));
  const [read, setRead] = useState(false);
  const over = useRef(false);
  const change = (/** @type {(now: Images) => Images} */ how) => over.current || set(how);
  const trouble = (/** @type {keyof Failed} */ what) => (/** @type {any} */ error) => over.current || setFailed((now) => ({ ...now, [what]: error }));
  useEffect(() => {
    over.current = false;
    const stops = [listen(change, trouble("past"), setRefused, setRead), watch(change, trouble)];
    return () => {
      over.current = true;
      stops.forEach((stop) => stop());
    };
  }, []);
  return { images, refused, failed, change, read };
}

/** Who is there, and who ever was, as far as the node tells. */
function useNames() {
  const sessions = useList("/api/v1/sessions", "sessions", { ...SESSIONS, every: LIST_EVERY });
  const topics = useList("/api/v1/topics", "topics", { ...TOPICS, query: { prefix: TOPIC }, every: LIST_EVERY });
  const jobs = useList("/api/v1/topics", "topics", { ...TOPICS, query: { prefix: `task/${TOPIC}` }, every: LIST_EVERY });
  const there = useMemo(() => {
    const [hearing, pulling] = [new Set(), new Set()].map((s) => /** @type {Set<string>} */ (s));
    for (const use of sessions.rows.flatMap(uses)) {
      const name = machineOf(use);
      if (name) (use.verb === "pull" ? pulling : hearing).add(name);
    }
    // a session that pulls more than is shown of it
    for (const t of topics.rows) {
      const name = t.pattern === "push" && t.pullers > 0 ? machineIn(t.topic) : null;
      if (name) pulling.add(name);
    }
    return { hearing, pulling, known: sessions.data !== null };
  }, [sessions.data, topics.data]);
  const known = useMemo(() => {
    /** Is what is said to it kept, and does it work? @type {Map<string, {kept: boolean, works: boolean}>} */
    const found = new Map();
    const put = (/** @type {string | null} */ name, kept = false, works = false) => {
      const before = name ? found.get(name) : undefined;
      if (name) found.set(name, { kept: kept || Boolean(before?.kept), works: works || Boolean(before?.works) });
    };
    for (const t of topics.rows) put(machineIn(t.topic), t.pattern === "sub" && t.durable, t.pattern === "push");
    for (const t of jobs.rows) put(machineIn(t.topic.replace(/^task\//, "")), false, true);
    for (const name of there.hearing) put(name);
    for (const name of there.pulling) put(name, false, true);
    return found;
  }, [topics.data, jobs.data, there]);
  const cut = [sessions, topics, jobs].some((list) => list.next !== null);
  return { there, known, cut, error: sessions.error ?? topics.error ?? jobs.error, listed: topics.data !== null || topics.error !== null };
}

/** What those said and were told last of whom the newest messages and events have nothing. @param {Known} of @param {ReturnType<typeof useNames>} names */
function useSilent(of, names) {
  const asked = useRef(/** @type {Set<string>} */ (new Set()));
  const busy = useRef(false);
  const [left, setLeft] = useState(0);
  const [error, setError] = useState(/** @type {any} */ (null));
  const over = useRef(false);
  useEffect(() => () => void (over.current = true), []);
  const one = async (/** @type {string} */ name, /** @type {boolean} */ kept, /** @type {boolean} */ works) => {
    const told = performance.now();
    if (kept) {
      const messages = /** @type {Said[]} */ ([]);
      for await (const page of pastOf(`${TOPIC}/${name}`, OF_ONE)) messages.push(...said(page));
      of.change((now) => under(now, name, messages));
    }
    if (!works) return;
    const { jobs } = await get(at("/api/v1/jobs", { task: `${TOPIC}/${name}`, limit: 1 }));
    of.change((now) => jobs.reduce((/** @type {Images} */ images, /** @type {any} */ job) => worked(images, job, { told }), now));
  };
  useEffect(() => {
    if (!of.read || busy.current || document.hidden) return;
    const unknown = (/** @type {import("./images.js").Image | undefined} */ image, /** @type {boolean} */ works) => !image?.heard || (works && image.order?.job == null);
    const silent = [...names.known].filter(([name, { works }]) => !asked.current.has(name) && unknown(of.images.get(name), works));
    const some = silent.slice(0, ASKED_MAX - asked.current.size);
    setLeft(silent.length - some.length);
    if (some.length === 0) return;
    busy.current = true;
    some.forEach(([name]) => asked.current.add(name));
    const look = (/** @type {typeof some[0]} */ [name, { kept, works }]) => one(name, kept, works).catch((e) => {
      // who may not know it is not told more by asking again
      if (e.status !== 400 && e.status !== 403) asked.current.delete(name);
      throw e;
    });
    void each(some, AT_ONCE, look, () => over.current).then((errors) => {
      busy.current = false;
      if (!over.current) setError(errors[0] ?? null);
    });
  }, [of.read, names.known]);
  return { left, error };
}

/** All machines, who of them is there, what could not be known, and what was left out. */
export function useMachines() {
  const known = useImages();
  const names = useNames();
  const silent = useSilent(known, names);
  const images = useMemo(() => seen(known.images, names.known), [known.images, names.known]);
  return { images, there: names.there, refused: known.refused, failed: { ...known.failed, names: names.error, asked: silent.error }, change: known.change, left: silent.left, cut: names.cut, loading: !names.listed || (!known.read && known.refused === null) };
}
