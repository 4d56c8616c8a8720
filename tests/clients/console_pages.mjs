// Every page of the console, wide and narrow, in one colour scheme: drawn with what the node has, without an error,
// without scrolling sideways, and without a serious finding of axe-core. Pictures go to target/console-shots/.
//
//     console_pages.mjs ORIGIN light|dark JOB      a line of JSON for each page
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { accessibility, go, open, run, tell } from "./console.mjs";

const [origin, scheme, job] = process.argv.slice(2);
const shots = fileURLToPath(new URL("../../target/console-shots/", import.meta.url));
mkdirSync(shots, { recursive: true });

/** Each page with what shows that it is drawn. */
const pages = [
  ["overview", ".feed li"],
  ["jobs", "[data-row]"],
  ["jobs?state=failed&task=fails", "[data-row]"],
  [`jobs/${job}`, ".timeline li:nth-child(2)"],
  ["enqueue", "#task"],
  ["queues", "[data-row=slow]"],
  ["workers", "[data-row]"],
  ["schedules", "[data-row=nightly]"],
  ["locks", "[data-row^=backup]"],
  ["topics/livesys", ".tail li"],
  ["topics/task?view=pretty", ".tail li"],
  ["livesys", "[data-row=rack-01] .facts dd"],
  ["livesys/rack-01", "[data-row=rack-01]"],
  ["schemas", "main .empty, main .tree a"],
  ["sessions", "main .empty, main [data-row]"],
  ["audit?topic=livesys", ".entries li"],
  ["audit", "main .empty"],
  ["no-such-page", "main .empty"],
];

run(async () => {
  const { page, errors } = await open(origin, { scheme });
  for (const [hash, drawn] of pages) {
    for (const width of [1280, 390]) {
      await page.setViewportSize({ width, height: width < 600 ? 844 : 860 });
      await go(page, origin, hash, drawn);
      // charts follow the window a moment later
      const fits = page.waitForFunction(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth);
      await fits.catch(() => assert.fail(`${hash} is wider than ${width} px`));
      await page.screenshot({ path: `${shots}${hash.replace(/\W+/g, "_")}-${width}-${scheme}.png` });
      if (width === 1280) assert.deepEqual(await accessibility(page), [], hash);
    }
    assert.deepEqual(errors, [], hash);
    tell({ page: hash });
  }
  // what is behind the menu on a telephone, and a dialog, are pages, too
  await page.getByRole("button", { name: "Menu" }).click();
  assert.deepEqual(await accessibility(page), [], "the menu");
  await page.getByRole("link", { name: "Workers" }).click();
  await page.getByRole("button", { name: "Tell all…" }).click();
  await page.waitForSelector("dialog[open]");
  assert.deepEqual(await accessibility(page), [], "a dialog");
  await page.setViewportSize({ width: 1920, height: 1080 });
  await go(page, origin, "overview", ".plot canvas");
  await page.screenshot({ path: `${shots}overview-1920-${scheme}.png` });
  assert.deepEqual(errors, []);
  tell({ page: "end" });
});
