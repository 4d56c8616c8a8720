// @ts-check
// The HTTP API: one function that asks, and what a page needs to show what it answers.

import { useEffect, useRef, useState } from "./html.js";
import * as session from "./session.js";

/** What the server refused, or why it could not be asked. */
export class ApiError extends Error {
  /** @param {number} status @param {any} problem */
  constructor(status, problem) {
    super(problem?.detail || problem?.title || (status ? `the server answered ${status}` : "the server cannot be reached"));
    this.name = "ApiError";
    this.status = status;
    this.code = problem?.code ?? (status ? "" : "unreachable");
    /** What of a node is down. @type {string[]} */
    this.down = Array.isArray(problem?.down) ? problem.down.map(String) : [];
    /** Where one may begin, when a position is gone. @type {string} */
    this.earliest = problem?.earliest ?? "";
    /** @type {{pointer: string, detail: string}[]} */
    this.errors = Array.isArray(problem?.errors) ? problem.errors : [];
  }
}

const WITHIN = 20_000;

/**
 * Asks, and answers what came: JSON where it is JSON, else text.
 * @param {string} method @param {string} path @param {any} [body] @param {{raw?: boolean, headers?: Record<string, string>}} [how]
 * @returns {Promise<any>}
 */
export async function ask(method, path, body, { raw = false, headers = {} } = {}) {
  const content = body === undefined ? undefined : raw ? body : JSON.stringify(body);
  const kind = /** @type {Record<string, string>} */ (body !== undefined && !raw ? { "content-type": "application/json" } : {});
  const { answer, text } = await fetched(method, path, { ...headers, ...kind }, content);
  return isJson(answer) && text ? parsed(answer, text) : text;
}

/** JSON a line, byte by byte as the server has it, and where the next page begins. @param {string} path @returns {Promise<{lines: string[], next: string}>} */
export async function lines(path) {
  const { answer, text } = await fetched("GET", path, { accept: "application/x-ndjson" });
  return { lines: text.split("\n").filter(Boolean), next: answer.headers.get("minium-next") ?? "" };
}

/** @param {Response} answer */
const isJson = (answer) => /\bjson\b/.test(answer.headers.get("content-type") ?? "") && !/ndjson/.test(answer.headers.get("content-type") ?? "");

/** @param {Response} answer @param {string} text */
function parsed(answer, text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError(answer.status, { detail: "the answer is no JSON" });
  }
}

/** @param {string} method @param {string} path @param {Record<string, string>} headers @param {any} [content] */
async function fetched(method, path, headers, content) {
  const sent = { ...headers };
  const held = session.token.value;
  if (held) sent.authorization = `Bearer ${held}`;
  let answer;
  let text;
  try {
    const signal = AbortSignal.timeout(WITHIN);
    answer = await fetch(path, { method, headers: sent, body: content, signal, cache: "no-store", credentials: "omit" });
    text = await answer.text();
  } catch {
    throw new ApiError(0, null);
  }
  if (answer.ok) return { answer, text };
  const problem = isJson(answer) && text ? parsed(answer, text) : null;
  if (held === session.token.value) judge(method, answer.status, problem);
  throw new ApiError(answer.status, problem ?? { detail: text.slice(0, 300) });
}

/** What a refusal tells about the token. @param {string} method @param {number} status @param {any} problem */
function judge(method, status, problem) {
  if (status === 401) session.want(session.token.value ? "This token is not, or no longer, good." : "This server asks for a token.");
  if (status !== 403 || method === "GET") return;
  const scope = session.lacking(problem);
  if (scope) session.refused.set(new Set([...session.refused.value, scope]));
}

/** @param {string} path */
export const get = (path) => ask("GET", path);
/** @param {string} path @param {any} [body] */
export const post = (path, body = {}) => ask("POST", path, body);

/** A path with its query; what is empty is left out. @param {string} path @param {Record<string, any>} query */
export function at(path, query) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") search.append(name, String(one));
    }
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

/** @typedef {{data: any, error: ApiError | null, loading: boolean, reload: () => void}} Loaded */

/**
 * What a path answers: asked anew when the path changes, every so many milliseconds, and by `reload`; not while nobody
 * looks. What was there stays until the next answer.
 * @param {string | null} path @param {{every?: number, read?: (path: string) => Promise<any>}} [options] `read` asks in another way than by one GET.
 * @returns {Loaded}
 */
export function useLoad(path, { every = 0, read = get } = {}) {
  const [state, set] = useState(/** @type {{path: string | null, data: any, error: ApiError | null, loading: boolean}} */ ({ path: null, data: null, error: null, loading: true }));
  const again = useRef(() => {});
  const reader = useRef(read);
  reader.current = read;
  useEffect(() => {
    if (!path) return;
    let [over, busy, more] = [false, false, false];
    const load = async () => {
      if (busy) return void (more = true);
      busy = true;
      try {
        const data = await reader.current(path);
        if (!over) set({ path, data, error: null, loading: false });
      } catch (e) {
        const error = e instanceof ApiError ? e : new ApiError(0, { detail: String(e) });
        if (!over) set((now) => ({ path, data: now.path === path ? now.data : null, error, loading: false }));
      }
      busy = false;
      if (more && !over) [more] = [false, void load()];
    };
    again.current = load;
    const seen = () => void (document.hidden || session.wanted.value !== null || load());
    const timer = every ? setInterval(seen, every) : 0;
    document.addEventListener("visibilitychange", seen);
    const stop = session.token.watch(() => void load());
    void load();
    return () => {
      over = true;
      clearInterval(timer);
      stop();
      document.removeEventListener("visibilitychange", seen);
    };
  }, [path, every]);
  const mine = state.path === path;
  return { data: mine ? state.data : null, error: mine ? state.error : null, loading: !mine || state.loading, reload: () => again.current() };
}
