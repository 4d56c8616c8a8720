// The parts of the console that need no page.
//
//     node --test console_parts.mjs
import assert from "node:assert/strict";
import { test } from "node:test";
import { nearest } from "../../console/lib/catalogue.js";
import { Figures, bin, quantile } from "../../console/lib/figures.js";
import { asked, body, renewed, some } from "../../console/lib/filter.js";
import * as format from "../../console/lib/format.js";
import { hidden } from "../../console/lib/hidden.js";
import { heard, machineOf, seen, summary, under, worked } from "../../console/lib/images.js";
import { PAGES_MAX, PAGE_MAX, ahead, behind } from "../../console/lib/journal.js";
import { read as key } from "../../console/lib/keys.js";
import { ROW_MAX, WIDTH, lay } from "../../console/lib/kin.js";
import { fits, kindOf, wanted } from "../../console/lib/reading.js";
import { read, write } from "../../console/lib/route.js";
import { assemble, fields, variants } from "../../console/lib/schema-form.js";
import { SLACK, seek } from "../../console/lib/seek.js";
import { each } from "../../console/lib/many.js";
import { claims, lacking, mayTry } from "../../console/lib/session.js";
import { isTopic, tree, uses } from "../../console/lib/topic.js";

test("spans, times, counts and rates are told in words", () => {
  const spans = [[0, "0 s"], [0.004, "4 ms"], [1, "1 s"], [2.25, "2.3 s"], [42.4, "42 s"], [59.99, "1 min"], [90, "2 min"], [3600, "1 h"], [86_400 * 3, "3 d"], [NaN, "–"]];
  for (const [seconds, words] of spans) assert.equal(format.span(seconds), words, String(seconds));
  const now = Date.parse("2026-11-28T04:00:00Z");
  assert.equal(format.ago("2026-11-28T03:59:56.100Z", now), "3 s ago");
  assert.equal(format.ago("2026-11-28T04:10:00Z", now), "in 10 min");
  assert.equal(format.ago("2026-11-28T03:59:59.900Z", now), "now");
  assert.deepEqual([null, "never"].map((t) => format.ago(t, now)), ["–", "–"]);
  assert.equal(format.absolute("never"), "");
  assert.match(format.absolute("2026-11-28T03:59:56.100Z"), /^2026-11-2\d \d\d:59:56\.100 (UTC|[+-]\d\d:\d\d)$/);
  assert.deepEqual([0, 0.25, 1.5, 1234.5].map(format.rate), ["0/s", "0.25/s", "1.5/s", "1,235/s"]);
  assert.deepEqual([0, 1023, 1536, 25276502016].map(format.bytes), ["0 B", "1023 B", "1.5 KiB", "23.5 GiB"]);
  assert.equal(format.line({ a: "x".repeat(50) }, 20), '{"a":"xxxxxxxxxxxxx…');
});

test("a job is told by its error, its result, its progress or its notes", () => {
  assert.equal(format.gist({ state: "failed", error: "line 17\n has none" }), "line 17 has none");
  assert.equal(format.gist({ state: "finished", result: { rows: 1 } }), '{"rows":1}');
  assert.equal(format.gist({ state: "active", progress: { percent: 1, text: "half" } }), "half");
  assert.equal(format.gist({ state: "inactive", notes: { rack: 3, of: "a" } }), "rack=3 of=a");
  assert.equal(format.stateOf({ state: "inactive", phase: "blocked" }), "blocked");
  const waits = (more) => format.stateOf({ state: "inactive", ...more });
  assert.deepEqual([waits({ parents: [] }), waits({ parents: [], delayed: "2999-01-01T00:00:00Z" }), waits({ parents: [1] })], ["ready", "delayed", "inactive"]);
});

test("places that are kept from sight are found, wherever they stand", () => {
  assert.deepEqual(hidden("***"), ["/"]);
  assert.deepEqual(hidden([1, { rack: 7, "pass/word": "***", in: ["***", "** *"] }, null]), ["/1/pass~1word", "/1/in/0"]);
});

