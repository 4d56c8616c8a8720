// @ts-check
// Signing in by a token, when the server asks for one or somebody wants to.

import { html, useState } from "../lib/html.js";
import * as session from "../lib/session.js";
import { useStore } from "../lib/store.js";
import { Dialog } from "./dialog.js";

export function SignIn() {
  const why = useStore(session.wanted);
  const [text, setText] = useState("");
  if (why === null) return null;
  const known = text.trim() ? session.claims(text.trim()) : null;
  const over = known?.ends ? known.ends * 1000 < Date.now() : false;
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (text.trim()) session.signIn(text);
    setText("");
  };
  return html`<${Dialog} title="Sign in" close=${session.leave}>
    <form onSubmit=${submit}>
      ${why && html`<p>${why}</p>`}
      <div class="field"><label for="token">Token</label>
        <input id="token" type="password" autocomplete="off" spellcheck="false" autofocus value=${text} onInput=${(/** @type {any} */ e) => setText(e.target.value)} />
        <small>A JWT, as <code>minium token mint</code> makes it. It is kept for this tab alone and never stands in an address.</small></div>
      ${known && html`<dl class="facts"><dt>Subject</dt><dd>${known.subject}</dd><dt>Scopes</dt><dd class="mono">
        ${known.scopes.join(" ") || "none"}</dd>
        ${known.ends && html`<dt>Until</dt><dd>
          ${new Date(known.ends * 1000).toLocaleString()}${over ? html` <b class="bad">over</b>` : ""}</dd>`}</dl>`}
      ${text.trim() && !known && html`<p class="bad">This does not look like a token.</p>`}
      <footer><button type="button" onClick=${session.leave}>Not now</button>
        <button type="submit" class="main" disabled=${!text.trim()}>Sign in</button></footer>
    </form>
  </${Dialog}>`;
}
