// @ts-check
// Minium in pages and in Node: subscriptions, publishing, work and peers that survive cuts, over minium.v1.
//
//     import { connect } from "/sdk.js";
//     const minium = connect(location.origin);
//     for await (const event of minium.subscribe("task", { after: "earliest" })) console.log(event);
//
// One file, no dependencies, no build step. It needs a WebSocket: that of the browser, that of Node 22, or any other
// with the same interface, handed over as `options.WebSocket`. What it promises is written in docs/clients.md.
//
// What must hold: a message that is kept is handed out once and in order; after a cut everything goes on behind the
// last one. Of filters on one socket that can match the same topic one waits while another reads history, and a message
// comes once for all of them: so they go to sockets of their own.
// A page cannot stop reading a socket: a subscription whose queue is full is given up, and begins again behind what it
// has queued when that was taken.

/** @typedef {{epoch: number, offset: number}} Position */
/** @typedef {{code: string, detail?: string, retryable?: boolean, earliest?: string, [more: string]: any}} Problem */
/** @typedef {{type: "message", topic: string, position: Position | null, data: any}} MessageEvent_ */
/** @typedef {{type: "gap", from: number | null, to: number | null}} GapEvent */
/** @typedef {{type: "caught_up", offset: number}} CaughtUpEvent */
/** @typedef {{type: "lost", problem: Problem}} LostEvent The position is gone: say `begin(…)`. */
/** @typedef {{type: "job", job: any, topic: string, work: Job}} JobEvent */
/** @typedef {{type: "refused", problem: Problem}} RefusedEvent One's own message was refused. */
/** @typedef {MessageEvent_ | GapEvent | CaughtUpEvent | LostEvent | JobEvent | RefusedEvent} Event_ */
/** @typedef {{getItem(key: string): string | null, setItem(key: string, value: string): void}} Store */
/** @typedef {"connecting" | "open" | "closed"} State */
/** @typedef {(ok: any) => void} Resolve */
/** @typedef {(why: Error) => void} Reject */
/** @typedef {{frame: any, again: boolean, topic: string | null, resolve: Resolve, reject: Reject}} Pending */
/**
 * @typedef {object} Options
 * @property {string | (() => string | Promise<string>)} [token] A function is asked before each connection.
 * @property {any} [WebSocket] In place of the global one.
 * @property {string[]} [elsewhere] Base URLs of further nodes.
 * @property {Store} [store] Where subscriptions with a `name` keep their positions, as `localStorage`.
 * @property {number} [queueMax] Events that wait for the program, for each subscription; 1,000.
 * @property {number} [unansweredMax] Calls whose answer is awaited; 1,000. Beyond, they are refused.
 * @property {number} [idle] Milliseconds of silence after which the server is asked whether it is there; 30,000.
 * @property {number} [pauseFirst] Upper bound of the first pause, in milliseconds; 200. It doubles.
 * @property {number} [pauseMax] Upper bound of every pause; 15,000.
 * @property {(state: State, why: string | null) => void} [onstate] Told of every change.
 */
/**
 * @typedef {object} SubscribeOptions
 * @property {string} [after] `E:O`, `O`, `earliest` or `latest` (the usual one).
 * @property {number} [last] Begin with the last so many messages.
 * @property {string} [name] Keep the position in the store under this name; what stands there wins over `after`.
 */

const EPHEMERAL_MAX = 1000;
/** The longest wait that a server may ask for, in milliseconds. */
const WAIT_MAX = 300_000;

/** What went wrong. `code` is a stable word of the server's, or `closed`, `cut`, `too_many`, `out_of_order`. */
export class MiniumError extends Error {
  /** @param {string} code @param {string} message @param {Problem | null} [problem] */
  constructor(code, message, problem = null) {
    super(message);
    this.name = "MiniumError";
    this.code = code;
    this.problem = problem;
  }
}