test("places stand in the hash, and come out as they went in", () => {
  assert.deepEqual(read(""), { page: "overview", rest: "", query: {} });
  for (const [page, rest, query] of [["jobs", "", { state: "failed", note: "rack=a b&c" }], ["topics", "livesys/+", {}], ["jobs", "42", {}], ["audit", "", { topic: "a/b", from: "2026-11-28T04:00" }]]) {
    assert.deepEqual(read(write(page, rest, query)), { page, rest, query });
  }
  assert.equal(write("jobs", "", { state: "", task: null, q: undefined }), "#/jobs");
  assert.deepEqual(read("#/topics/%E0%A4%A"), { page: "topics", rest: "%E0%A4%A", query: {} });
});

test("an hour of events becomes columns; what is older or unknown is not made up", () => {
  const start = Date.parse("2026-11-28T04:00:00Z");
  const at = (ms) => new Date(start + ms).toISOString();
  const figures = new Figures();
  const event = (type, ms, data = {}) => figures.add({ type: `task.${type}`, time: at(ms), data });
  for (let n = 0; n < 10; n += 1) event("enqueue", 60_000);
  event("dequeue", 60_500, { created: at(60_000), delayed: at(60_000), retried: null, started: at(60_500) });
  event("finished", 62_500, { started: at(60_500), finished: at(62_500) });
  event("failed", 63_000, { started: at(62_000), finished: null });
  event("progress", 63_000);
  figures.add({ type: "task.enqueue", time: "never", data: {} });
  const columns = figures.columns(start + 70_000, 300, 5);
  assert.equal(columns.at.length, 60);
  const column = columns.at.indexOf(start / 1000 + 60);
  assert.deepEqual([columns.enqueued[column], columns.finished[column], columns.failed[column]], [2, 0.2, 0.2]);
  assert.deepEqual([columns.enqueued[column - 1], columns.enqueued[column + 1]], [null, 0]);
  assert.ok(Math.abs(columns.wait50[column] - 0.5) < 0.07, String(columns.wait50[column]));
  assert.ok(Math.abs(columns.run95[column] - 2) < 0.27, String(columns.run95[column]));
  assert.equal(figures.total(start + 70_000, 3600).enqueued, 10);
  assert.equal(figures.total(start + 70_000 + 3_600_000, 3600).enqueued, 0);
  // the ring goes round: what is older than it is not counted to a newer piece
  event("enqueue", 3_660_000);
  event("enqueue", 60_000);
  assert.equal(figures.total(start + 3_661_000, 3600).enqueued, 1);
  assert.equal(quantile(new Uint32Array(4), 0.5), null);
  assert.ok(bin(1e9) < 84 && bin(-1) === 0 && bin(NaN) === 0);
});

test("filters go into a query and a body", () => {
  const query = { state: "failed, cancelled", id: "1 2,3", note: "rack=a,b", origin: "7", q: " ", enqueued_after: "2026-11-28T04:00:00Z", page: "x" };
  assert.deepEqual(asked(query), { state: ["failed", "cancelled"], id: ["1", "2", "3"], note: "rack=a,b", origin: "7", enqueued_after: "2026-11-28T04:00:00.000Z" });
  assert.deepEqual([body(query).id, body(query).origin], [[1, 2, 3], 7]);
  assert.deepEqual([body({ note: "rack,site" }).note, body({ note: "rack=3,4" }).note], [["rack", "site"], "rack=3,4"], "as the list reads it");
  assert.deepEqual([some({}), some({ q: "  " }), some({ q: "a" })], [false, false, true]);
  const row = { id: 1, state: "inactive", phase: "blocked" };
  assert.equal(renewed(row, { id: 1, state: "inactive" }).phase, "blocked");
  assert.equal(renewed(row, { id: 1, state: "active" }).phase, null);
  assert.equal(renewed(row, { id: 1, state: "inactive", phase: "ready" }).phase, "ready", "one that was read has its own");
  assert.equal(renewed({ id: 1, state: "failed" }, { id: 1, state: "inactive", delayed: "2999-01-01T00:00:00Z" }).phase, "delayed");
});

