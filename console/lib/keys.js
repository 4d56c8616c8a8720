// @ts-check
// Keys: what is pressed, alone or behind `g`, and what it does. Pure but for `listen`.

/** Behind `g`. */
export const PAGES = /** @type {Record<string, string>} */ ({
  o: "overview", j: "jobs", e: "enqueue", q: "queues", w: "workers", s: "schedules", k: "locks",
  t: "topics", l: "livesys", c: "schemas", n: "sessions", a: "audit",
});

/** What stands in the help. */
export const HELP = /** @type {[string, string][]} */ ([
  ["/", "Search, or the first filter"],
  ["j  k", "Next, previous row"],
  ["Enter", "Open the row"],
  ["x", "Select the row"],
  ["p", "Pause or go on, where something streams"],
  ["g then a letter", "Go to a page; the letters stand beside their names"],
  ["Esc", "Leave a field, close a dialog"],
  ["?", "This help"],
]);

/** @typedef {{type: "page", page: string} | {type: "search" | "next" | "previous" | "select" | "pause" | "help"}} Action */

/**
 * Which action a key stands for, and whether the next one is the second of a pair.
 * @param {boolean} second @param {string} key @returns {{action: Action | null, second: boolean}}
 */
export function read(second, key) {
  if (second) return { action: Object.hasOwn(PAGES, key) ? { type: "page", page: PAGES[key] } : null, second: false };
  const types = /** @type {const} */ ({ "/": "search", j: "next", k: "previous", x: "select", p: "pause", "?": "help" });
  if (key === "g") return { action: null, second: true };
  return { action: Object.hasOwn(types, key) ? { type: types[/** @type {keyof typeof types} */ (key)] } : null, second: false };
}

/** A pair must be pressed within this time. */
const PAIR = 1500;

/** @param {(action: Action) => void} act @returns {() => void} Ends it. */
export function listen(act) {
  let second = false;
  let at = 0;
  const pressed = (/** @type {KeyboardEvent} */ event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = /** @type {HTMLElement} */ (event.target);
    if (target.closest?.("input, textarea, select, [contenteditable]")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    if (document.querySelector("dialog[open]")) return;
    const found = read(second && event.timeStamp - at < PAIR, event.key);
    second = found.second;
    at = event.timeStamp;
    if (!found.action) return;
    event.preventDefault();
    act(found.action);
  };
  document.addEventListener("keydown", pressed);
  return () => document.removeEventListener("keydown", pressed);
}

/** Moves the focus among rows. @param {1 | -1} step */
export function move(step) {
  const links = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("[data-row] [data-open]")]).filter((l) => l.offsetParent !== null);
  const row = document.activeElement?.closest("[data-row]");
  const now = links.findIndex((link) => link.closest("[data-row]") === row);
  const next = links[now < 0 ? (step > 0 ? 0 : links.length - 1) : now + step];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}
