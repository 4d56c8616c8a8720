// @ts-check
// What has to be read once, and is asked for again while that fails; not while nobody looks, nor while signing in.

import * as session from "./session.js";

/** After a failure it is asked for again after so long. In milliseconds. */
const AGAIN = 3000;

/**
 * @param {() => Promise<unknown>} read @param {(error: any) => void} tell Told each failure, and null when it was read.
 * @returns {() => void} Ends it.
 */
export function persist(read, tell) {
  let [over, busy, done, timer] = [false, false, false, 0];
  const look = async () => {
    clearTimeout(timer);
    if (busy || done || over) return;
    busy = true;
    const error = await read().then(() => null, (e) => e);
    [busy, done] = [false, error === null];
    if (over) return;
    tell(error);
    // who may not read it may with another token
    if (error && error.status !== 401 && error.status !== 403) wait();
  };
  const wait = () => {
    timer = window.setTimeout(() => (document.hidden || session.wanted.value !== null ? wait() : void look()), AGAIN);
  };
  const stop = session.token.watch(() => void look());
  void look();
  return () => {
    over = true;
    clearTimeout(timer);
    stop();
  };
}
