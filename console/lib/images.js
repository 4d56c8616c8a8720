// @ts-check
// Livesys images as their messages and their jobs tell of them: when each was heard, what it has, what it was told and
// how that ended. Pure: messages and jobs in, machines out.
//
// A machine hears commands on `livesys/N`, or takes them as work: then they are jobs of the task `livesys/N`.

import { line } from "./format.js";

/** What both are below. */
export const TOPIC = "livesys";
/** What is sent there goes to all. */
export const ALL = "all";
/** Tasks and topics there that are no machine's. */
const OTHERS = [ALL, "inventory", "+"];
const IMAGES_MAX = 2000;
const WORDS_MAX = 200;

/**
 * @typedef {object} Order
 * @property {string} command
 * @property {string | null} id
 * @property {number | null} job
 * @property {any} args
 * @property {string} at
 * @property {Outcome | null} outcome
 * @property {number} told When this page heard of it, by a clock of the page's own.
 */
/** @typedef {{state: string, text: string, at: string | null}} Outcome */
/**
 * @typedef {object} Image
 * @property {string} name
 * @property {string | null} heard When it spoke last, or took work; commands to it do not count.
 * @property {string | null} state
 * @property {string} text
 * @property {any} inventory
 * @property {string | null} inventoried
 * @property {Order | null} order
 * @property {boolean} works It takes commands as work.
 */
/** @typedef {ReadonlyMap<string, Image>} Images */

/** The machine that a topic, a filter or a task is for, and for no other. @param {string} topic @returns {string | null} */
export function machineIn(topic) {
  const [first, name, ...more] = topic.split("/");
  return first === TOPIC && more.length === 0 && name && !OTHERS.includes(name) ? name : null;
}

/** The same of what a session does: some machines hear, others pull. @param {{verb: string, filter: string}} use */
export const machineOf = ({ verb, filter }) => (verb === "sub" || verb === "pull" ? machineIn(filter) : null);

/** @param {string} name @returns {Image} */
const unknown = (name) => ({ name, heard: null, state: null, text: "", inventory: null, inventoried: null, order: null, works: false });

/** @param {string | null} a @param {string | null} b */
const later = (a, b) => (a && (!b || Date.parse(a) >= Date.parse(b)) ? a : b);

/** A further message. @param {Images} images @param {{topic: string, data: any, at: string}} message @returns {Map<string, Image>} */
export function heard(images, { topic, data, at }) {
  const next = new Map(images);
  if (!data || typeof data !== "object") return next;
  const place = topic.split("/")[1] ?? "";
  if (data.type === "command") {
    /** @type {Order} */
    const order = { command: String(data.command), id: data.id ?? null, job: null, args: data.args ?? null, at, outcome: null, told: 0 };
    const told = place === ALL || place === "" ? [...next.keys()] : [place];
    for (const name of told) {
      const image = next.get(name) ?? unknown(name);
      // what was said before is read when jobs may be known already
      if (later(at, image.order?.at ?? null) === at) next.set(name, { ...image, order });
    }
    return bounded(next);
  }
  const name = place && place !== ALL ? place : data.host;
  if (typeof name !== "string" || !name) return next;
  const image = { ...(next.get(name) ?? unknown(name)) };
  const said = typeof data.time === "string" && !Number.isNaN(Date.parse(data.time)) ? data.time : at;
  image.heard = later(said, image.heard);
  if (data.type === "inventory") [image.inventory, image.inventoried] = [data, said];
  if (data.type === "status") {
    [image.state, image.text] = [String(data.state), data.text ?? ""];
    if (image.order && data.answers && data.answers === image.order.id) {
      image.order = { ...image.order, outcome: { state: String(data.state), text: data.text ?? "", at: said } };
    }
  }
  next.set(name, image);
  return bounded(next);
}

/**
 * A job of a machine's own task, as an event has it (`type` is the event's) or as it stood when it was asked for.
 * @param {Images} images @param {any} job @param {{type?: string, told: number}} how `told`: since when that is known.
 * What an event has said since then is newer than a job that was asked for.
 * @returns {Map<string, Image>}
 */
export function worked(images, job, { type = "", told }) {
  const next = new Map(images);
  const name = typeof job?.task === "string" ? machineIn(job.task) : null;
  if (!name) return next;
  const image = { ...(next.get(name) ?? unknown(name)), works: true };
  const known = image.order;
  const same = known?.job === job.id;
  const newer = !known || (known.job === null ? later(job.created, known.at) === job.created : job.id > known.job);
  if (newer || (same && told >= (known?.told ?? 0))) {
    const outcome = outcomeOf(job, type, same ? (known?.outcome ?? null) : null);
    image.order = { command: commandOf(job.args), id: null, job: job.id, args: job.args, at: job.created, outcome, told };
  }
  // whoever runs it is there; what ends without one says nothing of that
  image.heard = later(job.state === "finished" || type === "task.failed" ? job.finished : job.started, image.heard);
  next.set(name, image);
  return bounded(next);
}

