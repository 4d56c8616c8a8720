// The journal in the console: walked to and fro in a window of it, by machine, day, kind and word, and saved.
//
//     console_audit.mjs ORIGIN      a line of JSON for each piece
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { ask, go, open, pieces, run, tell, until } from "./console.mjs";

const [origin] = process.argv.slice(2);
const api = (method, path, body) => ask(origin, method, path, body);
const [JOBS, PIECE, HELD] = [1400, 200, 1000];
let page;
const button = (name) => page.getByRole("button", { name, exact: true });
const rows = () => page.locator(".entries > li").evaluateAll((all) => all.map((li) => Number(li.dataset.row)));
const kinds = () => page.locator(".entries .what").allTextContents();
const quiet = () => page.waitForFunction(() => document.querySelector(".entries")?.getAttribute("aria-busy") === "false");
const saved = async (name) => {
  const [file] = await Promise.all([page.waitForEvent("download"), button(name).click()]);
  return (await readFile(await file.path(), "utf8")).split("\n").slice(0, -1);
};

/** Moves the window, and looks that it is one piece of the journal. */
async function moved(name, all) {
  await button(name).click();
  await quiet();
  const shown = await rows();
  assert.ok(shown.length <= HELD, `${shown.length} rows are held`);
  const first = all.indexOf(shown[0]);
  assert.deepEqual(shown, all.slice(first, first + shown.length), "nothing is left out, nothing comes twice");
  tell({ step: name });
  return shown;
}

/** Far more than is held at once: back to its beginning, on to its end, and to what comes then. */
async function aLongJournalIsWalked() {
  for (let left = JOBS; left > 0; left -= 500) {
    await api("POST", "/api/v1/jobs", Array.from({ length: Math.min(500, left) }, (_, i) => ({ task: "nobody", args: [left - i] })));
  }
  // the one who reads beside it
  const events = [];
  const all = await until("all of it", async () => {
    for (;;) {
      const after = events.length > 0 ? `&after=${events.at(-1).epoch}:${Number(events.at(-1).sequence)}` : "";
      const { messages } = await api("GET", `/history/task/nobody?limit=1000${after}`);
      events.push(...messages);
      if (messages.length === 0) break;
    }
    return events.length === JOBS && events.map((m) => Number(m.sequence));
  });
  await go(page, origin, "audit?topic=task/nobody", ".entries > li");
  await quiet();
  let shown = await rows();
  assert.deepEqual(shown, all.slice(-PIECE), "it begins with the newest");
  while (shown[0] !== all[0]) shown = await moved("Earlier", all);
  assert.equal(shown.length, HELD);
  await button("Earlier").waitFor({ state: "detached" });
  while (shown.at(-1) !== all.at(-1)) shown = await moved("Later", all);
  await button("Later").isVisible() && (await moved("Later", all));
  await button("Look again").waitFor();
  const { id } = await api("POST", "/api/v1/jobs", { task: "nobody" });
  await until("the newest", async () => (await button("Look again").click(), await quiet(), page.locator(".entries .topic", { hasText: `task/nobody/${id}` }).count()));
  const part = await saved("Save what is shown");
  assert.equal(part.length, HELD);
  const whole = await saved("Save all of it");
  assert.deepEqual(whole.slice(0, JOBS).map((l) => Number(JSON.parse(l).sequence)), all);
  assert.equal(whole.length, JOBS + 1);
  // byte by byte as the journal has it
  const wire = await fetch(`${origin}/history/task/nobody?limit=3`, { headers: { accept: "application/x-ndjson" } });
  assert.equal(`${whole.slice(0, 3).join("\n")}\n`, await wire.text());
}

/** What fits is rare: it is looked for, and one goes on by hand. */
async function whatIsRareIsFound() {
  await go(page, origin, `audit?topic=task/nobody&q=${encodeURIComponent(`"args":[${JOBS - 1}]`)}`, ".entries > li");
  await quiet();
  assert.equal((await rows()).length, 1);
  await go(page, origin, "audit?topic=task/nobody&kind=task.finished", "main .empty");
  await page.getByText("Nothing, in that time.").waitFor();
}

/** What was this machine told, in order, on a day: by its name alone, orders to all of them among it. */
async function whatAMachineWasTold() {
  const say = (topic, data) => api("POST", `/pub/livesys/${topic}`, data);
  await say("m-1", { type: "status", host: "m-1", state: "ready" });
  await say("m-1", { type: "command", command: "burn-in", id: "c1" });
  await say("m-2", { type: "command", command: "reboot", id: "c2" });
  await say("all", { type: "command", command: "halt", id: "c3" });
  await say("m-1", { type: "status", host: "m-1", state: "leaving", answers: "c3" });
  await go(page, origin, "audit", "#machine");
  await page.locator("#machine").fill("m-1");
  await button("Read").click();
  await page.waitForURL(/audit\?machine=m-1$/);
  await page.locator(".entries > li").nth(3).waitFor();
  assert.deepEqual(await kinds(), ["status", "command", "command", "status"]);
  await page.locator("#kind").fill("command");
  await button("Read").click();
  await page.waitForURL(/kind=command/);
  await page.locator(".entries > li").nth(1).waitFor();
  await quiet();
  assert.deepEqual(await kinds(), ["command", "command"]);
  await page.getByRole("link", { name: "Today" }).click();
  await page.waitForURL(/from=/);
  await page.locator(".entries > li").nth(1).waitFor();
  assert.equal(await page.getByRole("link", { name: "Today" }).getAttribute("aria-current"), "true");
  assert.equal((await saved("Save all of it")).map((l) => JSON.parse(l).data.command).join(), "burn-in,halt");
  await page.getByRole("link", { name: "Yesterday" }).click();
  await page.waitForURL(/to=/);
  await page.getByText("Nothing, in that time.").waitFor();
  // what is not kept is said to be so
  await go(page, origin, "audit?topic=chat", "main .empty");
  await page.getByText("Nothing is kept of this topic.").waitFor();
}

/** A replay tells when each message was said, whatever it is. */
async function aReplayKnowsItsTimes() {
  const said = (await api("GET", "/history/livesys/m-1")).messages.map((m) => m.time.slice(0, 19));
  await go(page, origin, "topics/livesys/m-1", ".tail li");
  await page.locator(".tail li time").nth(said.length - 1).waitFor();
  const shown = await page.locator(".tail li time").evaluateAll((all) => all.map((t) => t.getAttribute("datetime").slice(0, 19)));
  assert.deepEqual(shown.reverse(), said);
}

run(async () => {
  const opened = await open(origin, { allow: [/status of 400/] });
  page = opened.page;
  await pieces([aLongJournalIsWalked, whatIsRareIsFound, whatAMachineWasTold, aReplayKnowsItsTimes], opened.errors);
});