test("keys stand for actions, pairs for pages", () => {
  assert.deepEqual(key(false, "j"), { action: { type: "next" }, second: false });
  assert.deepEqual(key(false, "g"), { action: null, second: true });
  assert.deepEqual(key(true, "j"), { action: { type: "page", page: "jobs" }, second: false });
  assert.deepEqual(key(true, "z"), { action: null, second: false });
  assert.deepEqual(key(false, "toString"), { action: null, second: false });
});

test("a schema becomes fields, and they a document", () => {
  const schema = {
    type: "object", required: ["serial", "disk"], $defs: { size: { type: "integer", minimum: 1, description: "In GiB." } },
    properties: {
      serial: { type: "string", title: "Serial" }, site: { enum: ["north", null, 7] }, dry: { type: "boolean" }, secret: { type: "string", writeOnly: true },
      disk: { type: "object", required: ["size"], properties: { size: { $ref: "#/$defs/size" }, "a/b": { type: ["number", "null"] } } }, tags: { type: "array" },
    },
  };
  const all = fields(schema);
  assert.deepEqual(all.map((f) => [f.label, f.kind, f.required]), [
    ["Serial", "text", true], ["site", "choice", false], ["dry", "boolean", false], ["secret", "secret", false], ["disk.size", "integer", true], ["disk.a/b", "number", false], ["tags", "json", false],
  ]);
  assert.deepEqual([all[4].help, all[4].min], ["In GiB.", 1]);
  const filled = { "/serial": "X", "/site": "1", "/dry": true, "/disk/size": "4", "/disk/a~1b": "0.5", "/tags": '["a"]' };
  assert.deepEqual(assemble(all, filled), { document: { serial: "X", site: null, dry: true, disk: { size: 4, "a/b": 0.5 }, tags: ["a"] }, wrong: {} });
  assert.deepEqual(Object.keys(assemble(all, { "/disk/size": "4.5", "/tags": "a" }).wrong), ["/serial", "/disk/size", "/tags"]);
  const list = fields({ type: "array", minItems: 1, prefixItems: [{ type: "string" }, { type: "integer" }] });
  assert.deepEqual(assemble(list, { "/0": "a", "/1": "2" }).document, ["a", 2]);
  assert.deepEqual([fields({ type: "string" }), fields(true), fields(null)], [null, null, null]);
  assert.equal(fields({ $ref: "#/$defs/a", $defs: { a: { $ref: "#/$defs/a" } } }), null);
});

test("what programs write for their types is a field like another", () => {
  const schema = {
    type: "object", required: ["mode"], $defs: { mode: { oneOf: [{ const: "fast", description: "x" }, { const: "safe" }] }, disk: { type: "object", required: ["name"], properties: { name: { type: "string" }, size: { type: "integer" } } } },
    properties: {
      mode: { $ref: "#/$defs/mode" }, site: { anyOf: [{ type: "string", maxLength: 3 }, { type: "null" }] }, also: { anyOf: [{ $ref: "#/$defs/mode" }, { type: "null" }] }, at: { type: "string", format: "date-time" },
      tags: { type: "array", items: { type: "string", pattern: "^[a-z]+$" }, maxItems: 2, uniqueItems: true }, sizes: { type: ["array", "null"], items: { type: "integer", minimum: 1 } }, disks: { type: "array", items: { $ref: "#/$defs/disk" } },
      odd: { type: "string", pattern: "(" }, main: { allOf: [{ $ref: "#/$defs/disk" }] },
    },
  };
  const all = fields(schema);
  assert.deepEqual(all.map((f) => [f.label, f.kind, f.required]), [
    ["mode", "choice", true], ["site", "text", false], ["also", "choice", false], ["at", "time", false], ["tags", "list", false], ["sizes", "list", false], ["disks", "json", false], ["odd", "text", false], ["main.name", "text", false], ["main.size", "integer", false],
  ]);
  assert.deepEqual([all[0].choices, all[6].hint], [["fast", "safe"], '[{"name":"","size":0}]']);
  const filled = { "/mode": "1", "/at": "2026-11-28T04:00:00Z", "/tags": " a \n\nb", "/sizes": "1\n2", "/odd": "any" };
  assert.deepEqual(assemble(all, filled), { document: { mode: "safe", at: "2026-11-28T04:00:00.000Z", tags: ["a", "b"], sizes: [1, 2], odd: "any" }, wrong: {} });
  const beyond = assemble(all, { "/mode": "0", "/site": "abcd", "/tags": "a\na", "/sizes": "0", "/disks": "[" });
  assert.deepEqual(beyond.wrong, { "/site": "It has at most 3 characters.", "/tags": "No two are the same.", "/sizes": "Line 1: It is at least 1.", "/disks": "This is no JSON; texts stand in quotation marks." });
  assert.equal(beyond.document.site, "abcd", "the server judges it all the same, when it is asked");
  const bound = (rules, said) => assemble(fields({ properties: { n: { type: "number", ...rules } } }), { "/n": said }).wrong["/n"];
  assert.deepEqual([bound({ minimum: 2 }, "1"), bound({ maximum: 2 }, "3"), bound({ exclusiveMinimum: 2 }, "2"), bound({ exclusiveMaximum: 2 }, "2"), bound({ minimum: 2 }, "2")], ["It is at least 2.", "It is at most 2.", "It is more than 2.", "It is less than 2.", undefined]);
});