/** @param {Problem} problem */
const refused = (problem) => new MiniumError(problem.code, `${problem.code}: ${problem.detail ?? ""}`, problem);
/** @param {Position} p */
const written = (p) => `${p.epoch}:${p.offset}`;
/** Does the first position come after the second? @param {Position} a @param {Position} b */
const later = (a, b) => a.epoch > b.epoch || (a.epoch === b.epoch && a.offset > b.offset);
/** @param {string} filter @param {string} topic */
const matches = (filter, topic) => {
  const have = topic.split("/");
  return filter.split("/").every((want, i) => i < have.length && (want === "+" || want === have[i]));
};
/** Is there a topic that both reach? @param {string} a @param {string} b */
const meet = (a, b) => {
  const [x, y] = [a.split("/"), b.split("/")];
  return x.slice(0, y.length).every((s, i) => s === "+" || y[i] === "+" || s === y[i]);
};
/** @param {number} code */
const isFinal = (code) => [1000, 1002, 1003, 1007, 1008, 1009].includes(code) || (code >= 4500 && code < 5000);
/** The first duration in a text, as in `wait 2.5s`. @param {string} reason */
const waitIn = (reason) => {
  const found = /\b(\d+(?:\.\d+)?)(ms|s|m)?\b/.exec(reason);
  return found ? Number(found[1]) * { ms: 1, s: 1000, m: 60_000 }[/** @type {"ms"|"s"|"m"} */ (found[2] ?? "s")] : 0;
};
/** @param {string} token */
const bearer = (token) => "minium.bearer." + btoa(token).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
/** An id that nobody has. `randomUUID` is there only for pages that came by https. */
const fresh = () => {
  const bytes = Array.from({ length: 16 }, () => Math.floor(Math.random() * 256));
  const random = globalThis.crypto ? [...crypto.getRandomValues(new Uint8Array(16))] : bytes;
  return random.map((b) => b.toString(16).padStart(2, "0")).join("");
};
/** @param {any} frame */
const dataOf = ({ data, data_base64: base64 }) =>
  base64 === undefined ? (data ?? null) : Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

/** A connection to the server at this base URL. @param {string} url @param {Options} [options] */
export const connect = (url, options = {}) => new Connection(url, options);

/** Opens sockets as it needs them, usually one. */
export class Connection {
  /** @param {string} url @param {Options} options */
  constructor(url, options) {
    const usual = { queueMax: 1000, unansweredMax: 1000, idle: 30_000, pauseFirst: 200, pauseMax: 15_000 };
    this.options = { ...usual, ...options };
    this.WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (!this.WebSocket) throw new TypeError("there is no WebSocket here: hand one over as options.WebSocket");
    this.urls = [url, ...(options.elsewhere ?? [])].map((u) => u.replace(/\/+$/, "").replace(/^http/, "ws"));
    /** @type {Line[]} */
    this.lines = [];
    this.closed = false;
  }

  /** Everything that matches a filter, as an async iterable. @param {string} filter @param {SubscribeOptions} [options] */
  subscribe(filter, options = {}) {
    return this.#at(filter, new Subscription("sub", filter, options, this.options));
  }

  /**
   * Publishes a message. Where messages are kept it is committed when this resolves, with its position; said again
   * with the same id after a cut.
   * @param {string} topic @param {any} data @param {{id?: string}} [options]
   * @returns {Promise<Position | null>}
   */
  async publish(topic, data, { id = fresh() } = {}) {
    const ok = await this.#first().call({ op: "pub", topic, data, id }, true, topic);
    return ok.offset === undefined ? null : { epoch: ok.epoch, offset: ok.offset };
  }

  /**
   * Hands out work; resolves with the number of the job where work is kept. After a cut it is an error, unless
   * `options.key` makes a repetition harmless.
   * @param {string} topic @param {any} data @param {Record<string, any>} [options]
   * @returns {Promise<number | null>}
   */
  async push(topic, data, options) {
    const ok = await this.#first().call({ op: "push", topic, data, options }, Boolean(options?.key), null);
    return ok.job ?? null;
  }

  /**
   * Takes work: `job` events whose `work` wants a word, or bare messages where nothing is kept.
   * @param {string} topic @param {{credit?: number, queue?: string, tasks?: string[]}} [options]
   */
  pull(topic, options = {}) {
    if (this.closed) throw new MiniumError("closed", "the connection was closed");
    const line = new Line(this, true);
    this.lines.push(line);
    return line.sit(new Subscription("pull", topic, options, this.options));
  }

