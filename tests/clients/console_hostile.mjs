// What is long, wide, many or meant to do harm: it shows as what it is, runs nothing, and no page becomes wider than its window.
//
//     console_hostile.mjs ORIGIN      a line of JSON for each piece
import assert from "node:assert/strict";
import { accessibility, ask, fits, go, open, pieces, run, tell, until } from "./console.mjs";

const [origin] = process.argv.slice(2);
const api = (method, path, body) => ask(origin, method, path, body);
const enqueue = async (job) => (await api("POST", "/api/v1/jobs", job)).id;
const MARKUP = `<img src=x onerror="document.title='taken'"><script>document.title='taken'</script>"'\`\${7}`;
const LONG = "W".repeat(120);
const [CHILDREN, PIECES] = [1000, 50];
const SIZES = [[390, 844], [1280, 860]];
let page;

/** At every width it fits, and nobody has taken the page over. */
async function whole(hash, drawn) {
  for (const [width, height] of SIZES) {
    await page.setViewportSize({ width, height });
    await go(page, origin, hash, drawn);
    await fits(page, hash);
    assert.notEqual(await page.title(), "taken");
    assert.equal(await page.locator("main img, main script").count(), 0);
    if (width === 390) assert.deepEqual(await accessibility(page), [], hash);
    tell({ step: hash, width });
  }
}

/** Names and texts that no one would choose, on every page that shows any. */
async function namesAreHostile() {
  const [rtl, wide] = ["\u202Etxt.exe\u202C \u0000\u200B 👩‍👩‍👧‍👦", `${LONG}${LONG}`];
  const task = `task-${LONG}`;
  const notes = { [`n${LONG}`]: MARKUP, deep: { [MARKUP]: [rtl, wide] }, wide };
  const job = await enqueue({ task: "echo", args: [MARKUP, rtl, wide], notes });
  await enqueue({ task, queue: `q${LONG}`, args: [MARKUP] });
  await api("POST", `/api/v1/queues/q${LONG}/pause`, "");
  await api("POST", `/api/v1/locks/l${LONG}`, { for: "1h", owner: `${MARKUP}${wide}` });
  await api("POST", `/pub/livesys/h${LONG}`, { type: "status", host: `h${LONG}`, state: "busy", text: `${MARKUP}${wide}` });
  await api("POST", `/pub/livesys/h${LONG}`, { type: "command", command: `c${"w".repeat(60)}`, id: `${MARKUP}`, args: { [wide]: MARKUP } });
  await api("POST", `/pub/chat/${LONG}`, JSON.stringify(`${MARKUP}${wide}`));
  await until("its end", async () => (await api("GET", `/api/v1/jobs/${job}`)).state === "finished");
  await whole(`jobs/${job}`, "pre[aria-label=Result]");
  assert.ok((await page.locator("pre[aria-label=Result]").textContent()).includes(JSON.stringify(MARKUP)), "it is shown as it is");
  await whole("jobs", "[data-row]");
  await whole(`jobs?task=${task}`, "[data-row]");
  await whole("overview", ".feed li");
  await whole("queues", "[data-row]");
  await whole("locks", "[data-row]");
  await whole("workers", "[data-row]");
  await whole(`topics/livesys/h${LONG}`, ".tail li");
  await whole(`topics/task?view=pretty`, ".tail li");
  await whole("livesys", "[data-row]");
  await whole(`livesys/h${LONG}`, "[data-row]");
  await whole("sessions", "main [data-row]");
  await whole(`audit?machine=h${LONG}`, ".entries li");
  await page.locator(".entries [data-open]").first().click();
  await fits(page, "an open entry");
  await whole("enqueue?task=wide", ".document .fields");
}

/** A document of a mebibyte is shown by its beginning, and whole when one asks for it. */
async function documentsAreLarge() {
  const id = await enqueue({ task: "nobody", args: ["x".repeat(900_000)] });
  await whole(`jobs/${id}`, "pre[aria-label=Arguments]");
  const shown = async () => (await page.locator("pre[aria-label=Arguments]").textContent()).length;
  assert.ok((await shown()) < 50_000, `${await shown()} characters at first`);
  await page.getByRole("button", { name: "Show all of 879 KiB" }).click();
  await until("all of it", async () => (await shown()) > 900_000);
  await go(page, origin, "jobs?task=nobody", `[data-row="${id}"]`);
}

/** A thousand children: the nearest are drawn, and all of them are there to be read. */
async function familiesAreLarge() {
  const parent = await enqueue({ task: "nobody" });
  const { ids } = await api("POST", "/api/v1/jobs", Array.from({ length: CHILDREN }, () => ({ task: "nobody", parents: [parent] })));
  await whole(`jobs/${parent}`, ".graph a");
  assert.equal(await page.locator(".graph a").count(), 7);
  await page.getByRole("button", { name: "All 1,000 children" }).click();
  const list = page.locator(".relatives li");
  await page.locator(".relatives .state").nth(PIECES - 1).waitFor();
  assert.equal(await list.count(), PIECES);
  await page.getByRole("button", { name: "Behind" }).click();
  await page.locator(`.relatives [data-open]`, { hasText: `#${ids[PIECES]}` }).waitFor();
  await page.getByText("51 to 100 of 1,000").waitFor();
  assert.deepEqual(await accessibility(page), [], "the list");
  await page.setViewportSize({ width: 390, height: 844 });
  await fits(page, "the list");
  await page.locator(`.relatives [data-open]`, { hasText: `#${ids[PIECES]}` }).click();
  await page.locator(".graph a", { hasText: `#${parent}` }).waitFor();
}

run(async () => {
  const opened = await open(origin);
  page = opened.page;
  await pieces([namesAreHostile, documentsAreLarge, familiesAreLarge], opened.errors);
});
