// @ts-check
// Lines and bars over time by uPlot, in the page's colours, as wide as their place; drawn only when there is something
// new, and told in words to those who cannot see them.

import { html, useEffect, useRef } from "../lib/html.js";
import { useStore } from "../lib/store.js";
import { scheme } from "../lib/theme.js";
import uPlot from "../vendor/uplot.js";

/** @typedef {{label: string, colour: string, fill?: boolean, dash?: number[], bars?: boolean}} Series */

/** What a custom property stands for now. @param {Element} where @param {string} name */
function colour(where, name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  where.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** @param {string} rgb @param {number} alpha */
const faint = (rgb, alpha) => rgb.replace(/^rgba?\((\d+), (\d+), (\d+).*$/, `rgba($1, $2, $3, ${alpha})`);

const HEIGHT = 150;
/** Bars stand for an hour, and are as wide at the ends. */
const HALF_HOUR = 1800;
/** What bars count is whole. */
const WHOLE = Array.from({ length: 10 }, (_, i) => [1, 2, 5].map((n) => n * 10 ** i)).flat();

/** A logarithmic scale is marked at powers of ten. @param {any} _ @param {number} __ @param {number} min @param {number} max */
function decades(_, __, min, max) {
  const first = Math.ceil(Math.log10(min) - 1e-9);
  return Array.from({ length: Math.max(0, Math.floor(Math.log10(max) + 1e-9) - first + 1) }, (___, i) => 10 ** (first + i));
}

/** @param {Element} where @param {Series[]} series @param {(v: number) => string} write @param {boolean} logarithmic */
function options(where, series, write, logarithmic) {
  const [ink, line] = [colour(where, "--soft"), colour(where, "--line")];
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif", labelFont: "11px system-ui, sans-serif" };
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  const times = (/** @type {any} */ _, /** @type {number[]} */ splits) =>
    splits.map((s) => {
      const d = new Date(s * 1000);
      return d.getSeconds() ? `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}` : `${two(d.getHours())}:${two(d.getMinutes())}`;
    });
  const drawn = series.map(({ label, colour: name, fill, dash, bars }) => {
    const stroke = colour(where, name);
    const more = bars
      ? { paths: uPlot.paths.bars?.({ size: [0.7, 40], align: 0 }), fill: faint(stroke, 0.75), width: 0 }
      : { width: 1.5, fill: fill ? faint(stroke, 0.12) : undefined, dash };
    // a lone value between unknown ones is no line
    const points = logarithmic ? { show: true, size: 4, fill: stroke, width: 0 } : { show: false };
    const value = (/** @type {any} */ _, /** @type {number | null} */ v) => (v === null ? "–" : write(v));
    return { label, stroke, points, spanGaps: true, value, ...more };
  });
  const bars = series.some((s) => s.bars);
  const hours = (/** @type {any} */ _, /** @type {number} */ min, /** @type {number} */ max) => [min - HALF_HOUR, max + HALF_HOUR];
  const fromNothing = (/** @type {any} */ _, /** @type {number} */ __, /** @type {number | null} */ max) => [0, Math.max(max ?? 0, 0.2) * 1.1];
  const written = (/** @type {any} */ _, /** @type {(number | null)[]} */ all) => all.map((n) => (n === null ? "" : write(n)));
  const marks = logarithmic ? { splits: decades } : bars ? { incrs: WHOLE } : {};
  return {
    width: Math.max(200, where.clientWidth), height: HEIGHT, legend: { show: false }, padding: [8, 18, 0, 0],
    cursor: { drag: { x: false, y: false }, points: { size: 6 } },
    scales: { x: bars ? { range: hours } : {}, y: logarithmic ? { distr: 3, log: 10 } : { range: fromNothing } },
    axes: [{ ...axis, values: times, space: 70, size: 26 }, { ...axis, size: 58, space: 28, ...marks, values: written }],
    series: [{}, ...drawn],
  };
}

/**
 * @param {{title: string, series: Series[], data: any[], write: (v: number) => string, words: string, logarithmic?: boolean, children?: any}} props
 * `data` is uPlot's: the times in seconds, then a list of values for each series.
 */
export function Chart({ title, series, data, write, words, logarithmic = false, children }) {
  const place = useRef(/** @type {any} */ (null));
  const chart = useRef(/** @type {uPlot | null} */ (null));
  const fresh = useRef(data);
  fresh.current = data;
  const colours = useStore(scheme);
  useEffect(() => {
    const where = place.current;
    const made = new uPlot(options(where, series, write, logarithmic), fresh.current, where);
    chart.current = made;
    const watcher = new ResizeObserver(() => made.setSize({ width: Math.max(200, where.clientWidth), height: HEIGHT }));
    watcher.observe(where);
    return () => {
      watcher.disconnect();
      chart.current = null;
      made.destroy();
    };
  }, [colours, logarithmic]);
  useEffect(() => chart.current?.setData(data), [data]);
  return html`<figure class="chart"><figcaption><b>${title}</b><span class="legend">${series.map(
    (s) => html`<span style=${{ "--dot": `var(${s.colour})` }} data-dash=${s.dash ? "yes" : undefined}>${s.label}</span>`,
  )}</span>${children}</figcaption><div class="plot" role="img" aria-label=${`${title}: ${words}`} ref=${place}></div></figure>`;
}
