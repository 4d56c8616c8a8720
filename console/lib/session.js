// @ts-check
// Who uses the page: the token, kept for this tab alone, and what it is known to allow.
//
// What must hold: the token goes out as a header or a subprotocol and stands in no address. The server decides what it
// allows; the page reads the scopes only to spare people buttons that would be refused.

import { Store } from "./store.js";

const KEY = "minium:token";

/** @returns {string} */
function kept() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** The token, or nothing. */
export const token = new Store(kept());
/** Why signing in is asked for, or nothing. @type {Store<string | null>} */
export const wanted = new Store(/** @type {string | null} */ (null));
/** Scopes that the server has refused since the token was given. @type {Store<ReadonlySet<string>>} */
export const refused = new Store(/** @type {ReadonlySet<string>} */ (new Set()));

/** Who does not want to sign in is not asked again for the same token. @type {string | null} */
let left = null;

/** Asks for a token. @param {string} why */
export function want(why) {
  if (left !== token.value) wanted.set(why);
}

export function leave() {
  left = token.value;
  wanted.set(null);
}

/** @param {string} text */
export function signIn(text) {
  const bare = text.trim();
  try {
    if (bare) sessionStorage.setItem(KEY, bare);
    else sessionStorage.removeItem(KEY);
  } catch {
    // it lasts as long as the page then
  }
  refused.set(new Set());
  left = null;
  wanted.set(null);
  token.set(bare);
}

/** What a token says of itself; nobody checks it here. @param {string} text @returns {{subject: string, scopes: string[], ends: number | null} | null} */
export function claims(text) {
  try {
    const part = text.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(part), (c) => c.charCodeAt(0));
    const said = JSON.parse(new TextDecoder().decode(bytes));
    const scopes = Array.isArray(said.scopes) ? said.scopes : String(said.scope ?? "").split(" ").filter(Boolean);
    return { subject: String(said.sub ?? "nobody"), scopes, ends: typeof said.exp === "number" ? said.exp : null };
  } catch {
    return null;
  }
}

/**
 * The scope that a refusal names, where it is one that goes for whole pages. Most refusals are of one request alone: a
 * task of the node's own, a topic, a name.
 * @param {any} problem @returns {"jobs:write" | "admin" | null}
 */
export function lacking(problem) {
  const named = problem?.code === "forbidden" ? /: it has no scope (jobs:write|admin)$/.exec(String(problem.detail)) : null;
  return /** @type {"jobs:write" | "admin" | null} */ (named?.[1] ?? null);
}

/**
 * Is it worth offering what needs this scope?
 * @param {"jobs:write" | "admin" | "pub" | "push" | "bus"} scope @param {string} held The token. @param {ReadonlySet<string>} without
 */
export function mayTry(scope, held, without) {
  if (without.has(scope)) return false;
  const known = held ? claims(held) : null;
  if (!known) return true;
  if (known.scopes.includes("admin")) return true;
  if (scope === "jobs:write" || scope === "admin") return known.scopes.includes(scope);
  return known.scopes.some((s) => s.startsWith(`${scope}:`));
}
