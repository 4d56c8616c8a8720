// @ts-check
// Livesys images as their messages tell of them: when each was heard, what it has, what it was told and how that ended.
// Pure: messages in, machines out.

/**
 * @typedef {object} Order
 * @property {string} command
 * @property {string | null} id
 * @property {any} args
 * @property {string} at
 * @property {{state: string, text: string, at: string} | null} outcome
 */
/**
 * @typedef {object} Image
 * @property {string} name
 * @property {string | null} heard When it spoke last; commands to it do not count.
 * @property {string | null} state
 * @property {string} text
 * @property {any} inventory
 * @property {string | null} inventoried
 * @property {Order | null} order
 */

const IMAGES_MAX = 2000;
/** What is sent there goes to all. */
export const ALL = "all";

/** @param {string} name @returns {Image} */
const unknown = (name) => ({ name, heard: null, state: null, text: "", inventory: null, inventoried: null, order: null });

/**
 * A further message.
 * @param {ReadonlyMap<string, Image>} images @param {{topic: string, data: any, at: string}} message
 * @returns {Map<string, Image>}
 */
export function heard(images, { topic, data, at }) {
  const next = new Map(images);
  if (!data || typeof data !== "object") return next;
  const place = topic.split("/")[1] ?? "";
  if (data.type === "command") {
    /** @type {Order} */
    const order = { command: String(data.command), id: data.id ?? null, args: data.args ?? null, at, outcome: null };
    const told = place === ALL || place === "" ? [...next.keys()] : [place];
    for (const name of told) next.set(name, { ...(next.get(name) ?? unknown(name)), order });
    return bounded(next);
  }
  const name = place && place !== ALL ? place : data.host;
  if (typeof name !== "string" || !name) return next;
  const image = { ...(next.get(name) ?? unknown(name)) };
  const said = typeof data.time === "string" && !Number.isNaN(Date.parse(data.time)) ? data.time : at;
  if (!image.heard || Date.parse(said) >= Date.parse(image.heard)) image.heard = said;
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
