// The dashboard of docs/clients.md, as it stands there, in a page of its node: what it shows, and that it goes on.
//
//     console_dashboard.mjs ORIGIN      says `{"want":"kill"}` and `{"want":"start"}`, and goes on when it was told so
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { ask, open, run, tell, told } from "./console.mjs";

const [origin] = process.argv.slice(2);
const enqueue = async (task) => (await ask(origin, "POST", "/api/v1/jobs", { task })).id;

run(async () => {
  const text = await readFile(new URL("../../docs/clients.md", import.meta.url), "utf8");
  const [, body] = /```html\n(.*?)```/s.exec(text);
  assert.ok(body.trim().split("\n").length <= 15, "it is as short as it says");
  // a page that no server sent is of no network, and would not be let into the local one
  const { page, errors } = await open(origin, { flags: ["--disable-features=LocalNetworkAccessChecks"] });
  await page.route(`${origin}/dashboard`, (route) => route.fulfill({ contentType: "text/html", body }));
  const before = await enqueue("echo");
  await page.goto(`${origin}/dashboard`);
  const row = (id, state) => page.locator("tr", { has: page.locator("td:first-child", { hasText: new RegExp(`^${id}$`) }) }).locator("td", { hasText: state });
  await row(before, "finished").waitFor();
  await row(await enqueue("fails"), "line 17 has no serial").waitFor();
  for (const what of ["kill", "start"]) {
    tell({ want: what });
    assert.equal(await told(), what);
  }
  const after = await enqueue("echo");
  await row(after, "finished").waitFor();
  assert.equal(await row(before, "finished").count(), 1, "it is the same page");
  assert.deepEqual(errors, []);
  tell({ done: "end" });
});
