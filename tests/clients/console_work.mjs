// What people do with the console, each through the page and then looked at from outside, and what others do, which
// must show in the page by itself.
//
//     console_work.mjs ORIGIN      a line of JSON for each piece
import assert from "node:assert/strict";
import { ask, go, open, pieces, run, until } from "./console.mjs";

const [origin] = process.argv.slice(2);
const api = (method, path, body) => ask(origin, method, path, body);
const enqueue = (job) => api("POST", "/api/v1/jobs", job);
const state = async (id) => (await api("GET", `/api/v1/jobs/${id}`)).state;
let page;
const at = (hash, drawn) => go(page, origin, hash, drawn);
const button = (name, within = page) => within.getByRole("button", { name, exact: true });
const row = (id) => page.locator(`[data-row="${id}"]`);
/** What an answer changes is there. */
const drawn = () => page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(() => requestAnimationFrame(resolve), 50))));
const dialog = () => page.locator("dialog[open]");

/** A stream that begins anew says again what was heard: no event stands twice. There are few yet, so all of them are seen. */
async function eventsStandOnce() {
  const { id } = await enqueue({ task: "echo" });
  await at("overview", ".feed li");
  const line = (what) => page.locator(".feed li", { hasText: `#${id}` }).filter({ hasText: what });
  await line("finished").waitFor();
  await page.locator(".pulse").click();
  const later = (await enqueue({ task: "nobody" })).id;
  await page.locator(".feed li", { hasText: `#${later}` }).waitFor();
  await page.locator('[data-live="live"]').waitFor();
  assert.deepEqual([await line("enqueue").count(), await line("dequeue").count(), await line("finished").count()], [1, 1, 1]);
  await api("POST", `/api/v1/jobs/${later}/cancel`);
}

/** A job by the form, by keys alone to the form, and followed to its end. */
async function aJobIsEnqueuedAndFollowed() {
  await at("overview");
  await page.keyboard.press("g");
  await page.keyboard.press("e");
  await page.waitForSelector("#task");
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "task");
  await page.keyboard.type("echo");
  await page.locator("fieldset textarea").fill('{"serial": "ABC123"}');
  await page.locator("#o-notes").fill('{"rack": 3}');
  await page.locator("#o-notes").press("Enter");
  await page.waitForURL(/#\/jobs\/\d+$/);
  const id = Number(page.url().split("/").at(-1));
  await page.locator('.facts .state[data-state="finished"]').waitFor();
  await page.locator(".timeline li", { hasText: "finished" }).waitFor();
  assert.match(await page.locator("pre[aria-label=Result]").textContent(), /ABC123/);
  const job = await api("GET", `/api/v1/jobs/${id}`);
  assert.deepEqual([job.task, job.args, job.notes], ["echo", { serial: "ABC123" }, { rack: 3 }]);
  // what is wrong is told in the form, and nothing is enqueued
  await at("enqueue", "#task");
  await page.locator("#task").fill("echo");
  await page.locator("fieldset textarea").fill("[1,");
  await until("the refusal", () => button("Enqueue").isDisabled());
  await page.locator("fieldset textarea").fill("[]");
  await page.locator("#o-delay").fill("soon");
  await button("Enqueue").click();
  await page.locator("main .failure").waitFor();
}

/** Rows that others make and change, with no hand on the page; a pause keeps them still. */
async function rowsFollowEvents() {
  await at("jobs?task=slow");
  const { id } = await enqueue({ task: "slow" });
  await row(id).locator('.state[data-state="active"]').waitFor();
  await row(id).getByText("40 % half").waitFor();
  await page.keyboard.press("p");
  await page.locator("[data-pause][aria-pressed=true]").waitFor();
  await api("POST", `/api/v1/jobs/${id}/cancel`);
  const other = (await enqueue({ task: "slow", queue: "slow" })).id;
  // a page that is not paused says when both events have come
  const second = await page.context().newPage();
  await go(second, origin, "jobs?task=slow", `[data-row="${other}"]`);
  await second.locator(`[data-row="${id}"] .state[data-state="cancelled"]`).waitFor();
  await second.close();
  assert.equal(await row(id).locator(".state").textContent(), "active");
  assert.equal(await row(other).count(), 0);
  await page.keyboard.press("p");
  await row(id).locator('.state[data-state="cancelled"]').waitFor();
  await row(other).waitFor();
}

