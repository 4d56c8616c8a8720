// @ts-check
// What stands below a list that is longer than what is shown of it.

import { count } from "../lib/format.js";
import { html } from "../lib/html.js";

/**
 * @param {{list: import("../lib/list.js").List, first?: string, narrowed?: boolean}} props
 * `first` says in which order they come; with `narrowed` some of what was read may not be shown.
 */
export function More({ list, first = "first", narrowed = false }) {
  if (list.next === null) return null;
  const words = `${narrowed ? "Looked at the" : "These are the"} ${first} ${count(list.rows.length)}, and there are more.`;
  return html`<div class="more">${list.more && html`<button type="button" disabled=${list.busy} onClick=${list.more}>More</button>`}
    <span class="soft" role="status">${words}</span></div>`;
}
