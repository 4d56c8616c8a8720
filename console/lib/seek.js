// @ts-check
// Where in the journal a time stands. Offsets are dense and times rise with them, near enough, so halving finds it with
// some twenty looks at single entries in place of a walk from the beginning. Pure but for the look it is given.

/** The journal's times are those of transactions, and may be out of order by a little. In milliseconds. */
export const SLACK = 10_000;
const LOOKS_MAX = 64;

/**
 * The offset behind which everything from that time on is found.
 * @param {number} time Milliseconds. @param {number} low An offset below all that is kept. @param {number} high That of the last entry.
 * @param {(offset: number) => Promise<{offset: number, time: number} | null>} look The first entry behind an offset.
 * @returns {Promise<number>}
 */
export async function seek(time, low, high, look) {
  const wanted = time - SLACK;
  let [from, to] = [low, high];
  for (let i = 0; i < LOOKS_MAX && from < to; i += 1) {
    const middle = Math.floor((from + to) / 2);
    const entry = await look(middle);
    if (entry === null || entry.time >= wanted) to = middle;
    else from = Math.max(entry.offset, middle + 1);
  }
  return from;
}