  /** Joins a bus: what the others send; `send(data)` to them. @param {string} topic */
  bus(topic) {
    return this.#at(topic, new Subscription("bus", topic, {}, this.options));
  }

  /** Ends everything. */
  close() {
    this.closed = true;
    for (const line of this.lines.splice(0)) line.end(new MiniumError("closed", "the connection was closed"), true);
  }

  /** @returns {State} */
  get state() {
    if (this.closed) return "closed";
    return this.lines.every((l) => l.online) && this.lines.length > 0 ? "open" : "connecting";
  }

  #first() {
    if (this.closed) throw new MiniumError("closed", "the connection was closed");
    const found = this.lines.find((l) => !l.own);
    if (found) return found;
    const line = new Line(this, false);
    this.lines.push(line);
    return line;
  }

  /** @param {string} filter @param {Subscription} seat */
  #at(filter, seat) {
    this.#first();
    let line = this.lines.find((l) => !l.own && ![...l.seats].some((s) => meet(s.filter, filter)));
    if (!line) this.lines.push((line = new Line(this, false)));
    return line.sit(seat);
  }
}

/** One socket, and the next, and so on, with what is to be said again over each. */
class Line {
  /** @param {Connection} connection @param {boolean} own Of one puller: it has no word for leaving but to close it. */
  constructor(connection, own) {
    this.connection = connection;
    this.own = own;
    this.options = connection.options;
    /** @type {Set<Subscription>} */
    this.seats = new Set();
    /** @type {Map<string, Pending>} */
    this.pending = new Map();
    /** Topics that keep nothing. @type {Set<string>} */
    this.ephemeral = new Set();
    /** Whose turn it is among the nodes. */
    this.turn = 0;
    /** In a row, since something came. */
    this.failures = 0;
    this.ref = 0;
    this.online = false;
    /** What is done when something comes. */
    this.alive = () => {};
    /** @type {any} */
    this.socket = null;
    /** @type {any} */
    this.timer = null;
    this.over = false;
    queueMicrotask(() => this.open());
  }

