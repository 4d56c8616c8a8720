// @ts-check
// Topics and filters as the server's lists name them. Pure.

const VERBS = ["sub", "pub", "push", "pull", "bus"];
const SEGMENT = /^[A-Za-z0-9_.~:@-]{1,128}$/;

/** Would the server take it for a topic? @param {string} text */
export function isTopic(text) {
  const segments = text.split("/");
  return text.length <= 255 && segments.length <= 16 && segments.every((s) => SEGMENT.test(s) && s !== "." && s !== "..");
}

/**
 * What a session is there for: its own verb and filters, or a verb before each where it does several things.
 * @param {{pattern: string | null, filters?: string[]}} session @returns {{verb: string, filter: string}[]}
 */
export function uses({ pattern, filters = [] }) {
  return filters.map((text) => {
    const [first, ...rest] = text.split("/");
    if (pattern === null && rest.length > 0 && VERBS.includes(first)) return { verb: first, filter: rest.join("/") };
    return { verb: pattern ?? "", filter: text };
  });
}

/** @typedef {{topic: string, deep: number, entry: any | null, rate: number, patterns: string[]}} Node_ `entry` is the server's, of what is said on the topic itself; `rate` goes for all below, too. */

/**
 * Topics as a tree in the order in which it is read; what lies between is put in.
 * @param {{topic: string, pattern: string, rate?: number}[]} entries @returns {Node_[]}
 */
export function tree(entries) {
  /** @type {Map<string, Node_>} */
  const nodes = new Map();
  for (const entry of entries) {
    const parts = entry.topic.split("/");
    for (let deep = 1; deep <= parts.length; deep += 1) {
      // only what is published reaches those above
      if (deep < parts.length && entry.pattern !== "sub") continue;
      const topic = parts.slice(0, deep).join("/");
      const mine = deep === parts.length;
      const id = `${topic} ${mine ? entry.pattern : "sub"}`;
      const node = nodes.get(id) ?? { topic, deep: deep - 1, entry: null, rate: 0, patterns: [entry.pattern] };
      node.rate += entry.rate ?? 0;
      if (mine) node.entry = entry;
      nodes.set(id, node);
    }
  }
  const order = (/** @type {Node_} */ n) => `${n.topic.replaceAll("/", "\u0001")}\u0000${n.patterns[0]}`;
  return [...nodes.values()].sort((a, b) => (order(a) < order(b) ? -1 : 1));
}
