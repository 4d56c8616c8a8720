// @ts-check
// Dialogs: the browser's own, so that focus, Escape and what lies behind are as people know them.

import { html, useEffect, useId, useRef, useState } from "../lib/html.js";
import { Store, useStore } from "../lib/store.js";
import { Failure } from "./bits.js";

/** @param {{title: string, close: () => void, children: any, wide?: boolean}} props */
export function Dialog({ title, close, children, wide = false }) {
  const box = useRef(/** @type {any} */ (null));
  const label = useId();
  const gone = useRef(false);
  useEffect(() => {
    const dialog = box.current;
    if (!dialog.open) dialog.showModal();
    return () => {
      gone.current = true;
      dialog.close();
    };
  }, []);
  // the browser tells of the close later, when it was taken away and nobody left it
  const closed = () => gone.current || close();
  const outside = (/** @type {any} */ event) => event.target === box.current && close();
  return html`<dialog ref=${box} class=${wide ? "wide" : ""} aria-labelledby=${label} onCancel=${close} onClose=${closed} onClick=${outside}>
    <div class="dialog"><header><h2 id=${label}>${title}</h2>
      <button type="button" class="bare" aria-label="Close" onClick=${close}>×</button></header>${children}</div>
  </dialog>`;
}

/**
 * @typedef {object} Question
 * @property {string} title
 * @property {any} text
 * @property {string} yes What the button says.
 * @property {boolean} [harmful]
 * @property {() => Promise<any>} act
 */
const asked = new Store(/** @type {Question | null} */ (null));

/** Asks before something is done that cannot be taken back. @param {Question} question */
export const confirm = (question) => asked.set(question);

export function Confirm() {
  const question = useStore(asked);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(/** @type {any} */ (null));
  if (!question) return null;
  const close = () => {
    setError(null);
    asked.set(null);
  };
  const act = async () => {
    setBusy(true);
    try {
      await question.act();
      close();
    } catch (e) {
      setError(e);
    }
    setBusy(false);
  };
  return html`<${Dialog} title=${question.title} close=${close}>
    <div class="text">${question.text}</div><${Failure} error=${error} />
    <footer><button type="button" onClick=${close}>Leave it</button>
    <button type="button" class=${question.harmful ? "harmful" : "main"} disabled=${busy} onClick=${act}>${question.yes}</button></footer>
  </${Dialog}>`;
}