test("what a schema tells apart by one value is a form of its own", () => {
  const schema = {
    properties: { type: { type: "string" }, host: { type: "string" } }, $defs: { order: { required: ["command"], properties: { command: { type: "string" } } } },
    allOf: [{ if: { properties: { type: { const: "command" } } }, then: { $ref: "#/$defs/order" } }, { if: { properties: { type: { const: "status" } } }, then: {} }, { if: { required: ["x"] }, then: {} }, { not: {} }],
  };
  const kinds = variants(schema);
  assert.deepEqual(kinds.map((k) => k.name), ["command", "status"]);
  const all = fields(kinds[0].schema);
  assert.deepEqual(all.map((f) => [f.label, f.required, f.initial]), [["type", true, "command"], ["host", false, undefined], ["command", true, undefined]]);
  assert.deepEqual(assemble(all, { "/type": "0", "/command": "reboot" }).document, { type: "command", command: "reboot" });
  assert.deepEqual([variants({}), variants(null), variants({ properties: {} })], [[], [], []]);
  const either = { required: ["id"], properties: { id: { type: "integer" } }, oneOf: [{ title: "a file", required: ["path"], properties: { path: { type: "string" } } }, { properties: { op: { const: "scan" }, deep: { type: "boolean" } } }] };
  assert.deepEqual(variants(either).map((k) => [k.name, fields(k.schema).map((f) => [f.label, f.required])]), [["a file", [["id", true], ["path", true]]], ["scan", [["id", true], ["op", false], ["deep", false]]]]);
  assert.deepEqual(variants({ oneOf: [{ type: "string" }, { properties: {} }] }), []);
});

test("topics are a tree, with what lies between", () => {
  const entry = (topic, pattern, rate) => ({ topic, pattern, rate });
  const nodes = tree([entry("a/b/c", "sub", 1), entry("a-b", "sub", 0), entry("a/b", "sub", 2), entry("a/b", "push", 5), entry("q/r", "push", 1)]);
  assert.deepEqual(nodes.map((n) => [n.topic, n.patterns[0], n.deep, n.rate, Boolean(n.entry)]), [
    ["a", "sub", 0, 3, false], ["a/b", "push", 1, 5, true], ["a/b", "sub", 1, 3, true], ["a/b/c", "sub", 2, 1, true], ["a-b", "sub", 0, 0, true], ["q/r", "push", 1, 1, true],
  ]);
});

test("a time is found in the journal by few looks", async () => {
  // every third offset is of this topic
  const entries = Array.from({ length: 10_000 }, (_, i) => ({ offset: 7 + i * 3, time: i * 1000 }));
  let looks = 0;
  const look = async (behind) => ((looks += 1), entries.find((e) => e.offset > behind) ?? null);
  for (const time of [0, 15_000, 5_000_000, 9_999_000, 20_000_000]) {
    looks = 0;
    const behind = await seek(time, 7, 40_000, look);
    const first = entries.find((e) => e.offset > behind);
    assert.ok(!first || first.time <= Math.max(time, entries[1].time), `${time}: begins at ${first?.time}`);
    assert.ok(!first || first.time >= Math.min(time - SLACK, entries.at(-1).time) - 1000, `${time}: begins at ${first?.time}`);
    assert.ok(looks < 25, `${looks} looks`);
  }
});