  async open() {
    if (this.over) return;
    const { token } = this.options;
    let bring;
    try {
      bring = typeof token === "function" ? await token() : token;
    } catch (e) {
      return this.cut(1006, `no token: ${e}`);
    }
    if (this.over) return;
    const base = this.connection.urls[this.turn % this.connection.urls.length];
    let socket;
    try {
      socket = new this.connection.WebSocket(`${base}/ws`, ["minium.v1", ...(bring ? [bearer(bring)] : [])]);
    } catch (e) {
      // an address or a token that no attempt can use, or a page that may not
      return this.end(new MiniumError("refused", `no socket to ${base}: ${e}`));
    }
    this.socket = socket;
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.connected();
    };
    socket.onmessage = (/** @type {any} */ { data }) => {
      if (this.socket !== socket) return;
      try {
        this.heard(JSON.parse(data));
      } catch (e) {
        // no node says that; what is between may have broken it, and over another socket nothing is lost
        this.drop(1006, `a frame that cannot be read: ${e}`);
      }
    };
    const gone = (/** @type {any} */ { code = 1006, reason = "" }) => {
      if (this.socket !== socket) return;
      this.socket = null;
      if (opened || typeof location === "object") this.cut(code, reason);
      else this.refusal(base, bring).then((why) => (why ? this.end(why) : this.cut(code, reason)));
    };
    socket.onclose = gone;
    socket.onerror = () => opened || gone({}); // some tell a failed handshake only here
  }

  /** Why a handshake was refused: outside of pages the same request without an upgrade tells it. @param {string} base @param {string | undefined} token */
  async refusal(base, token) {
    try {
      const headers = token ? { authorization: `Bearer ${token}` } : undefined;
      const answer = await fetch(base.replace(/^ws/, "http") + "/ws", { headers });
      const final = answer.status >= 400 && answer.status < 500 && ![408, 426, 429].includes(answer.status);
      if (!final || (answer.status === 401 && typeof this.options.token === "function")) return null;
      const text = await answer.text();
      return new MiniumError("refused", `the server answered ${answer.status}: ${text.slice(0, 300)}`);
    } catch {
      return null; // nobody there: that passes
    }
  }

  connected() {
    this.online = true;
    this.tell("open", null);
    for (const seat of this.seats) {
      seat.reconnected();
      this.ask(seat);
    }
    for (const [ref, { frame }] of this.pending) if (!frame.seat) this.write({ ...frame, ref });
    this.watch();
  }

  /** Asks whether the server is there when it says nothing for long. */
  watch() {
    let silent = 0;
    this.alive = () => void (silent = 0);
    clearInterval(this.timer);
    this.timer = setInterval(() => {
      silent += 1;
      if (silent === 1) this.write({ op: "ping" });
      if (silent > 1) this.drop(1006, "the server does not answer");
    }, this.options.idle);
    this.timer.unref?.();
  }

  /** The socket is of no use any more. @param {number} code @param {string} why */
  drop(code, why) {
    const socket = this.socket;
    this.socket = null;
    socket?.close(1000);
    this.cut(code, why);
  }

  /** The socket is gone. @param {number} code @param {string} reason */
  cut(code, reason) {
    clearInterval(this.timer);
    this.online = false;
    if (this.over) return;
    const renew = code === 4501 && typeof this.options.token === "function";
    if (isFinal(code) && !renew) {
      return this.end(code === 1000 ? null : new MiniumError("closed", `the server closed with ${code}: ${reason}`));
    }
    for (const seat of this.seats) seat.cut();
    for (const [ref, { again, topic, reject }] of this.pending) {
      // where nothing is kept, twice is worse than an error that says so
      if (again && !(topic && this.ephemeral.has(topic))) continue;
      this.pending.delete(ref);
      reject(new MiniumError("cut", `the connection was cut: ${reason}`));
    }
    this.turn += 1;
    const most = Math.min(this.options.pauseMax, this.options.pauseFirst * 2 ** Math.min(this.failures++, 30));
    const pause = Math.max(Math.random() * most, code === 4029 ? Math.min(waitIn(reason), WAIT_MAX) : 0);
    this.tell("connecting", reason || `closed with ${code}`);
    this.timer = setTimeout(() => this.open(), pause);
  }

  /** No socket comes any more. @param {MiniumError | null} why @param {boolean} [orderly] */
  end(why, orderly = false) {
    if (this.over) return;
    this.over = true;
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    if (socket) {
      // closing while it connects would be an error: then as soon as it can be
      if (socket.readyState === 0) socket.onopen = () => socket.close(1000);
      else socket.close(1000);
    }
    const closed = why ?? new MiniumError("closed", "the server has said that nothing more is to come");
    for (const { reject } of this.pending.values()) reject(closed);
    for (const seat of this.seats) seat.fail(orderly ? null : why);
    this.pending.clear();
    this.seats.clear();
    const { lines } = this.connection;
    if (lines.includes(this)) lines.splice(lines.indexOf(this), 1);
    this.tell("closed", why?.message ?? null);
  }

  /** @param {State} state @param {string | null} why */
  tell(state, why) {
    this.options.onstate?.(state, why);
  }

  /** @param {any} frame */
  write(frame) {
    if (this.online) this.socket?.send(JSON.stringify(frame));
  }

  /**
   * Says something that is answered.
   * @param {any} frame @param {boolean} again May it be said twice? @param {string | null} topic
   * @returns {Promise<any>}
   */
  call(frame, again, topic) {
    if (this.over) return Promise.reject(new MiniumError("closed", "the connection is over"));
    if (this.pending.size >= this.options.unansweredMax) {
      return Promise.reject(new MiniumError("too_many", "too many answers are awaited: await some first"));
    }
    return new Promise((resolve, reject) => this.say(frame, { again, topic, resolve, reject }));
  }

  /** @param {any} frame @param {{again: boolean, topic: string | null, resolve: Resolve, reject: Reject}} how */
  say(frame, how) {
    const ref = String(++this.ref);
    this.pending.set(ref, { frame, ...how });
    const { seat, ...rest } = frame;
    this.write({ ...rest, ref });
  }

  /** @param {Subscription} seat */
  sit(seat) {
    seat.line = this;
    this.seats.add(seat);
    this.ask(seat);
    return seat;
  }

  /** Asks for what a seat is for. @param {Subscription} seat */
  ask(seat) {
    const frame = this.online ? seat.request() : null;
    if (!frame) return;
    const resolve = (/** @type {any} */ ok) => this.seats.has(seat) && seat.opened(ok);
    const reject = (/** @type {any} */ why) => this.seats.has(seat) && why.code !== "cut" && this.denied(seat, why);
    this.say({ ...frame, seat: true }, { again: false, topic: null, resolve, reject });
  }

  /** @param {Subscription} seat @param {MiniumError} why */
  denied(seat, why) {
    if (why.code === "offset_expired" || why.code === "epoch_changed") return seat.lose(/** @type {Problem} */ (why.problem));
    if (!why.problem?.retryable) {
      this.seats.delete(seat);
      return seat.fail(why);
    }
    seat.stage = "waiting";
    const retry = setTimeout(() => seat.stage === "waiting" && this.seats.has(seat) && this.ask(seat), Math.random() * 1000);
    /** @type {any} */ (retry).unref?.();
  }

  /** Gives a seat up. @param {Subscription} seat */
  leave(seat) {
    if (!this.seats.delete(seat)) return;
    // words about jobs in hand still go out, over a socket that pulls nothing
    if (this.own) return seat.held.size === 0 ? this.end(null, true) : this.drop(1006, "the puller left");
    const none = () => {};
    this.say({ op: "unsub", topic: seat.filter }, { again: false, topic: null, resolve: none, reject: none });
    const isFirst = this.connection.lines.find((l) => !l.own) === this;
    if (this.seats.size === 0 && !isFirst) this.end(null, true);
  }

  /** @param {any} frame */
  heard(frame) {
    this.alive();
    if (frame.op !== "pong" && frame.op !== "error") this.failures = 0;
    const seat = (/** @type {(s: Subscription) => boolean} */ is) => [...this.seats].find((s) => s.stage === "open" && is(s));
    switch (frame.op) {
      case "msg":
        return seat((s) => matches(s.filter, frame.topic))?.message(frame);
      case "job":
        return seat((s) => s.role === "pull" && [s.filter, ...(s.options.tasks ?? [])].includes(frame.topic))?.job(frame);
      case "gap":
        return seat((s) => s.filter === frame.topic)?.passed({ type: "gap", from: frame.from ?? null, to: frame.to ?? null }, frame.to);
      case "caught_up":
        return seat((s) => s.filter === frame.topic)?.passed({ type: "caught_up", offset: frame.offset }, frame.offset);
      case "cancel":
        return this.seats.forEach((s) => s.cancel(frame.job));
      case "drain":
        return this.drop(4002, "the node goes down");
      case "ok":
      case "cancelled":
      case "pong":
      case "error":
        return this.answered(frame);
    }
  }

  /** @param {any} frame */
  answered(frame) {
    const pending = this.pending.get(frame.ref);
    if (!pending) return;
    // what cannot be done now is said again, later and in order
    const notNow = frame.op === "error" && ["unavailable", "rate_limited"].includes(frame.problem.code);
    if (notNow && pending.again) return this.drop(1013, refused(frame.problem).message);
    this.pending.delete(frame.ref);
    if (frame.op === "error") return pending.reject(refused(frame.problem));
    if (pending.frame.op === "pub" && frame.offset === undefined) {
      if (this.ephemeral.size >= EPHEMERAL_MAX) this.ephemeral.clear();
      this.ephemeral.add(pending.frame.topic);
    }
    pending.resolve(frame);
  }
}

