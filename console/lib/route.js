// @ts-check
// Where one is stands in the hash: `#/jobs?state=failed&task=import`. So every view, filters and all, can be sent to
// somebody else. Never a token: what stands in an address is kept by browsers and logs.

/** @typedef {{page: string, rest: string, query: Record<string, string>}} Place */

/** @param {string} hash @returns {Place} */
export function read(hash) {
  const text = hash.replace(/^#\/?/, "");
  const at = text.indexOf("?");
  const path = at < 0 ? text : text.slice(0, at);
  const slash = path.indexOf("/");
  const page = (slash < 0 ? path : path.slice(0, slash)) || "overview";
  const rest = slash < 0 ? "" : path.slice(slash + 1).split("/").map(decoded).join("/");
  /** @type {Record<string, string>} */
  const query = {};
  for (const [name, value] of new URLSearchParams(at < 0 ? "" : text.slice(at + 1))) query[name] = value;
  return { page, rest, query };
}

/**
 * The hash of a place; what is empty is left out.
 * @param {string} page @param {string | number} [rest] @param {Record<string, string | number | null | undefined>} [query]
 */
export function write(page, rest = "", query = {}) {
  const path = String(rest).split("/").map(encodeURIComponent).join("/");
  const said = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const search = new URLSearchParams(said.map(([name, value]) => [name, String(value)])).toString();
  return `#/${page}${path ? `/${path}` : ""}${search ? `?${search}` : ""}`;
}

/** @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