/** So many entries it has, from offset 11 on. */
const ENTRIES = 6000;
const END = ENTRIES + 11;

/** A journal of topics: one that is dense, one that is sparse, and one that says nothing for long. Pages end at `cap`, as those of large entries do. */
function journal(cap = Infinity) {
  const all = Array.from({ length: ENTRIES }, (_, i) => ({ offset: i + 11, time: i * 1000, line: i % 7 === 0 ? "seven" : "x", event: { type: "message", data: {} } }));
  const topics = { dense: all.filter((e) => e.offset % 2 === 0), sparse: all.filter((e) => e.offset % 97 === 0), burst: [...all.slice(0, 2500), ...all.slice(-3)] };
  const asked = { pages: 0 };
  const read = async (topic, after, limit) => {
    asked.pages += 1;
    const of = topics[topic];
    let [low, high] = [0, of.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (of[middle].offset > after) high = middle;
      else low = middle + 1;
    }
    const most = Math.min(limit, cap);
    const found = of.slice(low, low + most);
    return { entries: found, next: found.length === most ? found.at(-1).offset : Math.max(after, all.at(-1).offset) };
  };
  const of = (names) => [...new Set(names.flatMap((n) => topics[n].map((e) => e.offset)))].sort((x, y) => x - y);
  return { topics, asked, read, of };
}
const [every, never] = [() => true, () => false];

test("a journal is read on in pieces that join, also of several topics", async () => {
  for (const [names, many, cap] of [[["dense"], 700], [["sparse"], 700], [["sparse", "burst"], 5000], [["sparse", "dense"], 700, 13]]) {
    const { read, of } = journal(cap);
    const [found, sizes] = [[], []];
    for (let [to, end] = [10, false]; !end; ) {
      const piece = await behind(read, names, to, many, every, never);
      found.push(...piece.entries);
      sizes.push(piece.entries.length);
      [to, end] = [piece.to, piece.end];
    }
    // an entry that is on two topics of it comes twice, and stands beside itself
    assert.deepEqual([...new Set(found.map((e) => e.offset))], of(names), names.join());
    assert.ok(sizes.every((n) => n <= many), String(sizes));
  }
});

test("a journal is read back in pieces that join, with few questions", async () => {
  for (const [names, cap] of [[["dense"]], [["sparse"]], [["burst"]], [["dense", "sparse"]], [["dense", "sparse"], 13]]) {
    const { read, of, asked } = journal(cap);
    let [found, pieces] = [[], 0];
    for (let [to, end] = [END, false]; !end; pieces += 1) {
      const piece = await ahead(read, names, to, 11, 100, every, never);
      assert.ok(piece.to < to, `${names}: it goes on from ${to}`);
      found = [...piece.entries, ...found];
      [to, end] = [piece.to, piece.end];
    }
    assert.deepEqual([...new Set(found.map((e) => e.offset))], of(names), names.join());
    assert.ok(cap || asked.pages < pieces * names.length * 3 + 40, `${names}: ${asked.pages} pages for ${pieces} pieces`);
  }
});

test("what fits is looked for in a bounded piece, within its time", async () => {
  const { read, asked, topics } = journal();
  const seven = (e) => e.line === "seven";
  const few = await behind(read, ["dense"], 10, 10, seven, never);
  assert.deepEqual([few.entries.length, few.end], [10, false]);
  const none = await behind(read, ["dense"], 10, 10, never, never);
  assert.deepEqual([none.entries.length, none.end, none.looked], [0, true, topics.dense.length]);
  asked.pages = 0;
  const back = await ahead(read, ["dense"], END, 11, 10, never, never);
  assert.deepEqual([back.entries.length, back.end], [0, false]);
  assert.ok(asked.pages <= PAGES_MAX * 4 && back.to < END, `${asked.pages} pages to ${back.to}`);
  const late = await behind(read, ["dense"], 10, PAGE_MAX, (e) => e.time < 100_000, (e) => e.time >= 110_000);
  assert.deepEqual([late.entries.length, late.end, late.looked], [50, true, 56], "what is too late is not read");
  const early = await ahead(read, ["dense"], END, 11, PAGE_MAX, (e) => e.time >= 5_900_000, (e) => e.time < 5_890_000);
  assert.deepEqual([early.entries.length, early.end], [50, true]);
  assert.ok(early.to > 5000, "what is too early is not read");
});

