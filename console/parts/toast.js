// @ts-check
// A word about what was just done, for a few seconds, and read out.

import { html, useEffect } from "../lib/html.js";
import { Store, useStore } from "../lib/store.js";

/** @typedef {{id: number, tone: "good" | "bad", text: string}} Toast */
const toasts = new Store(/** @type {Toast[]} */ ([]));
const TOASTS_MAX = 4;
let last = 0;

/** @param {string} text @param {"good" | "bad"} [tone] */
export function say(text, tone = "good") {
  toasts.set([...toasts.value, { id: ++last, tone, text }].slice(-TOASTS_MAX));
}

/**
 * Does something and says how it went. Answers what it brought, or null.
 * @param {string} done @param {() => Promise<any>} act
 */
export async function attempt(done, act) {
  try {
    const value = await act();
    say(done);
    return value ?? true;
  } catch (e) {
    say(/** @type {Error} */ (e).message, "bad");
    return null;
  }
}

/** @param {{toast: Toast}} props */
function One({ toast }) {
  const gone = () => toasts.set(toasts.value.filter((t) => t.id !== toast.id));
  useEffect(() => {
    const timer = setTimeout(gone, toast.tone === "bad" ? 9000 : 4000);
    return () => clearTimeout(timer);
  }, [toast.id]);
  return html`<li data-tone=${toast.tone}><span>${toast.text}</span>
    <button type="button" class="bare" aria-label="Dismiss" onClick=${gone}>×</button></li>`;
}

export function Toasts() {
  const all = useStore(toasts);
  return html`<ul class="toasts" role="status" aria-live="polite">${all.map((toast) => html`<${One} key=${toast.id} toast=${toast} />`)}</ul>`;
}
