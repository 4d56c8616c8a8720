// @ts-check
// What the server keeps from sight in arguments: it stands there as a text of its own, which is no value to enqueue. Pure.

export const HIDDEN = "***";
/** Deeper is nothing that people typed. */
const DEPTH = 100;

/** Where it stands, as JSON pointers. @param {any} value @param {string} [place] @returns {string[]} */
export function hidden(value, place = "", depth = DEPTH) {
  if (value === HIDDEN) return [place || "/"];
  if (value === null || typeof value !== "object" || depth === 0) return [];
  return Object.entries(value).flatMap(([name, inner]) => hidden(inner, `${place}/${name.replace(/~/g, "~0").replace(/\//g, "~1")}`, depth - 1));
}
