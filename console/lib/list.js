// @ts-check
// Lists that the server gives in pages: their first ones, further ones when somebody asks, all of them kept fresh.
//
// What must hold: a list is never cut in silence. Who uses it shows `More` of parts/more.js, or says what was left out.

import { at, get, useLoad } from "./api.js";
import { useEffect, useState } from "./html.js";

/** Beyond that many rows one narrows in place of reading on. */
export const ROWS_MAX = 2000;

/**
 * @typedef {object} Paged
 * @property {any[]} rows
 * @property {any} next Where the rest begins; null when all of it is there.
 * @property {boolean} busy A further page is on its way.
 * @property {(() => void) | null} more Asks for a further page, where there is one that may be shown.
 */
/** @typedef {import("./api.js").Loaded & Paged} List */

/**
 * @param {string} base @param {string} name The member with the rows.
 * @param {{query?: Record<string, any>, limit: number, every?: number, cursor?: "after" | "before", pages?: number, off?: boolean}} how
 * `pages` are read without being asked for; `off` asks for nothing.
 * @returns {List}
 */
export function useList(base, name, { query = {}, limit, every = 0, cursor = "after", pages: first = 1, off = false }) {
  const path = at(base, { ...query, limit });
  const [asked, ask] = useState({ path, pages: first });
  const pages = asked.path === path ? asked.pages : first;
  const read = async () => {
    /** @type {any[]} */
    const rows = [];
    let next = null;
    for (let i = 0; i < pages; i += 1) {
      const answer = await get(at(base, { ...query, limit, [cursor]: next }));
      rows.push(...(answer[name] ?? []));
      next = answer.next ?? null;
      if (next === null) break;
    }
    return { rows, next, pages };
  };
  const loaded = useLoad(off ? null : path, { every, read });
  useEffect(() => {
    if (pages > first) loaded.reload();
  }, [pages]);
  const rows = loaded.data?.rows ?? [];
  const next = loaded.data?.next ?? null;
  const more = next !== null && rows.length < ROWS_MAX ? () => ask({ path, pages: pages + 1 }) : null;
  return { ...loaded, rows, next, busy: next !== null && loaded.data.pages < pages, more };
}
