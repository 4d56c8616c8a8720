// What is more than a page of the server's holds: nothing is cut without a word, and what was asked for is found.
//
//     console_long.mjs ORIGIN      a line of JSON for each piece
import assert from "node:assert/strict";
import { connect } from "../../console/sdk.js";
import { ask, go, open, pieces, run, tell, until } from "./console.mjs";

const [origin] = process.argv.slice(2);
const api = (method, path, body) => ask(origin, method, path, body);
/** More than the page reads of the past at first. */
const MANY = 1010;
/** Of such messages not all go onto one page of a history. */
const [LARGE, OF_THEM] = ["x".repeat(250_000), 24];
let page;
const row = (name) => page.locator(`[data-row="${name}"]`);
const rows = () => page.locator("tbody [data-row]").count();
const button = (name) => page.getByRole("button", { name, exact: true });
const say = (name, data) => api("POST", `/pub/livesys/${name}`, data);

/** Pages of a list have so many rows meanwhile. @returns what ends that. */
async function short(list, limit) {
  const path = (url) => url.pathname === `/api/v1/${list}`;
  await page.route(path, (route) => {
    const url = new URL(route.request().url());
    url.searchParams.set("limit", String(limit));
    return route.continue({ url: url.href });
  });
  return () => page.unroute(path);
}

/** Who said nothing for a thousand messages, and was told nothing for a thousand events, is shown as it was last. */
async function theSilentAreAskedFor() {
  await say("quiet", { type: "inventory", host: "quiet", time: new Date().toISOString(), cpu: null, memory: { total_bytes: 1024 }, block: null, network: null, dmi: null });
  await say("quiet", { type: "status", state: "ready", text: "long ago" });
  await say("quiet", { type: "command", command: "wait", id: "w1" });
  await api("POST", "/push/livesys/idle", '{"command":"scan"}');
  for (let left = MANY; left > 0; left -= 10) {
    await Promise.all(Array.from({ length: 10 }, (_, i) => say("loud", { type: "beat", n: left - i })));
    tell({ step: "messages", left });
  }
  await api("POST", "/api/v1/jobs", Array.from({ length: MANY }, () => ({ task: "livesys/loud" })));
  await until("the journal", async () => (await api("GET", "/history/task/livesys?last=1")).messages[0]?.data.task === "livesys/loud");
  await go(page, origin, "livesys", "[data-row]");
  await row("loud").waitFor();
  await row("quiet").getByText("long ago").waitFor();
  await row("quiet").getByText("1.0 KiB").waitFor();
  await row("quiet").getByText("wait").waitFor();
  await row("idle").getByText("scan").waitFor();
  await row("idle").locator("[data-outcome=sent]").waitFor();
}

/** Large messages end a page early, and the newest are behind it. */
async function thePastIsReadToItsEnd() {
  await say("late", { type: "status", state: "booting", text: "at first" });
  for (let n = 0; n < OF_THEM; n += 1) await say("large", { type: "blob", n, is: LARGE });
  await say("late", { type: "status", state: "ready", text: "at last" });
  // the subscription itself begins with the last one
  await say("large", { type: "blob", n: OF_THEM, is: LARGE });
  const first = await api("GET", "/history/livesys?last=1000&limit=1000");
  assert.ok(!JSON.stringify(first).includes("at last"), "one page does not hold it");
  await go(page, origin, "locks");
  await go(page, origin, "livesys", '[data-row="late"]');
  await row("late").getByText("at last").waitFor();
}

/** Lists say that there is more, and show it. */
async function listsAreReadOn() {
  for (let n = 0; n < 5; n += 1) await api("PUT", `/api/v1/schedules/s${n}`, { task: "nobody", every: "1d" });
  for (let n = 0; n < 5; n += 1) await api("POST", `/api/v1/locks/l${n}`, { for: "1h" });
  const minium = connect(origin);
  const jobs = minium.pull("livesys/puller")[Symbol.asyncIterator]();
  void jobs.next();
  await until("the pullers", async () => (await api("GET", "/api/v1/workers")).workers.length > 1);
  for (const [name, limit, first, all] of [["schedules", 2, "first", 6], ["locks", 2, "longest held", 5], ["workers", 1, "newest", 2]]) {
    const whole = await short(name, limit);
    await go(page, origin, name, "[data-row]");
    await page.getByText(`These are the ${first} ${limit}, and there are more.`).waitFor();
    assert.equal(await rows(), limit, name);
    for (let shown = limit; shown < all; shown += limit) {
      await button("More").click();
      await until(`more ${name}`, async () => (await rows()) === Math.min(shown + limit, all));
    }
    await button("More").waitFor({ state: "detached" });
    // what was shown stays when it is read anew
    const anew = () => page.waitForResponse((answer) => new URL(answer.url()).pathname === `/api/v1/${name}`);
    for (let n = 0; n < all / limit; n += 1) await anew();
    assert.equal(await rows(), all, name);
    await whole();
  }
  minium.close();
}

/** Sessions are narrowed among those that were read, which is said; who is connected is looked for in all of them. */
async function sessionsAreReadOn() {
  const sockets = await Promise.all(["one", "two", "far"].map((name) => new Promise((resolve) => {
    const socket = new WebSocket(`${origin.replace("http", "ws")}/sub/livesys/${name}`);
    socket.onopen = () => resolve(socket);
  })));
  await until("their sessions", async () => (await api("GET", "/api/v1/sessions")).sessions.filter((s) => s.filters[0]?.startsWith("livesys/")).length === 3);
  const whole = await short("sessions", 1);
  await go(page, origin, "sessions", "[data-row]");
  await page.locator("#q").fill("nobody");
  await page.getByText("None of them matches.").waitFor();
  await page.getByText("Looked at the oldest 1, and there are more.").waitFor();
  await page.locator("#q").fill("livesys/");
  // the last of them may be there before the button is pressed again
  await until("all three", async () => (await rows()) === 3 || (await button("More").click({ timeout: 1000 }).catch(() => {}), false));
  await go(page, origin, "livesys", '[data-row="far"]');
  for (const name of ["one", "two", "far"]) await row(name).getByText("connected", { exact: true }).waitFor();
  await whole();
  sockets.forEach((socket) => socket.close());
}

/** A topic behind all that were read is found by its beginning. */
async function topicsAreReadOn() {
  for (const name of ["aa/1", "aa/2", "aa/3", "zz/last"]) await api("POST", `/pub/${name}`, "1");
  const whole = await short("topics", 2);
  const link = (topic) => page.locator(`.tree a[href="#/topics/${topic}"]`);
  await go(page, origin, "topics", ".tree a");
  await page.getByText("These are the first 2, and there are more.").waitFor();
  assert.deepEqual([await link("aa/2").count(), await link("aa/3").count(), await link("zz/last").count()], [1, 0, 0]);
  await button("More").click();
  await link("aa/3").waitFor();
  await page.locator("#prefix").fill("zz");
  await link("zz/last").waitFor();
  await link("aa/1").waitFor({ state: "detached" });
  await whole();
}

run(async () => {
  const opened = await open(origin);
  page = opened.page;
  await pieces([topicsAreReadOn, theSilentAreAskedFor, thePastIsReadToItsEnd, sessionsAreReadOn, listsAreReadOn], opened.errors);
});
