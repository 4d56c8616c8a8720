// @ts-check
// Dark or light: as the system has it, unless somebody chose.

import { Store } from "./store.js";

const KEY = "minium:theme";
const dark = matchMedia("(prefers-color-scheme: dark)");
const WORDS = /** @type {const} */ (["auto", "light", "dark"]);

/** @typedef {typeof WORDS[number]} Choice */
/** @type {Store<Choice>} */
export const choice = new Store(/** @type {Choice} */ ("auto"));
/** What it comes to. */
export const scheme = new Store(/** @type {"light" | "dark"} */ ("light"));

/** The one after this one. @param {Choice} now */
export const next = (now) => WORDS[(WORDS.indexOf(now) + 1) % WORDS.length];

/** @param {Choice} word */
export function choose(word) {
  choice.set(word);
  try {
    localStorage.setItem(KEY, word);
  } catch {
    // it lasts as long as the page then
  }
  apply();
}

function apply() {
  const word = choice.value;
  const is = word === "auto" ? (dark.matches ? "dark" : "light") : word;
  document.documentElement.dataset.theme = is;
  scheme.set(is);
}

export function begin() {
  let kept = null;
  try {
    kept = localStorage.getItem(KEY);
  } catch {
    // as if nobody had chosen
  }
  choice.set(WORDS.find((w) => w === kept) ?? "auto");
  dark.addEventListener("change", apply);
  apply();
}