/** What comes, as an async iterable of events: a subscription, a puller or a peer. Leaving the loop gives it up. */
export class Subscription {
  /** @param {"sub" | "pull" | "bus"} role @param {string} filter @param {any} options @param {Options} all */
  constructor(role, filter, options, all) {
    this.role = role;
    this.filter = filter;
    this.options = options;
    this.store = all.store;
    this.queueMax = all.queueMax ?? 1000;
    /** @type {"waiting" | "asked" | "open" | "behind" | "lost"} */
    this.stage = "waiting";
    /** @type {Line | null} */
    this.line = null;
    /** @type {Event_[]} */
    this.queue = [];
    /** Where to resume. @type {Position | null} */
    this.resume = null;
    /** Behind the last message that the program has taken. @type {Position | null} */
    this.position = null;
    /** @type {Map<string, {id: number, stop: AbortController}>} */
    this.held = new Map();
    /** It has been open before. */
    this.known = false;
    /** The server gave a position, so it can resume. */
    this.durable = false;
    /** Something new has come over this socket. */
    this.advanced = false;
    /** So many jobs were asked for over this socket, and have not come. */
    this.asked = 0;
    /** It was given messages without a lease: nothing is kept there. */
    this.bare = false;
    /** @type {MiniumError | null} */
    this.failure = null;
    this.done = false;
    /** @type {(() => void) | null} */
    this.wake = null;
    const stored = options.name ? this.store?.getItem(`minium:${options.name}`) : null;
    if (stored) this.options = { ...options, after: stored, last: undefined };
  }

