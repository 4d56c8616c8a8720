// @ts-check
// Where the jobs of a small family stand in a picture: parents above, the job, what follows it below. Pure.

/** @typedef {{id: number, state: string, task: string | null}} Relative */
/** @typedef {Relative & {x: number, y: number, me: boolean}} Place */

export const WIDTH = 156;
export const HEIGHT = 40;
const GAP = 16;
const RISE = 78;
/** In a row; more are told as a number. */
export const ROW_MAX = 6;

/**
 * @param {Relative[]} parents @param {Relative} job @param {Relative[]} children
 * @returns {{places: Place[], lines: {from: Place, to: Place}[], width: number, height: number}}
 */
export function lay(parents, job, children) {
  const rows = [parents.slice(0, ROW_MAX), [job], children.slice(0, ROW_MAX)].filter((row) => row.length > 0);
  const widest = Math.max(...rows.map((row) => row.length));
  const width = widest * WIDTH + (widest - 1) * GAP;
  const laid = rows.map((row, r) => {
    const own = row.length * WIDTH + (row.length - 1) * GAP;
    return row.map((one, i) => ({ ...one, x: (width - own) / 2 + i * (WIDTH + GAP), y: r * RISE, me: one.id === job.id }));
  });
  const lines = [];
  for (let r = 1; r < laid.length; r += 1) for (const from of laid[r - 1]) for (const to of laid[r]) lines.push({ from, to });
  return { places: laid.flat(), lines, width, height: (laid.length - 1) * RISE + HEIGHT };
}

/** A line that leaves downwards and arrives from above. @param {{from: Place, to: Place}} line */
export function curve({ from, to }) {
  const [x1, y1, x2, y2] = [from.x + WIDTH / 2, from.y + HEIGHT, to.x + WIDTH / 2, to.y];
  const half = (y1 + y2) / 2;
  return `M${x1} ${y1}C${x1} ${half} ${x2} ${half} ${x2} ${y2}`;
}
