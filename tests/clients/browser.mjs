// Runs a script of this folder in a page of a real Chromium, as Node would run it: what it writes comes out on stdout,
// what comes in on stdin it reads. Ends with 0 when the script does, and with 1 and the reason when it fails.
//
//     browser.mjs SCRIPT ARGUMENT…
//
// The first argument that is an http URL is the page's origin. What the page loads comes from the checkout, so that a
// proxy which cuts connections cuts those of the script alone; they, and what it fetches from `/api`, go over the network.
import { createRequire } from "node:module";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { chromium } = createRequire(pathToFileURL(`${process.env.MINIUM_TEST_NODE_MODULES}/x.js`))("playwright-core");
const [script, ...args] = process.argv.slice(2);
const origin = new URL(args.find((a) => a.startsWith("http"))).origin;
const checkout = new URL("../../", import.meta.url);

const imports = Object.fromEntries(["assert/strict", "readline"].map((m) => [`node:${m}`, "/tests/clients/node_in_page.mjs"]));
const page = `<!doctype html><title>${script}</title><script type="importmap">${JSON.stringify({ imports })}</script>`;

// a page that no server sent is of no network, and would not be let into the local one
const flags = ["--no-sandbox", "--disable-features=LocalNetworkAccessChecks"];
const browser = await chromium.launch({ executablePath: process.env.MINIUM_TEST_CHROMIUM, args: flags });
const tab = await browser.newPage();
await tab.route(`${origin}/**`, async (route) => {
  const path = new URL(route.request().url()).pathname;
  if (path === "/page") return route.fulfill({ contentType: "text/html", body: page });
  if (!/^\/(console|tests\/clients)\/[\w.]+js$/.test(path)) return route.continue();
  return route.fulfill({ contentType: "text/javascript", body: await readFile(new URL(`.${path}`, checkout), "utf8") });
});
const failed = new Promise((_, reject) => tab.on("pageerror", reject));
await tab.exposeFunction("write", (text) => void process.stdout.write(text));
await tab.goto(`${origin}/page`);
createInterface({ input: process.stdin }).on("line", (line) => tab.evaluate((l) => globalThis.heard?.(l), line));

const run = async ([name, argv]) => {
  globalThis.process = { argv: ["browser", name, ...argv], stdout: { write: globalThis.write } };
  await import(`/tests/clients/${name}`);
};
try {
  await Promise.race([tab.evaluate(run, [script, args]), failed]);
} catch (error) {
  process.stderr.write(`${error.stack ?? error}\n`);
  process.exitCode = 1;
}
await browser.close();
process.exit(); // whatever still waits for stdin