test("what a machine was told is what was said to it and to all", () => {
  assert.equal(wanted({ topic: " ", machine: "" }), null);
  assert.deepEqual([wanted({ machine: "rack-01", topic: "x" }).topics, wanted({ machine: "all" }).topics, wanted({ topic: "task" }).topics], [["livesys/rack-01", "livesys/all", "task/livesys/rack-01"], ["livesys/all"], ["task"]]);
  const one = (data, type = "message") => ({ offset: 1, time: 1000, line: JSON.stringify(data), event: { type, data } });
  const command = one({ type: "command", command: "Reboot" });
  const fit = (query, entry) => fits(wanted({ topic: "x", ...query }))(entry);
  assert.deepEqual([fit({}, command), fit({ kind: "command" }, command), fit({ kind: "status" }, command), fit({ q: "REBOOT" }, command), fit({ q: "halt" }, command)], [true, true, false, true, false]);
  assert.deepEqual([fit({ from: "1970-01-01T00:00:01Z" }, command), fit({ from: "1970-01-01T00:00:02Z" }, command), fit({ to: "1970-01-01T00:00:01Z" }, command), fit({ from: "never" }, command)], [true, false, false, true]);
  const order = one({ args: { command: "reboot" } }, "task.enqueue");
  assert.deepEqual([fit({ machine: "7", kind: "command" }, order), fit({ kind: "command" }, order), fit({ machine: "7", kind: "status" }, order)], [true, false, false]);
  assert.deepEqual([kindOf(one("text").event), kindOf(one({}, "task.failed").event)], ["message", "task.failed"]);
});

test("images are what their messages tell", () => {
  const at = "2026-11-28T04:00:00Z";
  let images = new Map();
  const say = (topic, data, time = at) => (images = heard(images, { topic, data, at: time }));
  say("livesys/a", { type: "status", state: "ready" });
  say("livesys/b", { type: "inventory", host: "b", time: "2026-11-28T03:00:00Z", cpu: { threads: 4 } });
  say("livesys/all", { type: "command", command: "reboot", id: "1" });
  say("livesys/a", { type: "status", state: "failed", text: "no", answers: "1" });
  say("livesys/a", { type: "status", state: "busy", answers: "other" });
  say("livesys", "text");
  say("livesys/c", null);
  const [a, b] = [images.get("a"), images.get("b")];
  assert.deepEqual([a.state, a.order.command, a.order.outcome.state, a.order.outcome.text], ["busy", "reboot", "failed", "no"]);
  assert.deepEqual([b.heard, b.order.outcome, images.size], ["2026-11-28T03:00:00Z", null, 2]);
  assert.deepEqual(summary({ memory: { total_bytes: 1024 }, block: [null, { name: "vda" }], network: "odd" }, format.bytes), [["memory", "1.0 KiB"], ["disks", "vda"]]);
});

