// The console of a node that asks for tokens: signing in, what a token that only reads is shown, and what it is not.
//
//     console_tokens.mjs ORIGIN READER WRITER ADMIN
import assert from "node:assert/strict";
import { accessibility, ask, go, open, run, tell } from "./console.mjs";

const [origin, reader, writer, admin] = process.argv.slice(2);

run(async () => {
  const { page, errors } = await open(origin, { allow: [/status of 40[13]/] });
  const addresses = [];
  page.on("request", (request) => addresses.push(request.url()));
  page.on("websocket", (socket) => addresses.push(socket.url()));
  const { id } = await ask(origin, "POST", "/api/v1/jobs", { task: "nobody", args: [] }, admin);
  const signIn = async (token) => {
    await page.locator("#token").fill(token);
    await page.locator("dialog[open] button[type=submit]").click();
    await page.locator("dialog[open]").waitFor({ state: "detached" });
  };
  await page.goto(`${origin}/#/topics/task`);
  await page.locator("#token").waitFor();
  assert.deepEqual(await accessibility(page), [], "signing in");
  await page.locator("#token").fill("rubbish");
  await page.getByText("This does not look like a token.").waitFor();
  // one that is no good any more: it is asked for another
  await page.locator("dialog[open]").evaluate((dialog) => (dialog.dataset.first = "yes"));
  await page.locator("#token").fill(`${reader.split(".").slice(0, 2).join(".")}.c2ln`);
  await page.locator("dialog[open] button[type=submit]").click();
  await page.locator("dialog[open]:not([data-first]) #token").waitFor();
  await signIn(reader);
  // every stream of the page begins anew, with the token
  await page.locator(".tail li").waitFor();
  await page.locator('[data-live="live"]').waitFor();
  await page.waitForFunction(() => !document.querySelector("main .failure"));
  await go(page, origin, "jobs", `[data-row="${id}"]`);
  tell({ done: "signed in" });

  // it looks, and is offered nothing that would be refused
  assert.equal(await page.getByRole("link", { name: "Enqueue", exact: true }).count(), 1, "in the list of pages alone");
  assert.equal(await page.getByRole("checkbox").count(), 0);
  await go(page, origin, `jobs/${id}`, ".facts");
  await page.getByText("read only").waitFor();
  assert.equal(await page.getByRole("button", { name: "Retry" }).count(), 0);
  await go(page, origin, "workers");
  assert.equal(await page.getByRole("button", { name: "Tell all…" }).count(), 0);
  await go(page, origin, "enqueue", "#task");
  await page.getByText("This token may look at jobs, and not enqueue any.").waitFor();
  // the tab keeps it, and another one does not have it
  await page.reload();
  await page.locator(".who", { hasText: "tester" }).waitFor();
  const other = await page.context().newPage();
  await other.goto(`${origin}/#/jobs`);
  await other.locator("#token").waitFor();
  await other.close();
  tell({ done: "reads" });

  // a refusal of one thing is none of all: the task is the node's own, and others may be enqueued
  const signOut = async () => {
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.locator("#token").waitFor();
  };
  const enqueue = page.locator("main form button[type=submit]");
  await signOut();
  await signIn(writer);
  await go(page, origin, "enqueue", "#task");
  await page.locator("#task").fill("minium/x");
  await enqueue.click();
  await page.locator("main .failure", { hasText: "the task minium/x is the node's own" }).waitFor();
  await page.locator("#task").fill("nobody");
  await enqueue.click();
  await page.waitForURL(/#\/jobs\/\d+$/);
  await page.getByRole("button", { name: "Cancel", exact: true }).waitFor();
  // one that names the scope is, also where the page could not know
  const scopeless = (url) => url.pathname.endsWith("/cancel");
  await page.route(scopeless, (route) => route.continue({ headers: { ...route.request().headers(), authorization: `Bearer ${reader}` } }));
  await page.getByRole("button", { name: "Cancel", exact: true }).click();
  await page.getByText("read only").waitFor();
  await page.unroute(scopeless);
  tell({ done: "refused" });

  await signOut();
  await signIn(admin);
  await go(page, origin, `jobs/${id}`, ".facts");
  await page.getByRole("button", { name: "Cancel", exact: true }).click();
  await page.locator('.facts .state[data-state="cancelled"]').waitFor();
  assert.equal((await ask(origin, "GET", `/api/v1/jobs/${id}`, undefined, admin)).state, "cancelled");
  for (const token of [reader, writer, admin]) assert.ok(addresses.every((address) => !address.includes(token)), "no token stands in an address");
  assert.ok(addresses.some((address) => address.startsWith("ws")), "it listened");
  assert.deepEqual(errors, []);
  tell({ done: "end" });
});
