// @ts-check
// The family of a job as a picture whose boxes are links.

import { html } from "../lib/html.js";
import { HEIGHT, WIDTH, curve, lay } from "../lib/kin.js";
import { write } from "../lib/route.js";

/** @param {string} text */
const cut = (text) => (text.length > 19 ? `${text.slice(0, 18)}…` : text);

/** @param {{parents: any[], job: any, children: any[]}} props */
export function Graph({ parents, job, children }) {
  const { places, lines, width, height } = lay(parents, job, children);
  return html`<div class="graph" tabindex="0" role="region" aria-label="The job's family">
    <svg width=${width + 4} height=${height + 4} viewBox=${`-2 -2 ${width + 4} ${height + 4}`}>
      ${lines.map((l) => html`<path d=${curve(l)} class="edge" />`)}
      ${places.map(
        (p) => html`<a href=${write("jobs", p.id)} aria-current=${p.me ? "true" : undefined}>
          <rect x=${p.x} y=${p.y} width=${WIDTH} height=${HEIGHT} rx="6" class="node" data-me=${p.me ? "yes" : undefined} />
          <circle cx=${p.x + 13} cy=${p.y + 14} r="4" class="lamp" data-state=${p.state} />
          <text x=${p.x + 24} y=${p.y + 18} class="id">#${p.id} ${p.state}</text>
          <text x=${p.x + 24} y=${p.y + 32} class="task">${cut(p.task ?? "")}</text>
        </a>`,
      )}
    </svg>
  </div>`;
}
