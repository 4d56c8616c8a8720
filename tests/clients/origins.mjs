// A page asks two nodes that are not its own: one that lists its origin, and one that does not.
//
//     origins.mjs ITS-OWN LISTED OTHER JOB
import assert from "node:assert/strict";

const [, , , listed, other, job] = process.argv;
const place = new URL(`/api/v1/jobs/${job}`, listed);

const first = await fetch(place);
const tag = first.headers.get("etag");
assert.equal(first.status, 200);
assert.ok(tag, "the tag may be read");
// this header needs a preflight
const again = await fetch(place, { headers: { "If-None-Match": tag }, cache: "no-store" });
assert.equal(again.status, 304);
const noted = await fetch(place, {
  method: "PATCH",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ notes: { seen: true } }),
});
assert.equal((await noted.json()).notes.seen, true);

let refused = false;
try {
  await fetch(new URL("/api/v1/jobs", other));
} catch {
  refused = true;
}
assert.ok(refused, "a node that does not list the origin is not read");
process.stdout.write("read\n");
