// @ts-check
// The console: its frame, where one is, and the keys. Pages are in pages/, what they are made of in parts/, what needs
// no page in lib/. It uses what every client has: the HTTP API, and subscriptions by sdk.js.

import { html, render, useEffect, useErrorBoundary, useRef, useState } from "./lib/html.js";
import * as keys from "./lib/keys.js";
import * as live from "./lib/live.js";
import { read, write } from "./lib/route.js";
import * as session from "./lib/session.js";
import { Store, useStore } from "./lib/store.js";
import * as theme from "./lib/theme.js";
import { Audit } from "./pages/audit.js";
import { Enqueue } from "./pages/enqueue.js";
import { Job } from "./pages/job.js";
import { Jobs } from "./pages/jobs.js";
import { Livesys } from "./pages/livesys.js";
import { Locks } from "./pages/locks.js";
import { Overview } from "./pages/overview.js";
import { Queues } from "./pages/queues.js";
import { Schedules } from "./pages/schedules.js";
import { Schemas } from "./pages/schemas.js";
import { Sessions } from "./pages/sessions.js";
import { Topics } from "./pages/topics.js";
import { Workers } from "./pages/workers.js";
import { Head } from "./parts/bits.js";
import { Confirm, Dialog } from "./parts/dialog.js";
import { SignIn } from "./parts/sign-in.js";
import { Toasts } from "./parts/toast.js";

const GROUPS = /** @type {[string, [string, string, any][]][]} */ ([
  ["Queue", [
    ["overview", "Overview", Overview],
    ["jobs", "Jobs", Jobs],
    ["enqueue", "Enqueue", Enqueue],
    ["queues", "Queues", Queues],
    ["workers", "Workers", Workers],
    ["schedules", "Schedules", Schedules],
    ["locks", "Locks", Locks],
  ]],
  ["Bus", [
    ["topics", "Topics", Topics],
    ["livesys", "Livesys", Livesys],
    ["schemas", "Schemas", Schemas],
    ["sessions", "Sessions", Sessions],
    ["audit", "Audit", Audit],
  ]],
]);
const LETTERS = Object.fromEntries(Object.entries(keys.PAGES).map(([letter, page]) => [page, letter]));

const place = new Store(read(location.hash));
addEventListener("hashchange", () => place.set(read(location.hash)));

const LIVE = {
  open: ["good", "live", "Events come as they happen."],
  connecting: ["busy", "connecting", "The connection is being made."],
  resting: ["calm", "resting", "Nothing is streamed while nobody looks."],
  refused: ["bad", "not live", "The server refused the stream of task events. Press to try again."],
};

/** How it stands with the stream. */
function Pulse() {
  const [tone, word, why] = LIVE[useStore(live.state)];
  return html`<button type="button" class="pulse" data-tone=${tone} data-live=${word} title=${why} onClick=${live.tryAgain}><span role="status">
    ${word}</span></button>`;
}

function Theme() {
  const now = useStore(theme.choice);
  const words = { auto: "as the system", light: "light", dark: "dark" };
  return html`<button type="button" class="bare" title="Dark or light" onClick=${() => theme.choose(theme.next(now))}>
    <span class="soft">Theme</span> ${words[now]}</button>`;
}

function Who() {
  const held = useStore(session.token);
  const known = held ? session.claims(held) : null;
  if (!held) return html`<button type="button" class="bare" onClick=${() => session.wanted.set("")}>Sign in</button>`;
  return html`<div class="who" title=${known?.scopes.join("\n")}><span>${known?.subject ?? "a token"}</span>
    <button type="button" class="bare link" onClick=${() => session.signIn("")}>Sign out</button></div>`;
}

