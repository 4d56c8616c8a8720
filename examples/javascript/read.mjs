#!/usr/bin/env node
// Reads task events and resumes by position. Runs in Node 22 (20 with --experimental-websocket), and with small
// changes in a page: WebSocket, fetch and timers are all it needs.
//
//     read.mjs http://127.0.0.1:3000 [TOPIC] [--after POSITION] [--count N]
//
// Each event goes to stdout as one line of JSON. A program that must not miss anything over its own restarts keeps
// `after` where it keeps the work it did, and writes both at once.
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { after: { type: "string", default: "earliest" }, count: { type: "string" } },
});
const [base, topic = "task"] = positionals;
const http = `${base.replace(/\/+$/, "")}/sub/${topic}`;
const final = (code) => [1000, 1002, 1003, 1007, 1008, 1009].includes(code) || (code >= 4500 && code < 5000);

let after = values.after;
let last = null;
let left = Number(values.count ?? Infinity);
let failures = 0;

// Does the first position come after the second? BigInt, since offsets may be larger than a double is exact.
const later = ([e, o], [f, p]) => e > f || (e === f && o > p);

function finish(status, why) {
  if (why) console.error(why);
  process.exitCode = status;
}

// A refused handshake has no status in a browser's API. The same request as an event stream tells it.
async function refusal() {
  const stop = new AbortController();
  try {
    const answer = await fetch(`${http}?after=${after}`, {
      headers: { accept: "text/event-stream" },
      signal: stop.signal,
    });
    // 410: the position is gone, begin anew or think
    const mended = answer.ok || answer.status >= 500 || answer.status === 429;
    return mended ? null : `refused with ${answer.status}: ${await answer.text()}`;
  } catch {
    return null; // nobody there: that passes
  } finally {
    stop.abort();
  }
}

function connect() {
  const socket = new WebSocket(`${http.replace(/^http/, "ws")}?after=${after}`);
  let opened = false;
  let over = false;
  socket.onopen = () => (opened = true);
  socket.onmessage = ({ data }) => {
    if (left <= 0) return;
    const event = JSON.parse(data);
    const position = [BigInt(event.epoch), BigInt(event.sequence)];
    if (last && !later(position, last)) return; // seen already
    [last, after, failures] = [position, position.join(":"), 0];
    process.stdout.write(data.replace(/[\r\n]/g, " ") + "\n");
    if (--left <= 0) socket.close(1000);
  };
  const ended = async ({ code = 1006, reason = "" }) => {
    if (over) return;
    over = true;
    if (left <= 0 || code === 1000) return finish(0);
    if (final(code)) return finish(1, `closed with ${code}: ${reason}`);
    const refused = opened ? null : await refusal();
    if (refused) return finish(1, refused);
    console.error(`${opened ? `closed with ${code}` : "no connection"}, coming back`);
    const pause = Math.min(15_000, 100 * 2 ** Math.min(failures++, 10)) * (0.5 + Math.random() / 2);
    setTimeout(connect, pause);
  };
  socket.onclose = ended;
  socket.onerror = () => opened || ended({}); // Node 20 tells a failed handshake only here
}

if (left > 0) connect();
