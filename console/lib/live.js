// @ts-check
// What comes by itself: subscriptions over sdk.js that rest while nobody looks.
//
// What must hold: a hidden page streams nothing; one that is seen again, that was cut off or whose server began anew
// goes on by itself; nothing is handed out twice. Buffers are sdk.js's, and bounded there.

import { connect } from "../sdk.js";
import * as session from "./session.js";
import { Store } from "./store.js";

/** @typedef {"connecting" | "open" | "resting" | "refused"} Live */
/** @typedef {{topic: string, data: any, position: {epoch: number, offset: number} | null, past: boolean}} Message `past`: it
 * was said before one began to listen, and nobody told when. */
/**
 * @typedef {object} Ear
 * @property {(messages: Message[]) => void} hear Told a few times a second, in order.
 * @property {(why: string) => void} [missed] Messages were missed, so what was counted up is worth a look anew.
 * @property {() => void} [caught] All that was said before it began was handed out.
 * @property {(state: Live, why: string | null) => void} [state]
 */

/** How it stands with the stream of task events. @type {Store<Live>} */
export const state = new Store(/** @type {Live} */ ("connecting"));
/** Messages are handed on together, so that a fast stream costs one drawing for many. */
const TOGETHER = 120;

/** @type {import("../sdk.js").Connection | null} */
let connection = null;
/** The token that it was made with. */
let shown = "";
/** @type {Set<() => void>} */
const restarts = new Set();
/** The subscriptions that are open. Without any the connection is ended: it would keep a socket. */
const running = new Set();

function line() {
  // errors end a subscription, which tells them; a refused token ends the connection, and a new one is made
  if (connection && shown !== session.token.value) hangUp();
  shown = session.token.value;
  connection ??= connect(location.origin, {
    token: shown || undefined,
    onstate: (now) => {
      if (state.value === "resting" || state.value === "refused") return;
      if (now !== "closed") state.set(now === "open" ? "open" : "connecting");
    },
  });
  return connection;
}

/** Ends the connection: the next subscription makes one of its own. */
function hangUp() {
  connection?.close();
  connection = null;
}

/**
 * Follows a filter until it is told to stop.
 * @param {string} filter @param {{last?: number, after?: string, anew?: boolean}} from Where it begins. After a rest it
 * goes on behind what was heard or, with `anew`, begins as at first and passes over what it had: a long rest costs no more.
 * @param {Ear} ear @returns {() => void} Ends it.
 */
export function follow(filter, from, ear) {
  let over = false;
  /** @type {import("../sdk.js").Subscription | null} */
  let open = null;
  /** Behind what was heard. @type {{epoch: number, offset: number} | null} */
  let behind = null;
  /** @type {Message[]} */
  let heard = [];
  let timer = 0;
  let round = 0;

  const flush = () => {
    clearTimeout(timer);
    timer = 0;
    const some = heard;
    heard = [];
    if (some.length > 0 && !over) ear.hear(some);
  };
  let past = false;
  /** Nothing came since it began anew. */
  let first = false;
  const take = (/** @type {{topic: string, data: any, position: {epoch: number, offset: number} | null}} */ message) => {
    const { topic, data, position } = message;
    // after a long rest the last ones do not reach back to what was heard
    if (first && from.anew && position && behind && position.epoch === behind.epoch && position.offset > behind.offset) ear.missed?.("rest");
    first = false;
    if (position && behind && position.epoch === behind.epoch && position.offset <= behind.offset) return;
    if (position) behind = position;
    heard.push({ topic, data, position, past });
    timer ||= window.setTimeout(flush, TOGETHER);
  };
  const start = async () => {
    if (over || document.hidden) return ear.state?.("resting", null);
    const mine = ++round;
    /** @type {any} */
    let options = behind && !from.anew ? { after: `${behind.epoch}:${behind.offset}` } : { last: from.last, after: from.after };
    for (;;) {
      past = options.last !== undefined || (options.after !== undefined && options.after !== "latest");
      first = true;
      ear.state?.("open", null);
      const subscription = line().subscribe(filter, options);
      open = subscription;
      running.add(subscription);
      try {
        for await (const event of subscription) {
          if (mine !== round || over) return;
          if (event.type === "message") take(event);
          if (event.type === "caught_up") {
            past = false;
            flush();
            ear.caught?.();
          }
          if (event.type === "gap") ear.missed?.("gap");
          if (event.type === "lost") {
            behind = null;
            ear.missed?.("lost");
            // another epoch is another journal; of the same one there may be more than anybody wants to see
            subscription.begin(event.problem.code === "epoch_changed" ? "earliest" : "latest");
          }
        }
        if (mine === round && !over) ear.state?.("refused", "the server has ended it");
        return;
      } catch (e) {
        running.delete(subscription);
        if (mine !== round || over) return;
        const why = /** @type {any} */ (e);
        if (why.code === "invalid_request" && (options.last !== undefined || options.after !== undefined)) {
          // nothing is kept there: what comes from now on
          options = {};
          ear.caught?.();
          continue;
        }
        if (/\b4501\b/.test(why.message)) session.want("This server asks for a token.");
        // a connection that was ended for good is of no use to others either
        if (why.code === "closed" || why.code === "refused") hangUp();
        return ear.state?.("refused", why.message);
      }
    }
  };
  const rest = () => {
    round += 1;
    open?.close();
    running.delete(open);
    open = null;
    if (running.size === 0) hangUp();
  };
  const seen = () => {
    if (document.hidden) {
      rest();
      ear.state?.("resting", null);
    } else void start();
  };
  document.addEventListener("visibilitychange", seen);
  const restart = () => {
    rest();
    behind = null;
    void start();
  };
  const renewed = session.token.watch(restart);
  restarts.add(restart);
  void start();
  return () => {
    over = true;
    rest();
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", seen);
    renewed();
    restarts.delete(restart);
  };
}

/** Begins every stream anew, after one was refused. */
export const tryAgain = () => [...restarts].forEach((restart) => restart());

/** @type {Set<(events: any[]) => void>} */
const listeners = new Set();
/** @type {Set<() => void>} */
const anew = new Set();
let following = false;

/** So many events of the past are read at the start. */
const LAST = 2000;

/**
 * Every task event, from the one stream of the whole page; of the past, the first who listens has some.
 * @param {(events: any[]) => void} hear @param {() => void} [missed] @returns {() => void}
 */
export function onTasks(hear, missed = () => {}) {
  listeners.add(hear);
  anew.add(missed);
  if (!following) {
    following = true;
    follow("task", { last: LAST, anew: true }, {
      hear: (messages) => {
        const events = messages.map((m) => m.data).filter((e) => typeof e?.type === "string" && e.data && typeof e.data === "object");
        for (const listener of [...listeners]) listener(events);
      },
      missed: () => [...anew].forEach((tell) => tell()),
      state: (now) => state.set(now === "open" ? (connection?.state === "open" ? "open" : "connecting") : now),
    });
  }
  return () => {
    listeners.delete(hear);
    anew.delete(missed);
  };
}
