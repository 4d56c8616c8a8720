// @ts-check
// A table that becomes cards where there is no room. A row is opened by its first cell's link or button (`data-open`),
// by a click anywhere on it, and by Enter after j and k.

import { html } from "../lib/html.js";

/**
 * @template T
 * @typedef {object} Column
 * @property {string} title
 * @property {(row: T) => any} cell
 * @property {string} [kind] `number`, `wide`, `lead`, `hand`; says how it is laid out.
 */

/** @param {any} event */
function open(event) {
  if (event.target.closest("a, button, input, select, label") || getSelection()?.toString()) return;
  event.currentTarget.querySelector("[data-open]")?.click();
}

/**
 * @param {{label: string, columns: Column<any>[], rows: any[], id: (row: any) => string | number, mark?: (row: any) => string | undefined}} props
 */
export function Table({ label, columns, rows, id, mark }) {
  if (rows.length === 0) return null;
  return html`<div class="sheet"><table role="table" aria-label=${label}>
    <thead role="rowgroup"><tr role="row">${columns.map((c) => html`<th role="columnheader" scope="col" class=${c.kind ?? ""}>
      ${c.title}</th>`)}</tr></thead>
    <tbody role="rowgroup">${rows.map(
      (row) => html`<tr role="row" key=${id(row)} data-row=${id(row)} data-mark=${mark?.(row)} onClick=${open}>
        ${columns.map((c) => html`<td role="cell" class=${c.kind ?? ""} data-label=${c.title}>${c.cell(row)}</td>`)}
      </tr>`,
    )}</tbody></table></div>`;
}
