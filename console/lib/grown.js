// @ts-check
// What only grows, such as a log: read on from where one was, never again from the start, and the newest of it kept.

import { useEffect, useRef, useState } from "./html.js";
import * as session from "./session.js";
import { useStore } from "./store.js";

/**
 * @template T @typedef {{items: T[], cursor: any, more: boolean, anew?: boolean}} Piece `anew`: it begins from the start
 * again, and what was read before is void.
 */

/**
 * Reads on with each beat.
 * @template T
 * @param {string} what Another one begins anew. @param {number} beat @param {number} most So many are kept.
 * @param {(cursor: any) => Promise<Piece<T>>} next What comes behind the cursor, null at the start.
 * @returns {{items: T[], cut: boolean, error: any}} `cut`: older ones were read, and let go of.
 */
export function useGrown(what, beat, most, next) {
  const none = { items: /** @type {T[]} */ ([]), cut: false };
  const [grown, set] = useState(none);
  const [error, setError] = useState(/** @type {any} */ (null));
  const token = useStore(session.token);
  const read = useRef(() => {});
  useEffect(() => {
    let [over, busy, again] = [false, false, false];
    let cursor = /** @type {any} */ (null);
    set(none);
    read.current = async () => {
      // what comes while it reads is read after that
      if (busy) return void (again = true);
      busy = true;
      try {
        for (let more = true; more && !over; ) {
          const piece = await next(cursor);
          if (over) return;
          [cursor, more] = [piece.cursor, piece.more];
          setError(null);
          if (piece.items.length > 0 || piece.anew) set((now) => joined(piece.anew ? none : now, piece.items, most));
        }
      } catch (e) {
        if (!over) setError(e);
      }
      busy = false;
      if (again && !over) [again] = [false, void read.current()];
    };
    return () => void (over = true);
  }, [what, token]);
  useEffect(() => read.current(), [what, token, beat]);
  return { ...grown, error };
}

/** @template T @param {{items: T[], cut: boolean}} now @param {T[]} items @param {number} most */
function joined(now, items, most) {
  const all = [...now.items, ...items];
  return { items: all.slice(-most), cut: now.cut || all.length > most };
}
