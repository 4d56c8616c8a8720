// @ts-check
// Which schema goes for a topic or a task. The server's list says which there are, so that none is asked for in vain;
// an older server without that list has no forms, only boxes of JSON.

import { get } from "./api.js";
import { useEffect, useState } from "./html.js";
import * as session from "./session.js";

/** @typedef {{path: string, url: string, pattern: string | null, topic: string | null, task: string | null, title: string | null, built_in: boolean}} Entry */

/** @type {Promise<Entry[]> | null} */
let list = null;
/** @type {Map<string, Promise<any>>} */
const files = new Map();
session.token.watch(() => {
  list = null;
  files.clear();
});

export function entries() {
  list ??= get("/api/v1/schemas").then((answer) => answer.schemas ?? []).catch(() => []);
  return list;
}

/** Forgets what is known, for who changed a file. */
export function forget() {
  list = null;
  files.clear();
}

/** The nearest entry: tasks have their own or none, topics that of the nearest prefix. @param {Entry[]} all @param {string} pattern @param {string} topic */
export function nearest(all, pattern, topic) {
  if (pattern === "tasks") return all.find((e) => e.task === topic) ?? null;
  const of = all.filter((e) => e.pattern === pattern);
  for (let name = topic; name; name = name.includes("/") ? name.slice(0, name.lastIndexOf("/")) : "") {
    const found = of.find((e) => e.topic === name);
    if (found) return found;
  }
  return null;
}

/** @param {string} url @returns {Promise<any>} */
export function file(url) {
  let found = files.get(url);
  if (!found) files.set(url, (found = get(url).catch(() => null)));
  return found;
}

/** The schema that governs it, and where it stands. @param {string} pattern @param {string} topic @returns {{schema: any, entry: Entry | null}} */
export function useSchema(pattern, topic) {
  const [found, set] = useState(/** @type {{schema: any, entry: Entry | null}} */ ({ schema: null, entry: null }));
  useEffect(() => {
    let over = false;
    const look = async () => {
      const entry = topic ? nearest(await entries(), pattern, topic) : null;
      const schema = entry ? await file(entry.url) : null;
      if (!over) set((now) => (now.entry?.url === entry?.url && now.schema === schema ? now : { schema, entry }));
    };
    void look();
    return () => void (over = true);
  }, [pattern, topic]);
  return found;
}
