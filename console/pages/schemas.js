// @ts-check
// The schemas: which there are, what each says, and whether a document fits.

import { post, useLoad } from "../lib/api.js";
import { html, useMemo, useState } from "../lib/html.js";
import { write } from "../lib/route.js";
import { Dot, Empty, Failure, Head, Json, Status } from "../parts/bits.js";
import { Document } from "../parts/form.js";

/** @param {{entry: any, schema: any}} props */
function Test({ entry, schema }) {
  const [typed, setTyped] = useState({ document: /** @type {any} */ (null), ok: false, made: false });
  const [told, setTold] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setError(null);
    try {
      setTold(await post("/api/v1/schemas:test", { path: entry.path, document: typed.document }));
    } catch (e) {
      setTold(null);
      setError(e);
    }
  };
  return html`<section class="panel" aria-labelledby="h-test"><header><h2 id="h-test">Test a document</h2></header>
    <form class="body form" onSubmit=${submit}>
    <${Document} schema=${schema} label="Document" initial="{}" rows=${8} change=${(/** @type {any} */ t) => (setTyped(t), setTold(null))} />
    <${Failure} error=${error} />${told && html`<div role="status" data-valid=${told.valid ? "yes" : "no"}>
      ${told.valid ? html`<${Dot} tone="good">It fits.</${Dot}>` : html`<${Dot} tone="bad">It does not fit.</${Dot}><ul>${(told.errors ?? []).map(
      (/** @type {any} */ e) => html`<li><code>${e.pointer || "/"}</code> ${e.detail}</li>`,
    )}</ul>`}</div>`}
    <footer><button type="submit" class="main" disabled=${!typed.made}>Test</button></footer></form></section>`;
}

/** The value as it was first read, while it says the same: a form is made of it, and would begin anew. @param {any} value */
function useSame(value) {
  const text = value ? JSON.stringify(value) : "";
  return useMemo(() => value, [text]);
}

/** @param {{rest: string}} props */
export function Schemas({ rest }) {
  const list = useLoad("/api/v1/schemas");
  const all = /** @type {any[]} */ (list.data?.schemas ?? []);
  const entry = all.find((e) => e.path === rest) ?? null;
  const file = useLoad(entry ? entry.url : null);
  const schema = useSame(file.data);
  const groups = /** @type {[string, any[]][]} */ ([
    ["Publish and subscribe", all.filter((e) => e.pattern === "sub")],
    ["Work", all.filter((e) => e.pattern === "push")],
    ["Peers", all.filter((e) => e.pattern === "bus")],
    ["Tasks", all.filter((e) => e.task)],
    ["Further", all.filter((e) => !e.task && !["sub", "push", "bus"].includes(e.pattern))],
  ]);
  const one = (/** @type {any} */ e) => html`<a href=${write("schemas", e.path)} data-row=${e.path} data-open aria-current=${e.path === rest ? "true" : undefined}>
    <span class="name">${e.topic ?? e.task ?? e.path}</span><span></span><span class="soft">${e.built_in ? "built in" : ""}</span></a>`;
  if (list.error?.status === 404) return html`<${Head} title="Schemas" />
    <${Empty}>This node has no list of its schemas. Each is served by its path: <a href="/schemas/sub/task.json">/schemas/sub/task.json</a>, <a href="/schemas/job.json">/schemas/job.json</a>.</${Empty}>`;
  return html`<${Head} title="Schemas" about="What messages and arguments are judged by." />
    <${Status} loaded=${list} many=${all.length} none="There is none." />
    ${all.length > 0 && html`<div class="halves left"><section class="panel" aria-label="All schemas">
      <div class="tree" tabindex="0" role="region" aria-label="Schemas">${groups.map(([title, of]) => of.length > 0 && html`<h2 class="group">
      ${title}</h2>${of.map(one)}`)}</div></section>
    <div class="stack">${entry ? html`<section class="panel" aria-labelledby="h-schema"><header><h2 id="h-schema">${entry.title ?? entry.path}</h2>
      <a class="mono" href=${entry.url}>${entry.url}</a></header><div class="body">${file.data?.description && html`<p>
      ${file.data.description}</p>`}<${Failure} error=${file.error} />
      ${file.data && html`<${Json} value=${file.data} label="Schema" />`}</div></section>
      <${Test} key=${entry.path} entry=${entry} schema=${schema} />` : html`<${Empty}>Choose one.</${Empty}>`}</div></div>`}`;
}
