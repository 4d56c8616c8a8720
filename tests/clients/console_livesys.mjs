// Machines that take what they are told as work, on the node of examples/livesys with its own program as two of them:
// they are there, a command is followed to its outcome, and the journal has it all by the machine's name.
//
//     console_livesys.mjs ORIGIN      a line of JSON for each piece
import assert from "node:assert/strict";
import { connect } from "../../console/sdk.js";
import { accessibility, ask, fits, go, open, pieces, run, until } from "./console.mjs";

const [origin] = process.argv.slice(2);
const api = (method, path, body) => ask(origin, method, path, body);
const minium = connect(origin);
let page;
const row = (name) => page.locator(`[data-row="${name}"]`);
const button = (name, within = page) => within.getByRole("button", { name, exact: true });
const dialog = () => page.locator("dialog[open]");
const outcome = (name, state, text = "") => row(name).locator(`[data-outcome="${state}"]`, { hasText: text });
const newest = async (name) => (await api("GET", `/api/v1/jobs?task=livesys/${name}&limit=1`)).jobs[0];

/** Tells a machine something through the page. */
async function tellIt(within, command, { args = "", way = "" } = {}) {
  await button(within === page ? "Command to all…" : "Send a command…", within).click();
  if (way) await dialog().locator("#way").selectOption(way);
  await dialog().locator("#command").fill(command);
  await dialog().locator("#args").fill(args);
  await button("Send", dialog()).click();
  await dialog().waitFor({ state: "detached" });
}

/** Nobody has said a word on the bus: who pulls is there, and what a schedule told one of them has its outcome. */
async function theyAreThere() {
  await go(page, origin, "livesys", "[data-row]");
  for (const name of ["7", "8"]) await row(name).getByText("connected", { exact: true }).waitFor();
  await row("8").getByText("uptime").waitFor();
  await outcome("8", "finished").waitFor();
  await row("7").getByText("Nothing was heard from it, and it was told nothing.").waitFor();
}

/** The example's own program takes what the page sends, and answers. */
async function commandsAreRun() {
  await button("Send a command…", row("7")).click();
  assert.equal(await dialog().locator("#way").inputValue(), "push", "whoever pulls is given work");
  assert.deepEqual(await accessibility(page), [], "the dialog");
  await page.setViewportSize({ width: 390, height: 844 });
  await fits(page, "the dialog");
  await page.setViewportSize({ width: 1280, height: 860 });
  await page.keyboard.press("Escape");
  await tellIt(row("7"), "burn-in");
  await outcome("7", "finished", '{"burned_in":true}').waitFor();
  const job = await newest("7");
  assert.deepEqual([job.state, job.args], ["finished", { command: "burn-in" }]);
  assert.equal(await row("7").locator(`a[href="#/jobs/${job.id}"]`).count(), 1);
  await tellIt(row("7"), "dance");
  await outcome("7", "failed", "this image knows the commands").waitFor();
  // who comes later sees the same
  await page.reload();
  await outcome("7", "failed", "this image knows the commands").waitFor();
}

/** What is sent while a machine is away waits; then it is taken, goes on, and ends one way or the other. */
async function aCommandIsFollowed() {
  const halt = await api("POST", "/push/livesys/9", '{"command":"halt"}');
  await outcome("9", "sent").waitFor();
  assert.equal(await row("9").getByText("connected").count(), 0);
  await tellIt(row("9"), "reboot", { args: '{"kernel": "6.12"}' });
  await row("9").getByText("reboot").waitFor();
  await outcome("9", "sent").waitFor();
  const jobs = minium.pull("livesys/9")[Symbol.asyncIterator]();
  const taken = async () => (await jobs.next()).value;
  const first = await taken();
  assert.equal(first.job.id, halt.job);
  await first.work.ack();
  const second = await taken();
  assert.deepEqual(second.job.args, { command: "reboot", args: { kernel: "6.12" } });
  await row("9").getByText("connected", { exact: true }).waitFor();
  await outcome("9", "taken").waitFor();
  await second.work.note({}, { percent: 40, text: "half" });
  await outcome("9", "taken", "40 % half").waitFor();
  await second.work.nack("no disk to boot from", false);
  await outcome("9", "failed", "no disk to boot from").waitFor();
  await tellIt(row("9"), "scan");
  const third = await taken();
  await third.work.ack({ disks: 2 });
  await outcome("9", "finished", '{"disks":2}').waitFor();
  await jobs.return();
  await row("9").getByText("connected", { exact: true }).waitFor({ state: "detached" });
}

/** Each that takes work gets a job of its own. */
async function allAreTold() {
  await button("Command to all…").click();
  await dialog().getByText("One job for each of the 3 that take work.").waitFor();
  await page.keyboard.press("Escape");
  await tellIt(page, "kernel");
  const told = async (name) => (await api("GET", `/api/v1/jobs?task=livesys/${name}`)).jobs.filter((j) => j.args.command === "kernel").length;
  for (const name of ["7", "8", "9"]) assert.equal(await told(name), 1, name);
  await row("7").getByText("kernel").waitFor();
  await outcome("7", "finished").waitFor();
  await row("9").getByText("kernel").waitFor();
  await outcome("9", "sent").waitFor();
}

/** A message goes to whoever listens, and the page says whether anybody does. */
async function messagesAreOwnedUpTo() {
  await button("Send a command…", row("9")).click();
  await dialog().locator("#way").selectOption("pub");
  await dialog().getByText("No session listens for 9 alone: perhaps nobody hears it.").waitFor();
  await page.keyboard.press("Escape");
  await tellIt(row("9"), "wake", { way: "pub" });
  await page.getByText("wake was said to 9; no session was there for it.").waitFor();
  await row("9").getByText("no answer yet").waitFor();
  const heard = minium.subscribe("livesys/9")[Symbol.asyncIterator]();
  const message = heard.next();
  await until("its session", async () => (await api("GET", "/api/v1/sessions")).sessions.some((s) => s.filters.includes("sub/livesys/9")));
  await button("Send a command…", row("9")).click();
  await dialog().locator("#way").selectOption("pub");
  await dialog().getByText("One session listens for 9 alone.").waitFor();
  await dialog().locator("#command").fill("wake");
  await button("Send", dialog()).click();
  const { data } = (await message).value;
  assert.deepEqual([data.type, data.command], ["command", "wake"]);
  await heard.return();
}

/** What was this machine told, in order: orders that it took as work are part of it, and what is not kept is said. */
async function theJournalHasIt() {
  await go(page, origin, "audit?machine=9", ".entries > li");
  await page.getByText("Not among it is what was said on livesys/9: nothing is kept of it.").waitFor();
  const kinds = await page.locator(".entries .what").allTextContents();
  assert.deepEqual(kinds.map((k) => k.trim().replace("task.", "")), [
    "enqueue", "enqueue", "dequeue", "finished", "dequeue", "progress", "failed", "enqueue", "dequeue", "finished", "enqueue",
  ]);
  await go(page, origin, "audit?machine=9&kind=command", ".entries > li");
  await page.locator(".entries > li").nth(3).waitFor();
  const said = await page.locator(".entries .said").allTextContents();
  assert.deepEqual(said.map((s) => JSON.parse(s).command), ["halt", "reboot", "scan", "kernel"]);
}

run(async () => {
  const opened = await open(origin, { allow: [/status of 400/] });
  page = opened.page;
  await pieces([theyAreThere, commandsAreRun, aCommandIsFollowed, allAreTold, messagesAreOwnedUpTo, theJournalHasIt], opened.errors);
});
