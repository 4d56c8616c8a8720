// @ts-check
// The same thing for many, a few at a time.

/**
 * @template T
 * @param {T[]} all @param {number} atOnce @param {(one: T) => Promise<unknown>} act @param {() => boolean} [stopped] Nothing more is begun then.
 * @returns {Promise<any[]>} What failed.
 */
export async function each(all, atOnce, act, stopped = () => false) {
  /** @type {any[]} */
  const errors = [];
  let next = 0;
  const work = async () => {
    while (next < all.length && !stopped()) await act(all[next++]).catch((error) => errors.push(error));
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, all.length) }, work));
  return errors;
}