/** @param {{page: string}} props */
function Nav({ page }) {
  const [open, setOpen] = useState(false);
  useEffect(() => setOpen(false), [page]);
  return html`<aside class=${open ? "nav open" : "nav"}>
    <div class="brand"><a href="#/overview"><img src="/console/mark.svg" alt="" width="18" height="18" />Minium</a><${Pulse} />
      <button type="button" class="menu" aria-expanded=${open ? "true" : "false"} aria-controls="pages" onClick=${() => setOpen(!open)}>Menu</button></div>
    <nav id="pages" aria-label="Pages">${GROUPS.map(
      ([title, pages]) => html`<h2>${title}</h2><ul>${pages.map(
        ([name, label]) => html`<li><a href=${write(name)} aria-current=${name === page ? "page" : undefined}>${label}<kbd aria-hidden="true">
          ${LETTERS[name]}</kbd></a></li>`,
      )}</ul>`,
    )}</nav>
    <footer><${Who} /><${Theme} /><button type="button" class="bare" onClick=${() => help.set(true)}>Keys <kbd aria-hidden="true">?</kbd></button></footer>
  </aside>`;
}

const help = new Store(false);

function Help() {
  if (!useStore(help)) return null;
  const pages = GROUPS.flatMap(([, list]) => list);
  return html`<${Dialog} title="Keys" close=${() => help.set(false)}>
    <dl class="keys">${keys.HELP.map(([key, what]) => html`<dt>${key.split("  ").map((k) => html`<kbd>${k}</kbd> `)}</dt><dd>${what}</dd>`)}</dl>
    <dl class="keys many">${pages.map(([name, label]) => html`<dt><kbd>g</kbd> <kbd>${LETTERS[name]}</kbd></dt><dd>${label}</dd>`)}</dl>
  </${Dialog}>`;
}

/** @param {keys.Action} action */
function act(action) {
  switch (action.type) {
    case "page":
      location.hash = write(action.page);
      return;
    case "search":
      return /** @type {HTMLElement | null} */ (document.querySelector("main [data-search]"))?.focus();
    case "next":
      return keys.move(1);
    case "previous":
      return keys.move(-1);
    case "select":
      return /** @type {HTMLElement | null} */ (document.activeElement?.closest("[data-row]")?.querySelector("input[type=checkbox]"))?.click();
    case "pause":
      return /** @type {HTMLElement | null} */ (document.querySelector("main [data-pause]"))?.click();
    case "help":
      return help.set(true);
  }
}

/** @param {{page: string}} props */
function Nowhere({ page }) {
  return html`<${Head} title="Nothing here" />
    <p class="empty">There is no page “${page}”. <a href="#/overview">The overview</a> leads to all that there are.</p>`;
}

/** A page that cannot be drawn takes no other one with it. @param {{children: any}} props */
function Boundary({ children }) {
  const [error, again] = useErrorBoundary();
  if (!error) return children;
  return html`<${Head} title="This page could not be drawn" /><p class="failure" role="alert">${String(error)}</p>
    <button type="button" onClick=${again}>Try again</button>`;
}

function App() {
  const { page, rest, query } = useStore(place);
  const main = useRef(/** @type {any} */ (null));
  const first = useRef(true);
  useEffect(() => keys.listen(act), []);
  useEffect(() => live.onTasks(() => {}), []);
  // who hears the page is told of another one, and who scrolls begins at its top
  useEffect(() => {
    if (first.current) return void (first.current = false);
    main.current.scrollTo?.(0, 0);
    scrollTo(0, 0);
    main.current.querySelector("h1")?.focus({ preventScroll: true });
  }, [page, rest]);
  const found = GROUPS.flatMap(([, list]) => list).find(([name]) => name === page)?.[2];
  const Page = page === "jobs" && rest ? Job : (found ?? Nowhere);
  return html`<a class="skip" href="#main" onClick=${(/** @type {Event} */ e) => (e.preventDefault(), main.current.focus())}>To the content</a>
    <${Nav} page=${page} /><main id="main" tabindex="-1" ref=${main}><${Boundary} key=${page + (page === "jobs" ? rest : "")}>
      <${Page} page=${page} rest=${rest} query=${query} /></${Boundary}></main>
    <${Toasts} /><${Confirm} /><${Help} /><${SignIn} />`;
}

theme.begin();
const root = document.getElementById("app");
if (root) render(html`<${App} />`, root);
