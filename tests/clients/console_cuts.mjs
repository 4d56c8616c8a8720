// The console while things break: the node is killed and comes back, frames are garbage, nobody looks for a while.
//
//     console_cuts.mjs ORIGIN      says `{"want":"kill"}` and `{"want":"start"}`, and goes on when it was told so
import assert from "node:assert/strict";
import { ask, go, open, pieces, run, tell, told, until } from "./console.mjs";

const [origin] = process.argv.slice(2);
const enqueue = async () => (await ask(origin, "POST", "/api/v1/jobs", { task: "echo" })).id;
const sessions = async () => (await ask(origin, "GET", "/api/v1/stats")).sessions;
const GARBAGE = ["no JSON", "null", "[]", "7", '{"op":"msg"}', '{"op":"msg","topic":"task/x/1"}', '{"op":"gap"}', '{"op":"ok"}', Buffer.from([0xff, 0]),
  '{"op":"msg","topic":"task/x/1","data":"text"}', '{"op":"msg","topic":"task/x/1","data":{"type":"task.finished","data":{}}}',
  '{"op":"msg","topic":"task/x/1","data":{"type":"task.failed","time":"never","data":{"id":{},"error":7,"notes":"a","progress":{"text":{}}}}}'];

async function want(what) {
  tell({ want: what });
  assert.equal(await told(), what);
}

/** A node that was killed is waited for; what happened meanwhile and later shows. */
async function theNodeIsKilled() {
  // it listens before its database is there
  const { page, errors } = await open(origin, { allow: [/status of 503/] });
  await go(page, origin, "jobs");
  await page.locator('[data-live="live"]').waitFor();
  await page.locator(`[data-row="${await enqueue()}"]`).waitFor();
  await want("kill");
  await page.locator('[data-live="connecting"]').waitFor();
  await want("start");
  await page.locator('[data-live="live"]').waitFor();
  await page.locator(`[data-row="${await enqueue()}"] .state[data-state="finished"]`).waitFor();
  assert.deepEqual(errors, []);
  await page.context().close();
}

/** Frames that no node sends cost a socket, and neither the page nor a later event. */
async function framesAreGarbage() {
  const { page, errors } = await open(origin);
  const left = [...GARBAGE];
  await page.routeWebSocket(/\/ws$/, (socket) => {
    const server = socket.connectToServer();
    socket.onMessage((message) => server.send(message));
    server.onMessage((message) => {
      socket.send(message);
      const next = left.shift();
      if (next !== undefined) socket.send(next);
    });
  });
  await go(page, origin, "overview");
  // each event is followed by a piece of it
  await until("all of it", async () => (await enqueue(), left.length === 0));
  const id = await enqueue();
  await page.locator(".feed a", { hasText: `#${id}` }).first().waitFor();
  await page.getByRole("link", { name: "Jobs", exact: true }).click();
  await page.locator(`[data-row="${id}"]`).waitFor();
  await page.locator('[data-live="live"]').waitFor();
  assert.deepEqual(errors, []);
  await page.context().close();
}

/** A page that nobody sees has no session; seen again it shows what came meanwhile. */
async function nobodyLooks() {
  const { page, errors } = await open(origin);
  const hide = (hidden) => page.evaluate((value) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => value });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
  await go(page, origin, "jobs");
  await page.locator('[data-live="live"]').waitFor();
  await until("its session", async () => (await sessions()) > 0);
  await hide(true);
  await page.locator('[data-live="resting"]').waitFor();
  await until("no session", async () => (await sessions()) === 0);
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  const id = await enqueue();
  await until("its end", async () => (await ask(origin, "GET", `/api/v1/jobs/${id}`)).state === "finished");
  assert.equal(await page.locator(`[data-row="${id}"]`).count(), 0);
  assert.deepEqual(asked, [], "nothing is asked while nobody looks");
  await hide(false);
  await page.locator(`[data-row="${id}"]`).waitFor();
  await page.locator('[data-live="live"]').waitFor();
  assert.deepEqual(errors, []);
  await page.context().close();
}

run(() => pieces([theNodeIsKilled, framesAreGarbage, nobodyLooks]));
