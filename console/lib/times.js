// @ts-check
// When messages were said that come again: frames do not tell, the journal does.

import { at, lines } from "./api.js";
import { pathOf } from "./reading.js";

const PAGE = 1000;
const PAGES_MAX = 5;

/**
 * The times of what stands at some positions of one epoch, as far as they are found in a few pages.
 * @param {string} topic @param {{epoch: number, offset: number}[]} positions Rising.
 * @returns {Promise<Map<string, number>>} By `E:O`, in milliseconds.
 */
export async function timesOf(topic, positions) {
  const found = new Map();
  const [first, last] = [positions[0], positions[positions.length - 1]];
  if (!first || first.epoch !== last.epoch) return found;
  let after = `${first.epoch}:${first.offset - 1}`;
  for (let i = 0; i < PAGES_MAX; i += 1) {
    const page = await lines(at(pathOf(topic), { after, limit: PAGE }));
    for (const line of page.lines) {
      const event = JSON.parse(line);
      const offset = Number(event.sequence);
      found.set(`${first.epoch}:${offset}`, Date.parse(event.time));
      if (offset >= last.offset) return found;
    }
    if (page.lines.length === 0) return found;
    after = page.next;
  }
  return found;
}
