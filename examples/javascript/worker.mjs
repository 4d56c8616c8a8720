#!/usr/bin/env -S node --experimental-websocket
// Takes jobs over one WebSocket. Runs in Node 20 and later; nothing is needed besides.
//
//     worker.mjs http://127.0.0.1:3000 TASK [--credit N] [--count N]
//
// A job's arguments are {"steps": 3}; each step is noted, and {"fail": "why"} ends it badly. The channel TASK must be
// durable on the node. MINIUM_TOKEN, if set, shows who works.
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { credit: { type: "string", default: "2" }, count: { type: "string", default: "-1" } },
});
const [base, task] = positionals;
const url = `${base.replace(/\/+$/, "").replace(/^http/, "ws")}/ws`;
const token = process.env.MINIUM_TOKEN;
const protocols = ["minium.v1"];
if (token) protocols.push(`minium.bearer.${Buffer.from(token).toString("base64url")}`);

const unsaid = new Map(); // how jobs ended, by lease, until the node has answered: said again over the next socket
let [left, failures] = [Number(values.count), 0];
let socket; // the one that is open, or was: who works goes on over a cut, and says the rest over the next
const running = new Map();
const say = (frame) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(frame));

// Works on one job. Answers its last word.
async function run(job, lease, signal) {
  const about = { job: job.id, lease };
  const { steps = 1, fail } = job.args ?? {}; // any JSON
  for (let step = 1; step <= steps; step += 1) {
    await sleep(50, undefined, { signal }); // the work
    const progress = { percent: (100 * step) / steps, text: `step ${step}` };
    say({ op: "note", ...about, notes: { by: "javascript" }, progress });
    say({ op: "extend", ...about }); // whoever works long does so at a third of the lease
  }
  if (fail) return { op: "nack", ...about, error: fail, retry: false, ref: lease };
  return { op: "ack", ...about, result: { steps }, ref: lease };
}

function connect() {
  socket = new WebSocket(url, protocols);
  const heard = {
    job({ job, lease }) {
      const stop = new AbortController();
      running.set(job.id, stop);
      run(job, lease, stop.signal).then(
        (word) => running.delete(job.id) && say(unsaid.set(lease, word).get(lease)),
        () => say({ op: "pull", topic: task }), // it was cancelled: there is room for another one
      );
    },
    cancel: ({ job }) => running.get(job)?.abort(),
    drain: () => socket.close(1000),
  };
  heard.cancelled = heard.cancel; // the answer to a word about a job that was cancelled
  socket.onopen = () => {
    failures = 0;
    for (const word of unsaid.values()) say(word); // the same word again is harmless
    say({ op: "pull", topic: task, credit: Number(values.credit) });
  };
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    if (heard[frame.op]) return heard[frame.op](frame);
    const word = unsaid.get(frame.ref);
    if (!word || frame.problem?.retryable) return;
    unsaid.delete(frame.ref); // done, or somebody else has the job: both end it here
    console.log(JSON.stringify({ job: word.job, said: word.op, answer: frame.op }));
    left -= 1;
    if (left !== 0) return say({ op: "pull", topic: task });
    socket.close(1000);
    for (const stop of running.values()) stop.abort(); // what still runs is given to somebody else
  };
  socket.onclose = ({ code }) => {
    if (left === 0) return;
    console.error(`closed with ${code}, coming back`);
    failures += 1;
    setTimeout(connect, (0.5 + Math.random() / 2) * Math.min(15000, 100 * 2 ** Math.min(failures, 10)));
  };
}

connect();
