// @ts-check
// Which schema goes for a topic or a task. The server's list says which there are, so that none is asked for in vain;
// an older server without that list has no forms, only boxes of JSON.

import { get } from "./api.js";
import { useEffect, useState } from "./html.js";
import * as session from "./session.js";
import { useStore } from "./store.js";

/** @typedef {{path: string, url: string, pattern: string | null, topic: string | null, task: string | null, title: string | null, built_in: boolean}} Entry */

/** @type {Promise<Entry[]> | null} */
let list = null;
/** @type {Map<string, Promise<any>>} */
const files = new Map();
session.token.watch(() => {
  list = null;
  files.clear();
});

/** All of them, or why they are not known, which is not kept. */
export function entries() {
  if (list) return list;
  const asked = get("/api/v1/schemas").then((answer) => answer.schemas ?? [], none);
  list = asked;
  asked.catch(() => {
    if (list === asked) list = null;
  });
  return asked;
}

/** An older server has no list, and some tokens see none. @param {any} error @returns {never[]} */
function none(error) {
  if (error.status !== 403 && error.status !== 404) throw error;
  return [];
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
  const known = files.get(url);
  if (known) return known;
  const asked = get(url);
  files.set(url, asked);
  asked.catch(() => {
    if (files.get(url) === asked) files.delete(url);
  });
  return asked;
}

/** @typedef {{of: string, schema: any, entry: Entry | null, error: any}} Governs */

/** The schema that governs it, where it stands, or why that is not known. @param {string} pattern @param {string} topic @returns {Governs} */
export function useSchema(pattern, topic) {
  const of = `${pattern} ${topic}`;
  const [found, set] = useState(/** @type {Governs} */ ({ of, schema: null, entry: null, error: null }));
  const token = useStore(session.token);
  useEffect(() => {
    let over = false;
    const look = async () => {
      const entry = topic ? nearest(await entries(), pattern, topic) : null;
      const schema = entry ? await file(entry.url) : null;
      // the same object while it says the same: a form is made of it, and would begin anew
      const kept = (/** @type {any} */ now) => (JSON.stringify(now) === JSON.stringify(schema) ? now : schema);
      if (!over) set((now) => ({ of, schema: kept(now.schema), entry, error: null }));
    };
    look().catch((error) => over || set((now) => (now.of === of ? { ...now, error } : { of, schema: null, entry: null, error })));
    return () => void (over = true);
  }, [pattern, topic, token]);
  return found;
}
