// @ts-check
// The journal of some topics, read forwards and backwards from any place, in pieces. The server reads forwards only;
// what stands before a place is found by looking further and further back. Pure but for the reading that it is given.
//
// What must hold: nothing between two pieces that join is left out, whatever several topics have between them; each
// piece costs a bounded number of questions, and says how far it has looked.

/** @typedef {{offset: number, time: number, event: any, line: string}} Entry */
/** @typedef {{entries: Entry[], next: number}} Page What stands behind an offset, by rising offsets, and how far it was looked for. */
/** @typedef {(topic: string, after: number, limit: number) => Promise<Page>} Read */
/** @typedef {(entry: Entry) => boolean} Fits */
/** @typedef {{entries: Entry[], to: number, end: boolean, looked: number}} Piece `to`: how far it is known now; `end`: there is no more. */

/** A page of the server has no more than that. */
export const PAGE_MAX = 1000;
/** So many pages are looked through for what fits before one is asked whether to go on. */
export const PAGES_MAX = 20;
const HALVES_MAX = 64;

/** @param {Entry[][]} lists */
const merged = (lists) => (lists.length === 1 ? lists[0] : lists.flat().sort((a, b) => a.offset - b.offset));

/**
 * The next piece behind an offset.
 * @param {Read} read @param {string[]} topics @param {number} after @param {number} many @param {Fits} fits @param {(entry: Entry) => boolean} over
 * Said of the first entry that is too late: nothing behind it is looked for. @returns {Promise<Piece>}
 */
export async function behind(read, topics, after, many, fits, over) {
  /** @type {Entry[]} */
  const found = [];
  let [to, looked] = [after, 0];
  for (let i = 0; i < PAGES_MAX; i += 1) {
    const from = to;
    // the first page is enough where everything fits
    const limit = i === 0 ? Math.min(many, PAGE_MAX) : PAGE_MAX;
    const pages = await Promise.all(topics.map((topic) => read(topic, from, limit)));
    // what one topic has further on waits until the others were looked through so far
    to = Math.min(...pages.map((p) => p.next));
    for (const entry of merged(pages.map((p) => p.entries))) {
      if (entry.offset > to) break;
      looked += 1;
      if (over(entry)) return { entries: found, to: entry.offset - 1, end: true, looked };
      if (fits(entry)) found.push(entry);
      if (found.length >= many) return { entries: found, to: entry.offset, end: false, looked };
    }
    if (to <= from || pages.every((p) => p.entries.length === 0)) return { entries: found, to: Math.max(to, from), end: true, looked };
  }
  return { entries: found, to, end: false, looked };
}

/**
 * The piece before an offset, this one not among it: its last `many` that fit.
 * @param {Read} read @param {string[]} topics @param {number} before @param {number} first The first offset that may be kept.
 * @param {number} many @param {Fits} fits @param {(entry: Entry) => boolean} over Said of the last entry that is too early.
 * @returns {Promise<Piece>} `to` is the offset from which on it is known.
 */
export async function ahead(read, topics, before, first, many, fits, over) {
  /** @type {Entry[]} */
  let found = [];
  let [to, looked] = [before, 0];
  for (let i = 0; i < PAGES_MAX && to > first; i += 1) {
    const pages = await Promise.all(topics.map((topic) => last(read, topic, to, first, many)));
    // as far back as all of them are known
    to = Math.max(...pages.map((p) => p.from));
    const all = merged(pages.map((p) => p.entries)).filter((e) => e.offset >= to);
    looked += all.length;
    const early = all.findLastIndex(over);
    found = [...all.slice(early + 1).filter(fits), ...found];
    if (early >= 0) return { entries: found.slice(-many), to: start(found, many, all[early].offset + 1), end: found.length <= many, looked };
    if (found.length >= many) return { entries: found.slice(-many), to: start(found, many, to), end: to <= first && found.length === many, looked };
  }
  return { entries: found, to, end: to <= first, looked };
}

/** From where on it is known when only the last are kept. @param {Entry[]} found @param {number} many @param {number} to */
const start = (found, many, to) => (found.length > many ? found[found.length - many].offset : to);

/**
 * The last entries of a topic before an offset, and from where on that is all of them: at least `many`, unless that is
 * too much for a page or there are no more.
 * @param {Read} read @param {string} topic @param {number} before @param {number} first @param {number} many
 * @returns {Promise<{entries: Entry[], from: number}>}
 */
async function last(read, topic, before, first, many) {
  /** @type {{entries: Entry[], from: number}} */
  let best = { entries: [], from: before };
  // behind `few` there is too little, behind `much` more than a page holds
  let [few, much] = [before - 1, -1];
  let after = Math.max(first - 1, before - 1 - 2 * many);
  for (let i = 0; i < HALVES_MAX && after < few; i += 1) {
    const page = await read(topic, after, PAGE_MAX);
    const whole = page.next >= before - 1 || page.entries.some((e) => e.offset >= before);
    if (whole) {
      best = { entries: page.entries.filter((e) => e.offset < before), from: after + 1 };
      if (best.entries.length >= many || after <= first - 1) break;
      few = after;
    } else much = after;
    after = much < 0 ? Math.max(first - 1, before - 1 - 8 * (before - 1 - few)) : few - Math.floor((few - much) / 2);
    if (after === few) break;
  }
  return best;
}