/** Counts lead to their jobs, filters stand in the address, keys walk the rows. */
async function countsAndKeysLeadToJobs() {
  const ids = [];
  for (let n = 0; n < 3; n += 1) ids.push((await enqueue({ task: "fails", notes: { batch: "a" } })).id);
  await until("their failures", async () => (await Promise.all(ids.map(state))).every((s) => s === "failed"));
  await at("overview", '.tiles [data-state="failed"][data-some]');
  await page.locator('.tiles [data-state="failed"]').click();
  await page.waitForURL(/#\/jobs\?state=failed$/);
  await row(ids[2]).waitFor();
  assert.deepEqual([...new Set(await page.locator("tbody .state").allTextContents())], ["failed"]);
  await page.locator("#f-note").fill("nothing");
  await page.locator("#f-note").press("Enter");
  await page.getByText("No job matches.").waitFor();
  await page.waitForURL(/state=failed&note=nothing/);
  await page.goBack();
  await row(ids[0]).waitFor();
  await page.keyboard.press("Escape");
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await page.keyboard.press("k");
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.waitForURL(new RegExp(`#/jobs/${ids[1]}$`));
  await page.getByText("line 17 has no serial").first().waitFor();
  await page.getByRole("heading", { name: "Why runs failed" }).waitFor();
  await page.keyboard.press("?");
  await dialog().getByText("Next, previous row").waitFor();
  await page.keyboard.press("Escape");
  await dialog().waitFor({ state: "detached" });
}

/** One action on all that match: what it would do, then that; and on those that were selected. */
async function manyAreRetriedAndRemoved() {
  const jobs = (await api("GET", "/api/v1/jobs?task=fails&state=failed")).jobs;
  const ids = jobs.map((j) => j.id);
  const retries = async () => (await Promise.all(ids.map((id) => api("GET", `/api/v1/jobs/${id}`)))).map((j) => j.state === "failed" && j.retries);
  await at("jobs?state=failed&task=fails", `[data-row="${ids[0]}"]`);
  await button("Retry…").click();
  await dialog().locator("[data-preview=done]").waitFor();
  assert.equal(await dialog().locator("[data-preview=done]").textContent(), String(ids.length));
  assert.deepEqual(await retries(), jobs.map((j) => j.retries), "a look changes nothing");
  await dialog().getByRole("button", { name: `Retry ${ids.length}` }).click();
  await dialog().waitFor({ state: "detached" });
  await until("the retries", async () => (await retries()).every((n, i) => n === jobs[i].retries + 1));
  // the row goes while its job waits and runs, and comes back
  await until("the selection", async () => {
    await row(ids[0]).getByRole("checkbox").setChecked(true, { timeout: 5000 }).catch(() => {});
    return page.getByText("1 selected").isVisible();
  });
  await button("Remove…").click();
  await dialog().getByRole("button", { name: "Remove 1" }).click();
  await row(ids[0]).waitFor({ state: "detached" });
  await assert.rejects(state(ids[0]), /404/);
  assert.equal(await state(ids[1]), "failed");
}

/** A node that cannot be looked at meanwhile: it is told to stop all the same. */
async function whatCannotBeSeenIsStopped() {
  const { id } = await enqueue({ task: "echo", queue: "slow" });
  await at("jobs?task=echo&queue=slow", `[data-row="${id}"]`);
  await button("Cancel…").click();
  await dialog().locator("[data-preview=done]").waitFor();
  // it has begun and not ended, as far as the page knows
  const begins = (url) => url.pathname === "/api/v1/jobs:bulk";
  await page.route(begins, async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ response: answer, json: { ...(await answer.json()), done: false } });
  });
  const looks = (url) => url.pathname.startsWith("/api/v1/bulk/");
  await page.route(looks, (route) => (route.request().method() === "GET" ? route.abort("connectionreset") : route.fallback()));
  await dialog().getByRole("button", { name: "Cancel 1" }).click();
  await dialog().locator(".failure").waitFor();
  const told = page.waitForResponse((answer) => answer.request().method() === "DELETE" && looks(new URL(answer.url())));
  await button("Stop", dialog()).click();
  assert.equal((await told).status(), 200);
  await page.unroute(looks);
  await page.unroute(begins);
}

