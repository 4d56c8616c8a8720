// The little of Node's modules that the scripts of this folder use, for pages: see browser.mjs.

const same = (a, b) => {
  if (Object.is(a, b)) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const [left, right] = [Object.keys(a), Object.keys(b)];
  return left.length === right.length && left.every((k) => Object.hasOwn(b, k) && same(a[k], b[k]));
};
const show = (value) => JSON.stringify(value) ?? String(value);
const must = (holds, words) => {
  if (!holds) throw new Error(words);
};

export default {
  ok: (value, words = `${show(value)} is not true`) => must(value, words),
  equal: (a, b, words = `${show(a)} is not ${show(b)}`) => must(Object.is(a, b), words),
  deepEqual: (a, b) => must(same(a, b), `${show(a)} is not ${show(b)}`),
  async rejects(promise, fits) {
    const error = await promise.then(
      (value) => must(false, `it should have failed, and gave ${show(value)}`),
      (e) => e,
    );
    must(fits(error), `it failed otherwise: ${error}`);
  },
};

/** Lines from outside; what comes before anybody listens is lost, as nothing here is said so early. */
export const createInterface = () => ({ on: (_, hear) => void (globalThis.heard = hear) });
