// @ts-check
// A document, typed as JSON or by the fields of its schema; the same document on both sides.

import { html, useEffect, useId, useMemo, useState } from "../lib/html.js";
import { assemble, fields, key, variants } from "../lib/schema-form.js";

/** @typedef {{document: any, ok: boolean, made: boolean}} Typed `made`: there is a document, whether it fits or not. */

const TYPES = /** @type {Record<string, string>} */ ({ secret: "password", text: "text", number: "number", integer: "number", time: "datetime-local", date: "date" });

/** @param {{field: import("../lib/schema-form.js").Field, value: any, wrong?: string, change: (v: any) => void}} props */
function Input({ field, value, wrong, change }) {
  const id = useId();
  const described = `${id}-help`;
  const common = { id, "aria-describedby": field.help || wrong ? described : undefined, "aria-invalid": wrong ? "true" : undefined };
  const typed = (/** @type {any} */ e) => change(e.target.value);
  const input = () => {
    if (field.kind === "boolean") return html`<input ...${common} type="checkbox" checked=${value === true} onChange=${(/** @type {any} */ e) => change(e.target.checked)} />`;
    if (field.kind === "choice") {
      return html`<select ...${common} value=${value ?? ""} onChange=${typed}><option value="">–</option>${(field.choices ?? []).map(
        (c, i) => html`<option value=${String(i)}>${typeof c === "string" ? c : JSON.stringify(c)}</option>`,
      )}</select>`;
    }
    if (field.kind === "json" || field.kind === "list") {
      return html`<textarea ...${common} class="mono" rows="3" placeholder=${field.hint ?? (field.kind === "list" ? "one a line" : "JSON")} spellcheck="false" value=${value ?? ""} onInput=${typed}></textarea>`;
    }
    const step = field.kind === "number" ? "any" : field.kind === "time" ? 1 : undefined;
    return html`<input ...${common} type=${TYPES[field.kind]} min=${field.min} max=${field.max} step=${step} placeholder=${field.hint} autocomplete="off" value=${value ?? ""} onInput=${typed} />`;
  };
  return html`<div class=${`field kind-${field.kind}`}><label for=${id}>
    ${field.label}${field.required ? html`<span class="need" title="needed">*</span>` : ""}</label>${input()}
    ${(field.help || wrong) && html`<small id=${described}>${wrong ? html`<b class="bad">${wrong}</b> ` : ""}${field.help}</small>`}</div>`;
}

/**
 * @param {{schema: any, label: string, initial?: string, change: (typed: Typed) => void, text?: boolean, rows?: number}} props
 * With `text`, what is no JSON is a text.
 */
export function Document({ schema, label, initial = "", change, text = false, rows = 5 }) {
  const kinds = useMemo(() => (schema ? variants(schema) : []), [schema]);
  const [kind, setKind] = useState(0);
  const shape = useMemo(() => (schema ? fields(kinds.length > 0 ? (kinds[kind] ?? kinds[0]).schema : schema) : null), [schema, kind]);
  const [asForm, setAsForm] = useState(true);
  const [json, setJson] = useState(initial);
  const [filled, setFilled] = useState(/** @type {Record<string, any>} */ ({}));
  const id = useId();
  const form = Boolean(shape) && asForm;
  useEffect(() => {
    const start = Object.fromEntries((shape ?? []).filter((f) => f.initial !== undefined).map((f) => [key(f), initialOf(f)]));
    setFilled(start);
  }, [shape]);
  const { document, wrong } = useMemo(() => (shape ? assemble(shape, filled) : { document: null, wrong: {} }), [shape, filled]);
  const parsed = useMemo(() => parse(json, text), [json, text]);
  useEffect(() => {
    change(form ? { document, ok: Object.keys(wrong).length === 0, made: true } : { document: parsed.value, ok: parsed.ok, made: parsed.ok });
  }, [form, document, parsed]);
  const switched = () => {
    if (form) setJson(JSON.stringify(document, null, 2));
    setAsForm(!form);
  };
  return html`<fieldset class="document"><legend>${label}${shape && html` <button type="button" class="bare link" onClick=${switched}>
    ${form ? "as JSON" : "as a form"}</button>`}</legend>
    ${form && kinds.length > 0 && html`<div class="choice" role="group" aria-label="Kind">
      ${kinds.map((k, i) => html`<button type="button" aria-pressed=${i === kind ? "true" : "false"} onClick=${() => setKind(i)}>
      ${k.name}</button>`)}</div>`}
    ${form && shape
      ? html`<div class="fields">${shape.map((f) => html`<${Input} key=${key(f)} field=${f} value=${filled[key(f)]}
          wrong=${filled[key(f)] === undefined ? undefined : wrong[key(f)]} change=${(/** @type {any} */ v) => setFilled((now) => ({ ...now, [key(f)]: v }))} />`)}</div>`
      : html`<label class="away" for=${id}>${label}</label><textarea id=${id} class="mono" rows=${rows} spellcheck="false" value=${json}
          aria-invalid=${parsed.ok ? undefined : "true"} onInput=${(/** @type {any} */ e) => setJson(e.target.value)}></textarea>
            ${!parsed.ok && html`<small class="bad">${parsed.why}</small>`}`}
  </fieldset>`;
}

/** @param {import("../lib/schema-form.js").Field} field */
function initialOf(field) {
  if (field.kind === "choice") return String((field.choices ?? []).indexOf(field.initial));
  const line = (/** @type {any} */ v) => (typeof v === "string" ? v : JSON.stringify(v));
  if (field.kind === "list") return Array.isArray(field.initial) ? field.initial.map(line).join("\n") : "";
  return field.kind === "json" ? JSON.stringify(field.initial) : field.kind === "boolean" ? field.initial : String(field.initial);
}

/** @param {string} typed @param {boolean} text */
function parse(typed, text) {
  try {
    return { ok: true, value: JSON.parse(typed), why: "" };
  } catch (e) {
    return text ? { ok: true, value: typed, why: "" } : { ok: false, value: null, why: `This is no JSON: ${/** @type {Error} */ (e).message}` };
  }
}