/** Older rows keep what they were told, whoever looks away meanwhile; another filter takes nothing over from the last. */
async function olderRowsStayRight() {
  const { ids } = await api("POST", "/api/v1/jobs", Array.from({ length: 60 }, () => ({ task: "slow", queue: "slow", notes: { older: 1 } })));
  const old = ids[2];
  const answered = (part) => page.waitForResponse((answer) => new URL(answer.url()).pathname === "/api/v1/jobs" && answer.url().includes(part));
  await at("jobs?note=older", `[data-row="${ids[59]}"]`);
  await button("Older ones").click();
  await row(old).waitFor();
  await api("POST", `/api/v1/jobs/${old}/cancel`);
  await row(old).locator('.state[data-state="cancelled"]').waitFor();
  const anew = answered("note=older");
  await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  await anew;
  await drawn();
  assert.equal(await row(old).locator(".state").textContent(), "cancelled");
  assert.equal(await page.locator("tbody [data-row]").count(), 60);
  await row(old).getByRole("checkbox").check();
  await page.getByText("1 selected").waitFor();
  // an answer that comes when another filter was chosen
  await button("Back to the newest").click();
  await row(old).waitFor({ state: "detached" });
  let release;
  const held = new Promise((resolve) => (release = resolve));
  const further = (url) => url.searchParams.has("before");
  await page.route(further, async (route) => (await held, route.continue()));
  const late = answered("before=");
  await button("Older ones").click();
  await at("jobs?task=fails");
  await page.locator("[data-row]").first().waitFor();
  release();
  await late;
  await drawn();
  await page.unroute(further);
  assert.equal(await row(old).count(), 0);
  assert.equal(await page.getByText("1 selected").count(), 0, "what is not seen is not selected");
  await api("POST", "/api/v1/jobs:bulk", { action: "remove", filter: { note: "older" } });
}

