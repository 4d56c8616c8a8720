// Every page of the console, at four widths, in one colour scheme: drawn with what the node has, without an error,
// without scrolling sideways, and, wide and narrow, without a serious finding of axe-core. Pictures go to target/console-shots/.
// 640 px are a window of 1,280 px at 200 %.
//
//     console_pages.mjs ORIGIN light|dark JOB      a line of JSON for each page
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { accessibility, fits, go, open, run, tell } from "./console.mjs";

const [origin, scheme, job] = process.argv.slice(2);
const shots = fileURLToPath(new URL("../../target/console-shots/", import.meta.url));
mkdirSync(shots, { recursive: true });

const SIZES = [[1280, 860], [390, 844], [640, 430], [1920, 1080]];

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
  ["schemas", "main .tree a"],
  ["schemas/sub/livesys.json", ".document .fields"],
  ["schemas/tasks/judged.json", ".document .fields"],
  ["sessions", "main [data-row]"],
  ["audit?topic=livesys", ".entries li"],
  ["audit", "main .empty"],
  ["no-such-page", "main .empty"],
];

run(async () => {
  const { page, errors } = await open(origin, { scheme });
  for (const [hash, drawn] of pages) {
    for (const [width, height] of SIZES) {
      await page.setViewportSize({ width, height });
      if (width === SIZES[0][0]) await go(page, origin, hash, drawn);
      await fits(page, hash);
      if (width !== 640) await page.screenshot({ path: `${shots}${hash.replace(/\W+/g, "_")}-${width}-${scheme}.png` });
      // the layout is another one on a telephone
      if (width === 1280 || width === 390) assert.deepEqual(await accessibility(page), [], `${hash} at ${width} px`);
      assert.deepEqual(errors, [], hash);
      tell({ page: hash, width });
    }
  }
  // what a document is told when it does not fit
  for (const [width, height] of SIZES.slice(0, 2)) {
    await page.setViewportSize({ width, height });
    await go(page, origin, "schemas", "main .tree a");
    await page.locator('.tree [data-row="sub/livesys.json"]').click();
    await page.waitForSelector(".document .fields");
    await page.getByRole("button", { name: "as JSON" }).click();
    await page.locator("fieldset textarea").fill('{"type": "status", "state": "asleep"}');
    await page.getByRole("button", { name: "Test", exact: true }).click();
    await page.locator("[data-valid=no] code", { hasText: "/state" }).waitFor();
    await fits(page, "a test");
    assert.deepEqual(await accessibility(page), [], `a test at ${width} px`);
    await page.locator("fieldset textarea").fill('{"type": "status", "state": "ready"}');
    await page.getByRole("button", { name: "Test", exact: true }).click();
    await page.locator("[data-valid=yes]").waitFor();
    await page.screenshot({ path: `${shots}schemas_test-${width}-${scheme}.png` });
  }
  // what is behind the menu on a telephone, and a dialog, are pages, too
  await page.setViewportSize({ width: 390, height: 844 });
  await page.getByRole("button", { name: "Menu" }).click();
  assert.deepEqual(await accessibility(page), [], "the menu");
  await page.getByRole("link", { name: "Workers" }).click();
  await page.getByRole("button", { name: "Tell all…" }).click();
  await page.waitForSelector("dialog[open]");
  assert.deepEqual(await accessibility(page), [], "a dialog");
  await page.keyboard.press("Escape");
  // the focus is seen wherever it goes, and nothing moves for who does not want that
  await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
  await page.setViewportSize({ width: 1280, height: 860 });
  await go(page, origin, "jobs", ".progress i");
  assert.equal(await page.locator(".progress i").first().evaluate((i) => getComputedStyle(i).transitionDuration), "0s");
  for (let i = 0; i < 40; i += 1) {
    await page.keyboard.press("Tab");
    const seen = await page.evaluate(() => {
      const at = document.activeElement;
      return at === document.body || getComputedStyle(at).outlineStyle !== "none" ? "" : at.outerHTML.slice(0, 200);
    });
    assert.equal(seen, "", "the focus is seen");
  }
  assert.deepEqual(errors, []);
  tell({ page: "end" });
});