/** What it is told to do: `{"command"}`, as messages have it, or whatever the arguments are. @param {any} args */
function commandOf(args) {
  const one = Array.isArray(args) && args.length === 1 ? args[0] : args;
  return typeof one?.command === "string" ? one.command : line(one, WORDS_MAX);
}

/** What has become of a job, as one tells it of a command. @param {any} job @param {string} type @param {Outcome | null} before @returns {Outcome} */
function outcomeOf(job, type, before) {
  if (type === "task.expired") return { state: "expired", text: "it was not taken in time", at: null };
  // what is removed after its end has ended as it did
  if (type === "task.removed") return before && job.state !== "inactive" ? before : { state: "removed", text: "", at: null };
  const result = job.result === null || job.result === undefined ? "" : line(job.result, WORDS_MAX);
  switch (job.state) {
    case "inactive":
      return { state: "sent", text: job.attempt > 0 ? `try ${job.attempt} of ${job.attempts} has failed: ${line(job.error ?? "", WORDS_MAX)}` : "", at: null };
    case "active":
      return { state: "taken", text: job.progress ? `${Math.round(job.progress.percent)} % ${job.progress.text ?? ""}` : "", at: job.started };
    case "finished":
      return { state: "finished", text: result, at: job.finished };
    default:
      return { state: job.state, text: job.error ? line(job.error, WORDS_MAX) : "", at: job.finished };
  }
}

/** Those that are known by name alone are machines, too. @param {Images} images @param {Iterable<[string, {works: boolean}]>} names @returns {Map<string, Image>} */
export function seen(images, names) {
  const next = new Map(images);
  for (const [name, { works }] of names) {
    const image = next.get(name) ?? unknown(name);
    next.set(name, works && !image.works ? { ...image, works } : image);
  }
  return next;
}

/** What one machine said before, put under what was heard meanwhile. @param {Images} images @param {string} name @param {{topic: string, data: any, at: string}[]} messages */
export function under(images, name, messages) {
  const past = messages.reduce(heard, new Map()).get(name);
  const now = images.get(name);
  if (!past || !now) return past ? bounded(new Map(images).set(name, past)) : new Map(images);
  const [state, text] = now.state === null ? [past.state, past.text] : [now.state, now.text];
  const [inventory, inventoried] = now.inventory === null ? [past.inventory, past.inventoried] : [now.inventory, now.inventoried];
  const newer = !now.order || (past.order && Date.parse(past.order.at) > Date.parse(now.order.at));
  const order = newer ? past.order : now.order;
  return new Map(images).set(name, { ...now, state, text, inventory, inventoried, order, heard: later(now.heard, past.heard) });
}

/** The longest unheard go first. @param {Map<string, Image>} images */
function bounded(images) {
  if (images.size <= IMAGES_MAX) return images;
  const oldest = [...images.values()].sort((a, b) => String(a.heard ?? "").localeCompare(String(b.heard ?? "")))[0];
  images.delete(oldest.name);
  return images;
}

/** A few lines about a machine. @param {any} report @param {(n: number) => string} bytes @returns {[string, string][]} */
export function summary(report, bytes) {
  /** @type {[string, string][]} */
  const lines = [];
  const put = (/** @type {string} */ name, /** @type {any} */ value) => value && lines.push([name, String(value)]);
  const named = (/** @type {any} */ list, /** @type {(d: any) => any} */ more) =>
    (Array.isArray(list) ? list : []).filter(Boolean).map((d) => [d.name, more(d)].filter(Boolean).join(" ")).join(", ");
  put("board", [report?.dmi?.vendor, report?.dmi?.product].filter(Boolean).join(" "));
  put("cpu", [report?.cpu?.model, report?.cpu?.threads && `${report.cpu.threads} threads`].filter(Boolean).join(", "));
  put("memory", report?.memory?.total_bytes && bytes(report.memory.total_bytes));
  put("disks", named(report?.block, (d) => d.size_bytes && bytes(d.size_bytes)));
  put("network", named(report?.network?.filter?.((/** @type {any} */ l) => l?.physical !== false), (l) => l.state));
  put("kernel", report?.kernel);
  return lines;
}
