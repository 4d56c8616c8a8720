// @ts-check
// The small things of every page: times that grow, states, counts, JSON, what to say when there is nothing.

import { ApiError } from "../lib/api.js";
import { absolute, ago, bytes, line, stateOf } from "../lib/format.js";
import { html, useEffect, useMemo, useState } from "../lib/html.js";
import { Store, useStore } from "../lib/store.js";

/** The time, for all that is told relative to it: one clock for the page, which stands still while nobody looks. */
export const now = new Store(Date.now());
setInterval(() => document.hidden || now.set(Date.now()), 1000);

/** A time, relative, with the absolute one for who looks closely. @param {{at: string | null | undefined, none?: string}} props */
export function Time({ at, none = "–" }) {
  const clock = useStore(now);
  if (!at) return html`<span class="soft">${none}</span>`;
  return html`<time datetime=${at} title=${absolute(at)}>${ago(at, clock)}</time>`;
}

/** @param {{job: {state: string, phase?: string | null, parents?: any[], delayed?: string}}} props */
export function State({ job }) {
  const word = stateOf(job);
  return html`<span class="state" data-state=${word}>${word}</span>`;
}

/** A word with a dot. @param {{tone: "good" | "bad" | "busy" | "calm", children: any, title?: string}} props */
export function Dot({ tone, children, title }) {
  return html`<span class="dot" data-tone=${tone} title=${title}>${children}</span>`;
}

/** More than that is laid out when it is asked for: a browser takes long over a mebibyte of text. */
const TEXT_MAX = 32_768;

/** JSON, laid out; long ones scroll in their box. @param {{value: any, label: string}} props */
export function Json({ value, label }) {
  const [whole, show] = useState(false);
  const text = useMemo(() => (typeof value === "string" ? value : JSON.stringify(value, null, 2)), [value]);
  const cut = !whole && text?.length > TEXT_MAX;
  return html`<pre class="json" tabindex="0" role="region" aria-label=${label}>${(cut ? text.slice(0, TEXT_MAX) : text) ?? "–"}</pre>
    ${cut && html`<p><button type="button" class="small" onClick=${() => show(true)}>Show all of ${bytes(text.length)}</button></p>`}`;
}

/** @param {{children: any}} props */
export function Empty({ children }) {
  return html`<p class="empty">${children}</p>`;
}

/** What failed, in the server's words. @param {{error: any, what?: string}} props */
export function Failure({ error, what = "" }) {
  if (!error) return null;
  const words = error instanceof ApiError && error.status === 403 ? `This needs another token: ${error.message}.` : String(error.message ?? error);
  return html`<p class="failure" role="alert">${what ? html`<b>${what}</b> ` : ""}${words}${(error.errors ?? []).map(
    (/** @type {any} */ e) => html`<br /><code>${e.pointer || "/"}</code> ${e.detail}`,
  )}</p>`;
}

/** Says what is shown of what was loaded. @param {{loaded: import("../lib/api.js").Loaded, none?: any, many: number}} props */
export function Status({ loaded, none, many }) {
  if (loaded.error && !(loaded.error.status === 0 && many > 0)) return html`<${Failure} error=${loaded.error} />`;
  if (loaded.loading && many === 0) return html`<p class="empty" aria-busy="true">Loading…</p>`;
  return many === 0 && none ? html`<${Empty}>${none}</${Empty}>` : null;
}

/** The head of a page. @param {{title: string, children?: any, about?: any}} props */
export function Head({ title, children, about }) {
  useEffect(() => {
    document.title = `${title} · Minium`;
  }, [title]);
  return html`<header class="head"><div><h1 tabindex="-1">${title}</h1>${about && html`<p class="about">${about}</p>`}</div><div class="acts">
    ${children}</div></header>`;
}

/** A value in one line that opens to all of it. @param {{value: any, label: string}} props */
export function Fold({ value, label }) {
  const [open, set] = useState(false);
  const short = line(value, 120);
  return html`<div class="fold"><button type="button" class="bare mono" aria-expanded=${open ? "true" : "false"} onClick=${() => set(!open)}
    title=${label}>${open ? "▾" : "▸"} ${short}</button>${open && html`<${Json} value=${value} label=${label} />`}</div>`;
}

/** How far something is. @param {{percent: number, text?: string}} props */
export function Progress({ percent, text }) {
  return html`<span class="progress" role="img" aria-label=${`${Math.round(percent)} %`}>
    <i style=${{ width: `${Math.max(0, Math.min(100, percent))}%` }}></i></span><span class="mono">
    ${Math.round(percent)} %${text ? ` ${text}` : ""}</span>`;
}
