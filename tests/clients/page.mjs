// Opens a page in a real Chromium and waits until it shows a text; fails when the page throws.
//
//     page.mjs URL TEXT
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const { chromium } = createRequire(pathToFileURL(`${process.env.MINIUM_TEST_NODE_MODULES}/x.js`))("playwright-core");
const [url, text] = process.argv.slice(2);
// a page that no server sent is of no network, and would not be let into the local one
const flags = ["--no-sandbox", "--disable-features=LocalNetworkAccessChecks"];
const browser = await chromium.launch({ executablePath: process.env.MINIUM_TEST_CHROMIUM, args: flags });
const tab = await browser.newPage();
tab.on("console", (message) => process.stderr.write(`${message.text()}\n`));
const failed = new Promise((_, reject) => tab.on("pageerror", reject));
try {
  await tab.goto(url);
  const shown = tab.getByText(text).first().waitFor({ timeout: 50_000 });
  await Promise.race([shown, failed]);
} catch (error) {
  process.stderr.write(`${error.stack ?? error}\n${await tab.content()}\n`);
  process.exitCode = 1;
}
await browser.close();