test("a machine that takes work was told what its newest job says, and that has the job's outcome", () => {
  const at = (seconds) => `2026-11-28T04:00:0${seconds}Z`;
  let images = new Map();
  const job = (id, more) => ({ id, task: "livesys/7", args: { command: `c${id}` }, state: "inactive", attempt: 0, attempts: 2, created: at(id), started: null, finished: null, result: null, error: null, progress: null, ...more });
  const told = () => [images.get("7").order.command, images.get("7").order.outcome.state, images.get("7").order.outcome.text];
  const event = (type, one, told = 10) => (images = worked(images, one, { type: `task.${type}`, told }));
  event("enqueue", job(1));
  assert.deepEqual([told(), images.get("7").works, images.get("7").heard], [["c1", "sent", ""], true, null]);
  event("dequeue", job(1, { state: "active", attempt: 1, started: at(2), progress: { percent: 40.4, text: "half" } }));
  assert.deepEqual([told(), images.get("7").heard], [["c1", "taken", "40 % half"], at(2)]);
  event("retry", job(1, { attempt: 1, started: at(2), error: "no\n disk" }));
  assert.deepEqual(told(), ["c1", "sent", "try 1 of 2 has failed: no disk"]);
  // what was asked for before an event came is older than it, unless it is of a newer job
  images = worked(images, job(1), { told: 5 });
  assert.equal(told()[2], "try 1 of 2 has failed: no disk");
  images = worked(images, job(1, { state: "cancelled" }), { told: 11 });
  assert.equal(told()[1], "cancelled");
  event("enqueue", job(3, { args: ["up"] }), 12);
  event("finished", job(1, { state: "finished", result: 1 }), 13);
  assert.deepEqual(told(), ["up", "sent", ""], "an older one says nothing of the last");
  event("finished", job(3, { args: ["up"], state: "finished", result: { ok: 1 }, finished: at(4) }), 14);
  assert.deepEqual([told(), images.get("7").heard], [["up", "finished", '{"ok":1}'], at(4)]);
  event("removed", job(3, { args: ["up"], state: "finished" }), 15);
  assert.equal(told()[1], "finished", "it has ended as it did");
  event("expired", job(5), 16);
  assert.deepEqual(told().slice(0, 2), ["c5", "expired"]);
  // a message that was said later is the last word, one that was said before is not
  images = heard(images, { topic: "livesys/7", data: { type: "command", command: "early" }, at: at(3) });
  assert.equal(images.get("7").order.command, "c5");
  images = heard(images, { topic: "livesys/7", data: { type: "command", command: "late" }, at: at(6) });
  assert.deepEqual([images.get("7").order.command, images.get("7").order.outcome], ["late", null]);
  event("enqueue", job(4), 17);
  assert.equal(images.get("7").order.command, "late");
  const none = worked(new Map(), { ...job(1), task: "livesys/inventory" }, { told: 1 });
  assert.deepEqual([none.size, worked(none, { id: 1, task: "other" }, { told: 1 }).size, worked(none, {}, { told: 1 }).size], [0, 0, 0]);
});

test("what is read of a silent machine goes below what was heard meanwhile", () => {
  const say = (images, data, at) => heard(images, { topic: "livesys/a", data, at });
  const past = [{ type: "inventory", cpu: null }, { type: "status", state: "ready", text: "old" }, { type: "command", command: "x" }].map((data, i) => ({ topic: "livesys/a", data, at: `2026-11-28T04:00:0${i}Z` }));
  const alone = under(new Map(), "a", past).get("a");
  assert.deepEqual([alone.state, alone.order.command, alone.inventory.type], ["ready", "x", "inventory"]);
  const now = under(say(new Map(), { type: "status", state: "busy" }, "2026-11-28T05:00:00Z"), "a", past).get("a");
  assert.deepEqual([now.state, now.text, now.order.command, now.heard, now.inventory.type], ["busy", "", "x", "2026-11-28T05:00:00Z", "inventory"]);
  assert.equal(under(new Map(), "a", []).size, 0);
  const names = seen(new Map([["a", now]]), new Map([["a", { works: true }], ["b", { works: false }]]));
  assert.deepEqual([...names.values()].map((i) => [i.name, i.works, i.state]), [["a", true, "busy"], ["b", false, null]]);
});

test("the same is done for many, a few at a time, and what fails is told", async () => {
  let [now, most] = [0, 0];
  const done = [];
  const act = async (n) => {
    most = Math.max(most, ++now);
    await new Promise((resolve) => setImmediate(resolve));
    now -= 1;
    if (n === 3) throw new Error("three");
    done.push(n);
  };
  const errors = await each([1, 2, 3, 4, 5, 6, 7], 3, act);
  assert.deepEqual([errors.map((e) => e.message), done.sort(), most], [["three"], [1, 2, 4, 5, 6, 7], 3]);
  assert.deepEqual([await each([1], 3, act, () => true), await each([], 3, act), done.length], [[], [], 6]);
});