  /** Events, in order. Where the position is kept, it is when the next event is asked for. */
  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        const event = await this.#next();
        if (!event) break;
        if (event.type === "message" && this.durable && event.position) this.position = event.position;
        yield event;
        this.#keep();
      }
      if (this.failure) throw this.failure;
    } finally {
      this.close();
    }
  }

  /** Begins anew after `lost`. @param {string} after */
  begin(after) {
    if (this.stage !== "lost") throw new MiniumError("conflict", "nothing is lost: there is nothing to begin anew");
    this.options = { ...this.options, after, last: undefined };
    this.resume = this.position = null;
    this.stage = "waiting";
    this.known = false;
    this.line?.ask(this);
  }

  /** To the other peers of a bus; what is refused comes as an event. @param {any} data */
  send(data) {
    const why = (/** @type {any} */ e) => e.problem && this.#put({ type: "refused", problem: e.problem });
    return this.line?.call({ op: "send", topic: this.filter, data }, false, null).then(() => {}, why);
  }

  close() {
    this.done = true;
    this.line?.leave(this);
    this.wake?.();
  }

  #keep() {
    if (this.options.name && this.position) this.store?.setItem(`minium:${this.options.name}`, written(this.position));
  }

  /** @returns {Promise<Event_ | null>} */
  async #next() {
    while (this.queue.length === 0 && !this.done) {
      if (this.stage === "behind") {
        // everything was taken: on behind it
        if (!this.durable) this.queue.push({ type: "gap", from: null, to: null });
        this.stage = "waiting";
        this.line?.ask(this);
        continue;
      }
      await new Promise((resolve) => (this.wake = () => resolve(null)));
    }
    return this.queue.shift() ?? null;
  }

  /** @param {Event_} event */
  #put(event) {
    this.queue.push(event);
    this.wake?.();
    if (this.queue.length < this.queueMax || this.stage !== "open" || this.role !== "sub") return;
    this.stage = "behind";
    const none = () => {};
    this.line?.say({ op: "unsub", topic: this.filter }, { again: false, topic: null, resolve: none, reject: none });
  }

  /** The frame that asks for it, or for more of it. */
  request() {
    if (this.stage === "lost" || this.stage === "behind") return null;
    const { role, filter: topic, options } = this;
    if (role === "pull") {
      const credit = (options.credit ?? 1) - this.asked - this.held.size;
      if (credit <= 0) return null;
      this.asked += credit;
      if (this.stage === "waiting") this.stage = "asked";
      return { op: "pull", topic, credit, queue: options.queue, tasks: options.tasks };
    }
    this.stage = "asked";
    if (role === "bus") return { op: "bus", topic };
    if (this.resume) return { op: "sub", topic, after: written(this.resume) };
    return { op: "sub", topic, after: options.last === undefined ? options.after : undefined, last: options.last };
  }

  /** @param {any} ok */
  opened(ok) {
    this.stage = "open";
    this.known = true;
    this.durable = ok.offset !== undefined;
    this.advanced = false;
    if (!this.durable || this.role !== "sub") return;
    this.resume ??= { epoch: ok.epoch, offset: ok.offset };
    this.position ??= this.resume;
  }

  reconnected() {
    const resumes = this.role === "pull" ? !this.bare : this.durable;
    if (this.known && !resumes && this.stage === "waiting") this.#put({ type: "gap", from: null, to: null });
  }

  cut() {
    if (this.stage !== "lost" && this.stage !== "behind") this.stage = "waiting";
    this.asked = 0;
  }

  /** @param {any} frame */
  message(frame) {
    const position = frame.offset === undefined ? null : { epoch: frame.epoch, offset: frame.offset };
    if (this.role === "sub" && this.durable && position) {
      if (this.resume && !later(position, this.resume)) {
        // once more right after a resume is harmless, anywhere else the order is broken
        if (!this.advanced) return;
        this.line?.leave(this);
        const words = `${written(position)} came after ${written(this.resume)}: the order of the journal is broken`;
        return this.fail(new MiniumError("out_of_order", words));
      }
      this.resume = position;
      this.advanced = true;
    }
    if (this.role === "pull") this.bare = true;
    this.#put({ type: "message", topic: frame.topic, position, data: dataOf(frame) });
  }

  /** Nothing up to this offset comes any more. @param {Event_} event @param {number | undefined} offset */
  passed(event, offset) {
    if (this.resume && offset !== undefined) this.resume = { ...this.resume, offset: Math.max(offset, this.resume.offset) };
    this.#put(event);
  }

  /** @param {Problem} problem */
  lose(problem) {
    this.stage = "lost";
    this.#put({ type: "lost", problem });
  }

  /** @param {MiniumError | null} why */
  fail(why) {
    this.failure = why;
    this.done = true;
    this.wake?.();
  }

  /** @param {any} frame */
  job(frame) {
    this.asked = Math.max(0, this.asked - 1);
    const stop = new AbortController();
    this.held.set(frame.lease, { id: frame.job.id, stop });
    this.#put({ type: "job", topic: frame.topic, job: frame.job, work: new Job(this, frame, stop.signal) });
  }

  /** @param {number} id */
  cancel(id) {
    for (const { id: held, stop } of this.held.values()) if (held === id) stop.abort();
  }

  /** A job has ended for us: there is room for another one. @param {string} lease */
  ended(lease) {
    if (!this.held.delete(lease)) return;
    if (!this.done) this.line?.ask(this);
    else if (this.held.size === 0) this.line?.end(null, true);
  }
}

