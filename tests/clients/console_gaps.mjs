// What the list of jobs shows after its stream had a gap: older rows, too, are as their jobs are now.
//
//     console_gaps.mjs ORIGIN      says `{"want":"kill"}` and `{"want":"start"}`, and goes on when it was told so; the
//                                  node keeps nothing over that
import assert from "node:assert/strict";
import { ask, go, open, pieces, run, tell, told, until } from "./console.mjs";

const [origin] = process.argv.slice(2);
const api = (method, path, body) => ask(origin, method, path, body);
/** More than a page that comes back reads of the past. */
const MANY = 2100;
const jobs = (many) => Array.from({ length: many }, () => ({ task: "nobody" }));

/** A list that was read on to its second page. @returns its oldest rows. */
async function listed(page) {
  const { ids } = await api("POST", "/api/v1/jobs", jobs(60));
  await go(page, origin, "jobs?task=nobody", `[data-row="${ids[59]}"]`);
  await page.locator('[data-live="live"]').waitFor();
  await page.getByRole("button", { name: "Older ones" }).click();
  await page.locator(`[data-row="${ids[0]}"]`).waitFor();
  return ids;
}

const state = (page, id, is) => page.locator(`[data-row="${id}"] .state[data-state="${is}"]`);

/** Asleep for longer than the stream reaches back. */
async function nobodyLookedForLong() {
  const { page, errors } = await open(origin);
  const hide = (hidden) => page.evaluate((value) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => value });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
  const ids = await listed(page);
  await hide(true);
  await page.locator('[data-live="resting"]').waitFor();
  await api("POST", `/api/v1/jobs/${ids[1]}/cancel`);
  await api("DELETE", `/api/v1/jobs/${ids[2]}`);
  for (let left = MANY; left > 0; left -= 700) await api("POST", "/api/v1/jobs", jobs(700));
  await until("the journal", async () => (await api("GET", "/history/task?last=1")).messages[0]?.data.id >= ids[59] + MANY);
  // the first answer is lost, too
  let refused = 0;
  const byNumber = (url) => url.pathname === "/api/v1/jobs" && url.searchParams.has("id");
  await page.route(byNumber, (route) => (refused++ === 0 ? route.abort("connectionreset") : route.continue()));
  await hide(false);
  await state(page, ids[1], "cancelled").waitFor();
  await state(page, ids[2], "removed").waitFor();
  await state(page, ids[0], "ready").waitFor();
  assert.ok(refused > 1, "it was asked again");
  assert.deepEqual(errors, []);
  await page.context().close();
}

/** Killed, and back with another journal. */
async function theNodeHasForgotten() {
  const { page, errors } = await open(origin, { allow: [/status of 503/] });
  const ids = await listed(page);
  for (const what of ["kill", "start"]) {
    tell({ want: what });
    assert.equal(await told(), what);
  }
  await state(page, ids[0], "removed").waitFor();
  await page.locator('[data-live="live"]').waitFor();
  assert.deepEqual(errors, []);
  await page.context().close();
}

run(() => pieces([nobodyLookedForLong, theNodeHasForgotten]));