test("a family is laid out in rows that are bounded", () => {
  const one = (id) => ({ id, state: "finished", task: "t" });
  const { places, lines, width } = lay([one(1), one(2)], one(3), Array.from({ length: 20 }, (_, i) => one(10 + i)));
  assert.deepEqual([places.length, lines.length, places.filter((p) => p.me).length], [3 + ROW_MAX, 2 + ROW_MAX, 1]);
  assert.ok(places.every((p) => p.x >= 0 && p.x + WIDTH <= width));
  assert.equal(lay([], one(3), []).lines.length, 0);
});

test("the nearest schema governs, a task has its own or none", () => {
  const entry = (pattern, topic, task = null) => ({ pattern, topic, task });
  const all = [entry("sub", "livesys"), entry("sub", "livesys/all"), entry("bus", "livesys/all/x"), entry(null, null, "livesys")];
  assert.equal(nearest(all, "sub", "livesys/7/x"), all[0]);
  assert.equal(nearest(all, "sub", "livesys/all/x"), all[1]);
  assert.equal(nearest(all, "sub", "live"), null);
  assert.equal(nearest(all, "tasks", "livesys"), all[3]);
  assert.equal(nearest(all, "tasks", "livesys/inventory"), null);
});

test("what a token says decides what is offered, until the server refused it", () => {
  const token = (said) => `x.${Buffer.from(JSON.stringify(said)).toString("base64url")}.x`;
  const [reader, admin, ops] = [token({ sub: "é", scope: "jobs:read sub:task" }), token({ scopes: ["admin"] }), token({ scope: "jobs:write pub:livesys/+" })];
  assert.deepEqual(claims(reader), { subject: "é", scopes: ["jobs:read", "sub:task"], ends: null });
  assert.deepEqual([claims("rubbish"), claims("a.b.c")], [null, null]);
  const none = new Set();
  assert.deepEqual(["jobs:write", "admin", "pub"].map((s) => mayTry(s, reader, none)), [false, false, false]);
  assert.deepEqual(["jobs:write", "admin", "pub"].map((s) => mayTry(s, admin, none)), [true, true, true]);
  assert.deepEqual(["jobs:write", "admin", "pub", "bus"].map((s) => mayTry(s, ops, none)), [true, false, true, false]);
  assert.deepEqual([mayTry("admin", "", none), mayTry("admin", admin, new Set(["admin"]))], [true, false]);
  // only a refusal that names a scope of whole pages is one of them
  const refusal = (detail, code = "forbidden") => lacking({ code, detail });
  assert.deepEqual([refusal("ops may not change jobs: it has no scope jobs:write"), refusal("ops may not steer others: it has no scope admin")], ["jobs:write", "admin"]);
  assert.deepEqual([refusal("the task minium/x is the node's own: ops needs admin for it"), refusal("ops may not push a: it has no scope for that"), refusal("ops may not steer others: it has no scope admin", "x"), lacking(null)], [null, null, null, null]);
});

test("what a session does stands in its filters", () => {
  assert.deepEqual(uses({ pattern: "sub", filters: ["sub/x"] }), [{ verb: "sub", filter: "sub/x" }]);
  assert.deepEqual(uses({ pattern: null, filters: ["sub/livesys/7", "pull/a/b"] }), [{ verb: "sub", filter: "livesys/7" }, { verb: "pull", filter: "a/b" }]);
  const machine = (filter, verb = "sub") => machineOf({ verb, filter });
  assert.deepEqual(["livesys/7", "livesys", "livesys/+", "livesys/all", "livesys/inventory", "livesys/7/x", "other/7"].map((f) => machine(f)), ["7", null, null, null, null, null, null]);
  assert.deepEqual([machine("livesys/7", "pull"), machine("livesys/inventory", "pull"), machine("livesys/7", "pub"), machine("livesys/7", "push")], ["7", null, null, null]);
  assert.deepEqual(["a/b", "a", "", "a//b", "a/+", "a/..", "a b", "ä", "x".repeat(129)].map(isTopic), [true, true, false, false, false, false, false, false, false]);
});