/** A job that is ours while its lease holds. */
export class Job {
  /** @param {Subscription} puller @param {any} frame @param {AbortSignal} signal */
  constructor(puller, frame, signal) {
    this.puller = puller;
    this.id = frame.job.id;
    this.lease = frame.lease;
    this.leaseExpires = frame.lease_expires;
    /** Aborted when the job was cancelled: stop working on it. */
    this.signal = signal;
  }

  /** It ended well. @param {any} [result] */
  ack(result) {
    return this.#say({ op: "ack", result }, true);
  }

  /** It ended badly; with `retry` it may be tried again. @param {string} error @param {boolean} [retry] */
  nack(error, retry = true) {
    return this.#say({ op: "nack", error, retry }, true);
  }

  /** Notes and progress; the lease is extended. @param {Record<string, any>} notes @param {{percent: number, text?: string}} [progress] */
  note(notes, progress) {
    return this.#say({ op: "note", notes, progress }, false);
  }

  /** A line for the job's log; the lease is extended. @param {string} text @param {"step" | "debug" | "info" | "warn" | "error"} [level] */
  log(text, level = "info") {
    return this.#say({ op: "note", log: [{ at: new Date().toISOString(), level, text }] }, false);
  }

  /** Names the step that the job has reached. @param {string} name */
  step(name) {
    return this.log(name, "step");
  }

  /** The lease is extended. */
  extend() {
    return this.#say({ op: "extend" }, false);
  }

  /** @param {any} word @param {boolean} last */
  async #say(word, last) {
    const { puller, lease } = this;
    if (!puller.line) throw new MiniumError("closed", "the connection is over");
    try {
      const ok = await puller.line.call({ ...word, job: this.id, lease }, true, null);
      this.leaseExpires = ok.lease_expires ?? this.leaseExpires;
      if (ok.op === "cancelled") puller.cancel(this.id);
      if (last) puller.ended(lease);
    } catch (error) {
      const problem = error instanceof MiniumError ? error.problem : null;
      if (last && problem && !problem.retryable) puller.ended(lease);
      throw error;
    }
  }
}
