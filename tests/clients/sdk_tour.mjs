// What console/sdk.js does, one after the other, against a node with a durable channel `kept`, a durable work channel
// `import` and nothing else. Ends with 0 when all of it was as it should be.
//
//     sdk_tour.mjs URL
import assert from "node:assert/strict";
import { MiniumError, connect } from "../../console/sdk.js";

const [url] = process.argv.slice(2);
const options = { pauseFirst: 2, pauseMax: 20 };
const store = new Map();
const kept = { getItem: (k) => store.get(k) ?? null, setItem: (k, v) => store.set(k, v) };

/** The next event of a type. */
async function next(events, type) {
  for (;;) {
    const { value, done } = await events.next();
    assert.ok(!done, `the stream ended before ${type}`);
    if (value.type === type) return value;
  }
}

const states = [];
const minium = connect(`${url}/`, { ...options, store: kept, onstate: (s) => states.push(s) });

// published, with a receipt; the same id again is the same message
const first = await minium.publish("kept/a", { n: 1 }, { id: "one" });
assert.deepEqual(await minium.publish("kept/a", { n: 1 }, { id: "one" }), first);
await minium.publish("kept/b", "zwei");
assert.equal(await minium.publish("chat", "nobody hears this"), null);
await assert.rejects(minium.publish("task/x", 1), (e) => e instanceof MiniumError && e.code === "forbidden");
assert.deepEqual([minium.state, states.at(-1)], ["open", "open"]);

// read from the beginning, and live behind the joint
const all = minium.subscribe("kept", { after: "earliest", name: "all" });
let events = all[Symbol.asyncIterator]();
const one = await next(events, "message");
assert.deepEqual([one.topic, one.data, one.position], ["kept/a", { n: 1 }, first]);
assert.equal((await next(events, "message")).data, "zwei");
await next(events, "caught_up");
await minium.publish("kept/c", null);
assert.equal((await next(events, "message")).data, null);

// a filter that meets another one has a socket of its own, and misses nothing
const wild = minium.subscribe("kept/+", { after: "earliest" })[Symbol.asyncIterator]();
for (const topic of ["kept/a", "kept/b", "kept/c"]) assert.equal((await next(wild, "message")).topic, topic);
assert.equal(minium.lines.length, 2);
await wild.return();
assert.equal(minium.lines.length, 1);

// the position was kept when the next event was asked for: a later run goes on behind it
await events.return();
assert.equal(store.get("minium:all"), `${first.epoch}:${first.offset + 1}`);
events = minium.subscribe("kept", { after: "earliest", name: "all" })[Symbol.asyncIterator]();
assert.equal((await next(events, "message")).topic, "kept/c");
await events.return();

// a position that is gone is the program's to decide
const lost = minium.subscribe("kept", { after: `${first.epoch + 1}:1` });
events = lost[Symbol.asyncIterator]();
assert.equal((await next(events, "lost")).problem.code, "epoch_changed");
lost.begin("earliest");
assert.equal((await next(events, "message")).topic, "kept/a");
await events.return();
const forbidden = minium.subscribe("kept", { after: "never" })[Symbol.asyncIterator]();
await assert.rejects(forbidden.next(), (e) => e.code === "invalid_request");

// a slow program is not buffered for beyond the bound, and loses nothing
const slow = connect(url, { ...options, queueMax: 8 });
const few = slow.subscribe("kept", { after: "earliest" });
events = few[Symbol.asyncIterator]();
await next(events, "message");
for (let n = 0; n < 200; n += 1) await minium.publish("kept/many", n);
assert.ok(few.queue.length <= 9, `${few.queue.length} events wait`);
for (let n = 0; n < 200; ) {
  const { topic, data } = await next(events, "message");
  if (topic === "kept/many") assert.equal(data, n++);
}
slow.close();
while (!(await events.next()).done); // what has come, and then the end

// peers
const [mine, theirs] = [minium.bus("ops"), minium.bus("other")];
const other = connect(url, options);
const peer = other.bus("ops");
const [hear, heard] = [mine[Symbol.asyncIterator](), peer[Symbol.asyncIterator]()];
const waiting = next(hear, "message");
while (peer.stage !== "open" || mine.stage !== "open") await new Promise((r) => setTimeout(r, 5));
peer.send({ from: "peer" });
assert.deepEqual((await waiting).data, { from: "peer" });
mine.send("back");
assert.equal((await next(heard, "message")).data, "back");
theirs.close();
other.close();

// work: bare messages, and jobs that want a word
const renders = minium.pull("render")[Symbol.asyncIterator]();
const rendered = next(renders, "message");
assert.equal(await minium.push("render", { frame: 1 }), null);
assert.deepEqual((await rendered).data, { frame: 1 });
{
  const id = await minium.push("import", { file: "a.csv" }, { attempts: 2 });
  const jobs = minium.pull("import")[Symbol.asyncIterator]();
  let { job, work } = await next(jobs, "job");
  assert.deepEqual([job.id, job.args, job.attempt], [id, { file: "a.csv" }, 1]);
  assert.ok(new Date((await work.extend(), work.leaseExpires)) > new Date());
  await work.note({ at: "half" }, { percent: 50 });
  await Promise.all([work.step("half"), work.log("rows: 2")]);
  const { lines } = await (await fetch(`${url}/api/v1/jobs/${id}/log`)).json();
  assert.deepEqual(lines.map((l) => [l.n, l.level, l.text]), [[1, "step", "half"], [2, "info", "rows: 2"]]);
  await work.ack({ rows: 2 });
  await assert.rejects(work.nack("late"), (e) => e.code === "lease_lost");
  const second = await minium.push("import", { file: "b.csv" });
  ({ job, work } = await next(jobs, "job"));
  assert.equal(job.id, second);
  await fetch(`${url}/api/v1/jobs/${second}/cancel`, { method: "POST" });
  if (!work.signal.aborted) await new Promise((done) => work.signal.addEventListener("abort", done));
  // a job that is in hand when the puller leaves can still be told of, and no other one comes
  const third = await minium.push("import", { file: "c.csv" });
  await work.nack("stopped", false).catch((e) => assert.equal(e.code, "lease_lost"));
  ({ job, work } = await next(jobs, "job"));
  assert.equal(job.id, third);
  await jobs.return();
  await work.ack("by the puller that left");
  const { state, result } = await (await fetch(`${url}/api/v1/jobs/${third}`)).json();
  assert.deepEqual([state, result], ["finished", "by the puller that left"]);
  assert.equal(minium.lines.filter((l) => l.own).length, 1, "only the one that renders");
}

// a node that is not there is waited for; closing ends what waits
const nowhere = connect("http://127.0.0.1:1", options);
const vain = nowhere.publish("chat", "x");
nowhere.close();
await assert.rejects(vain, (e) => e.code === "closed");

// a socket that cannot even be made, as in a page that may not, is told and not tried for ever
class None {
  constructor() {
    throw new SyntaxError("not from here");
  }
}
const barred = connect(url, { ...options, WebSocket: None });
await assert.rejects(barred.publish("chat", "x"), (e) => e.code === "refused" && /not from here/.test(e.message));

minium.close();
assert.equal(minium.state, "closed");
await assert.rejects(minium.publish("chat", "x"), (e) => e.code === "closed");
