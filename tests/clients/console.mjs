// A real Chromium with the console in it, for the scripts `console_*.mjs`; what they share.
//
// Whatever the page says as an error is collected, and fails the script at its end. The page's own policy stays in force.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const packages = createRequire(pathToFileURL(`${process.env.MINIUM_TEST_NODE_MODULES}/x.js`));
const { chromium } = packages("playwright-core");
const axe = readFileSync(packages.resolve("axe-core/axe.min.js"), "utf8");
/** No wait takes longer; reaching it means that the condition never comes. */
export const DEADLINE = 50_000;

let browser;

/** What is no error of the page: a node that is down or refuses. */
const usual = [/net::ERR_(CONNECTION|EMPTY|SOCKET|INCOMPLETE|NETWORK)/, /^WebSocket connection to/];

/**
 * A page of its own. `allow` are further errors that are to come, as patterns of their text.
 * @param {string} origin @param {{scheme?: "light" | "dark", width?: number, allow?: RegExp[], flags?: string[]}} [how] `flags` are Chromium's, of the first page's.
 */
export async function open(origin, { scheme = "light", width = 1280, allow = [], flags = [] } = {}) {
  browser ??= await chromium.launch({ executablePath: process.env.MINIUM_TEST_CHROMIUM, args: ["--no-sandbox", "--disable-gpu", ...flags] });
  const context = await browser.newContext({ colorScheme: scheme, viewport: { width, height: width < 600 ? 844 : 860 }, acceptDownloads: true });
  context.setDefaultTimeout(DEADLINE);
  const page = await context.newPage();
  const errors = [];
  // whatever the page's policy forbids is an error, whether it is written to the console or not
  await page.addInitScript(() => addEventListener("securitypolicyviolation", (e) => console.error(`policy: ${e.violatedDirective} forbids ${e.blockedURI} ${e.sample}`)));
  page.on("pageerror", (error) => errors.push(`uncaught: ${error.stack ?? error}`));
  page.on("console", (message) => {
    if (message.type() !== "error" && message.type() !== "warning") return;
    const [text, url] = [message.text(), message.location().url];
    if ([...usual, ...allow].some((known) => known.test(text))) return;
    errors.push(`${text} ${url}`);
  });
  return { page, context, errors };
}

/** Goes to a place of the console, and waits until it is drawn. */
export async function go(page, origin, hash, drawn = "main h1") {
  await page.goto(`${origin}/#/${hash}`);
  await page.waitForSelector(drawn);
  await page.waitForFunction(() => !document.querySelector('main [aria-busy="true"]'));
}

/** Nothing is wider than the window. Charts follow it a moment later. */
export async function fits(page, what) {
  const looked = page.waitForFunction(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth);
  await looked.catch(async () => {
    const wide = await page.evaluate(() => [...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1).slice(0, 3).map((e) => e.outerHTML.slice(0, 160)));
    throw new Error(`${what} is wider than ${await page.evaluate(() => innerWidth)} px: ${wide.join(" | ")}`);
  });
}

/** What axe-core finds serious. It is evaluated from outside, so that the page's policy need not be lifted. */
export async function accessibility(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const serious = violations.filter((v) => ["serious", "critical"].includes(v.impact));
  return serious.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => `${n.html.slice(0, 160)} (${n.failureSummary.replace(/\s+/g, " ")})`).join(" | ")}`);
}

/** Tells the test something; one line of JSON. */
export const tell = (value) => void process.stdout.write(`${JSON.stringify(value)}\n`);

const heard = [];
let waiting = null;
createInterface({ input: process.stdin }).on("line", (line) => (waiting ? (waiting(line), (waiting = null)) : heard.push(line)));
/** The test's next line. */
export const told = () => (heard.length > 0 ? Promise.resolve(heard.shift()) : new Promise((resolve) => (waiting = resolve)));

/** Asks the node, from outside of the page. */
export async function ask(origin, method, path, body, token) {
  const headers = { ...(token ? { authorization: `Bearer ${token}` } : {}) };
  const answer = await fetch(origin + path, { method, headers, body: body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body) });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  return text && /json/.test(answer.headers.get("content-type") ?? "") ? JSON.parse(text) : text;
}

/** Looks until the condition holds. */
export async function until(what, condition) {
  const end = Date.now() + DEADLINE;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`in vain for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/**
 * The pieces of a script, one after the other: each is named in what fails, and told of when it is done.
 * `errors` are those of the page that all of them use, if they do.
 */
export async function pieces(all, errors = []) {
  for (const piece of all) {
    await piece().catch((error) => {
      error.message = `${piece.name}: ${error.message}`;
      throw error;
    });
    assert.deepEqual(errors, [], piece.name);
    tell({ done: piece.name });
  }
  tell({ done: "end" });
}

/** Runs a script to its end: 0, or 1 with the reason. */
export async function run(script) {
  try {
    await script();
  } catch (error) {
    process.stderr.write(`${error.stack ?? error}\n`);
    process.exitCode = 1;
  }
  await browser?.close();
  process.exit();
}