/** Retry, cancel and removal of one, its log as it is written, and its family. */
async function oneIsHandled() {
  const parent = (await enqueue({ task: "slow" })).id;
  const child = (await enqueue({ task: "echo", parents: [parent] })).id;
  await at(`jobs/${parent}`, ".log li");
  await page.locator(".log").getByText("first words").waitFor();
  await page.locator(".graph a", { hasText: `#${child}` }).waitFor();
  await button("Cancel").click();
  await page.locator('.facts .state[data-state="cancelled"]').waitFor();
  assert.equal(await state(parent), "cancelled");
  await page.locator(".graph a", { hasText: `#${child}` }).click();
  await page.waitForURL(new RegExp(`#/jobs/${child}$`));
  await page.locator(".graph a", { hasText: `#${parent}` }).waitFor();
  await button("Remove…").click();
  await dialog().getByRole("button", { name: "Remove", exact: true }).click();
  await page.waitForURL(/#\/jobs$/);
  await assert.rejects(state(child), /404/);
}

/** A history of several pages is shown to its end, and read on from there. */
async function aLongHistoryIsReadOn() {
  const { id } = await enqueue({ task: "echo" });
  await until("its end", async () => (await state(id)) === "finished");
  const note = (n) => api("PATCH", `/api/v1/jobs/${id}`, { notes: { n } });
  for (let n = 0; n < 6; n += 1) await note(n);
  const seen = [];
  const events = (url) => url.pathname === `/api/v1/jobs/${id}/events`;
  await page.route(events, (route) => {
    const url = new URL(route.request().url());
    url.searchParams.set("limit", "2");
    seen.push(url.searchParams.get("after"));
    return route.continue({ url: url.href });
  });
  await at(`jobs/${id}`, ".facts");
  const lines = page.locator(".timeline li");
  await until("all of it", async () => (await lines.count()) === 9);
  const before = seen.length;
  await note("last");
  await until("the last", async () => (await lines.count()) === 10);
  await page.unroute(events);
  assert.ok(seen.slice(before).every(Boolean), `it is not read from the start again: ${seen}`);
}

/** A tail: what comes, what is kept while it is paused, what is published from the box, replay. */
async function topicsAreTailed() {
  await at("topics/chat", ".tail, main .empty");
  // that it listens is known when something comes
  await until("the tail", async () => (await api("POST", "/pub/chat/a", '"first"'), await page.locator(".tail li").count()) > 0);
  await page.locator("#say-topic").fill("chat/b");
  await page.locator("fieldset textarea").fill('{"said": "from the box"}');
  await button("Send").click();
  await page.locator(".tail li", { hasText: "from the box" }).locator(".topic", { hasText: "chat/b" }).waitFor();
  await button("Pause").click();
  await api("POST", "/pub/chat/c", '"while paused"');
  const goOn = page.getByRole("button", { name: /^Go on \(\d+\)$/ });
  await goOn.waitFor();
  assert.equal(await page.getByText("while paused").count(), 0);
  await goOn.click();
  await page.locator(".tail li", { hasText: "while paused" }).waitFor();
  await page.locator("#needle").fill("nowhere");
  await page.getByText("Nothing of it matches.").waitFor();
  // a channel that keeps: the past by position
  const [one, two] = [await api("POST", "/pub/livesys/replay", '{"host":"replay","n":"one"}'), await api("POST", "/pub/livesys/replay", '{"host":"replay","n":"two"}')];
  await at("topics");
  await page.locator("#topic").fill("livesys/replay");
  await page.locator("#position").fill(`${one.epoch}:${one.offset}`);
  await button("Tail").click();
  await page.locator(".tail li", { hasText: "two" }).waitFor();
  assert.equal(await page.locator(".tail li", { hasText: "one" }).count(), 0);
  assert.ok(two.offset > one.offset);
}

/** Workers, queues, schedules and locks are told what to do. */
async function theRestIsTold() {
  await at("workers", "[data-row]");
  await button("Pause").first().click();
  await button("Resume").first().waitFor();
  await until("the pause", async () => (await api("GET", "/api/v1/workers")).workers[0].paused);
  await button("Resume").first().click();
  await button("Pause").first().waitFor();
  await at("queues", "[data-row=slow]");
  await button("Resume", row("slow")).click();
  await row("slow").getByText("open").waitFor();
  await button("Pause", row("slow")).click();
  await row("slow").getByText("paused").waitFor();
  await at("schedules", "[data-row=nightly]");
  await button("Pause", row("nightly")).click();
  await button("Resume", row("nightly")).click();
  await button("Run now", row("nightly")).click();
  await page.waitForURL(/#\/jobs\/\d+$/);
  await page.locator('.facts .state[data-state="finished"]').waitFor();
  await api("POST", "/api/v1/locks/mine", { for: "1h" });
  await at("locks", "[data-row^=mine]");
  await button("Let go…", page.locator("[data-row^=mine]")).click();
  await dialog().getByRole("button", { name: "Let go" }).click();
  await page.locator("[data-row^=mine]").waitFor({ state: "detached" });
}

/** A past that cannot be read is no silence: the page says so, and asks again. */
async function thePastIsAskedForAgain() {
  const past = (url) => url.pathname === "/history/livesys";
  await page.route(past, (route) => route.abort("connectionreset"));
  await at("livesys");
  await page.locator("main .failure", { hasText: "What machines said before is not known." }).waitFor();
  assert.equal(await page.getByText("No machine has spoken yet.").count(), 0);
  await page.unroute(past);
  await row("rack-01").getByText("ready").waitFor();
  await page.locator("main .failure").waitFor({ state: "detached" });
}

/** A machine speaks, is told something, answers; and the audit has all of it, from the time on that one names. */
async function machinesAreCommanded() {
  await api("POST", "/pub/livesys/m-7", { type: "status", host: "m-7", state: "ready" });
  await at("livesys", "[data-row=m-7]");
  await row("m-7").getByText("ready").waitFor();
  await button("Send a command…", row("m-7")).click();
  await dialog().locator("#command").fill("burn-in");
  await dialog().locator("#args").fill('{"minutes": 30}');
  await button("Send", dialog()).click();
  await row("m-7").getByText("no answer yet").waitFor();
  const order = (await api("GET", "/history/livesys/m-7?last=1")).messages[0].data;
  assert.deepEqual([order.type, order.command, order.args], ["command", "burn-in", { minutes: 30 }]);
  await api("POST", "/pub/livesys/m-7", { type: "status", host: "m-7", state: "busy", text: "pass 1", answers: order.id });
  await row("m-7").getByText("pass 1").first().waitFor();
  assert.equal(await row("m-7").getByText("no answer yet").count(), 0);
  await page.locator("#q").fill("m-7");
  await page.waitForURL(/livesys\?q=m-7$/);
  await row("rack-01").waitFor({ state: "detached" });
  await row("m-7").getByRole("link", { name: "History" }).click();
  await page.locator(".entries li").nth(2).waitFor();
  assert.deepEqual(await page.locator(".entries .what").allTextContents(), ["status", "command", "status"]);
  await page.getByRole("link", { name: "Last hour" }).click();
  await page.waitForURL(/from=/);
  await page.locator(".entries li").nth(2).waitFor();
}

/** Arguments by the fields of their task's schema, judged by the server. */
async function aFormIsMadeOfASchema() {
  await page.reload();
  // that the schemas cannot be had now is said, and not kept
  const schemas = (url) => url.pathname === "/api/v1/schemas";
  await page.route(schemas, (route) => route.abort("connectionreset"));
  await at("enqueue?task=judged", "#task");
  await page.locator("main .failure", { hasText: "Its schema is not known." }).waitFor();
  await page.unroute(schemas);
  await at("locks");
  await at("enqueue?task=judged", ".document .fields");
  assert.deepEqual(await page.locator(".document .fields label").allTextContents(), ["serial*", "site", "rows", "dry"]);
  await page.getByLabel("serial").fill("X");
  await page.getByLabel("site").selectOption({ label: "lab" });
  await page.getByLabel("rows").fill("12");
  await page.getByLabel("dry").check();
  await page.getByText("It has at least 3 characters.").waitFor();
  assert.ok(await button("Enqueue").isDisabled());
  await page.getByLabel("serial").fill("XYZ");
  // what the page cannot judge the server does
  await button("as JSON").click();
  await page.locator("fieldset textarea").fill('{"serial": "X"}');
  await button("Enqueue").click();
  await page.locator("main .failure", { hasText: "/serial" }).waitFor();
  await button("as a form").click();
  await button("Enqueue").click();
  await page.waitForURL(/#\/jobs\/\d+$/);
  const job = await api("GET", `/api/v1/jobs/${page.url().split("/").at(-1)}`);
  assert.deepEqual(job.args, { serial: "XYZ", site: "lab", rows: 12, dry: true });
}

/** What is kept from sight in a job's arguments is not enqueued as it is shown. */
async function whatIsHiddenIsNotCopied() {
  const { id } = await enqueue({ task: "echo", args: [7, { password: "***" }] });
  await at(`jobs/${id}`, ".facts");
  await page.getByRole("link", { name: "Enqueue like it" }).click();
  await page.locator("main .failure code", { hasText: "/1/password" }).waitFor();
  assert.ok(await button("Enqueue").isDisabled());
  await page.locator("fieldset textarea").fill('[7, {"password": "found"}]');
  await page.locator("main .failure").waitFor({ state: "detached" });
  await button("Enqueue").click();
  await page.waitForURL(/#\/jobs\/\d+$/);
  assert.notEqual(page.url().split("/").at(-1), String(id));
  assert.deepEqual((await api("GET", `/api/v1/jobs/${page.url().split("/").at(-1)}`)).args, [7, { password: "found" }]);
}

/** What the bus knows of itself: its topics as a tree, its sessions, of which one is closed, its schemas, and what fits them. */
async function theBusIsLookedAt() {
  await api("POST", "/pub/tree/a/b", "1");
  await at("topics", '.tree a[href="#/topics/tree/a/b"]');
  assert.equal(await page.locator('.tree a[href="#/topics/tree"]').count(), 1, "what lies between is there");
  await page.locator('.tree a[href="#/topics/tree/a/b"]').click();
  await page.locator("#h-tail", { hasText: "tree/a/b" }).waitFor();
  const other = new WebSocket(`${origin.replace("http", "ws")}/sub/watched`);
  await new Promise((resolve) => (other.onopen = resolve));
  const closed = new Promise((resolve) => (other.onclose = (event) => resolve(event.code)));
  await at("sessions", "[data-row]");
  const mine = page.locator("[data-row]", { hasText: "watched" });
  await button("Dismiss…", mine).click();
  await dialog().getByRole("button", { name: "Dismiss it" }).click();
  assert.equal(await closed, 1008);
  await mine.waitFor({ state: "detached" });
  await at("schemas/tasks/judged.json", ".document .fields");
  await page.getByLabel("serial").fill("X");
  // the schema is read anew when one looks again, and what was typed stays
  const anew = page.waitForResponse((answer) => answer.url().endsWith("/schemas/tasks/judged.json"));
  await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  await anew;
  await drawn();
  assert.equal(await page.getByLabel("serial").inputValue(), "X");
  await button("Test").click();
  await page.locator("[data-valid=no] code", { hasText: "/serial" }).waitFor();
  await page.getByLabel("serial").fill("XYZ");
  await button("Test").click();
  await page.locator("[data-valid=yes]").waitFor();
  // a message by the fields of its kind
  await at("topics/livesys/m-8", "#say-topic");
  await button("status", page.getByRole("group", { name: "Kind" })).click();
  await page.getByLabel("state").selectOption({ label: "ready" });
  await button("Send").click();
  await page.locator(".tail li", { hasText: '{"type":"status","state":"ready"}' }).waitFor();
}

run(async () => {
  const opened = await open(origin, { allow: [/status of 4(00|22)/] });
  page = opened.page;
  await pieces([eventsStandOnce, aJobIsEnqueuedAndFollowed, rowsFollowEvents, countsAndKeysLeadToJobs, manyAreRetriedAndRemoved, whatCannotBeSeenIsStopped, olderRowsStayRight, oneIsHandled, aLongHistoryIsReadOn, topicsAreTailed, theRestIsTold, thePastIsAskedForAgain, machinesAreCommanded, aFormIsMadeOfASchema, whatIsHiddenIsNotCopied, theBusIsLookedAt], opened.errors);
});
