#!/usr/bin/env node
// Publishes messages over one WebSocket. Runs in Node 22 (20 with --experimental-websocket), and in pages.
//
//     write.mjs http://127.0.0.1:3000 [TOPIC] [--count N]
//
// Nothing is acknowledged in plain mode, but what the server refuses it says: one text frame with the key `problem`.
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { count: { type: "string", default: "1" } },
});
const [base, topic = "example/javascript"] = positionals;
const count = Number(values.count);
const socket = new WebSocket(`${base.replace(/\/+$/, "").replace(/^http/, "ws")}/pub/${topic}`);
let refused = 0;

socket.onmessage = ({ data }) => {
  const { problem } = JSON.parse(data);
  console.error(`${problem.code}: ${problem.detail}`);
  refused += 1;
};
socket.onclose = ({ code, reason }) => {
  if (code !== 1000) console.error(`closed with ${code}: ${reason}`);
  process.exitCode = refused > 0 || code !== 1000 ? 1 : 0;
};
socket.onopen = async () => {
  for (let n = 1; n <= count; n += 1) {
    socket.send(JSON.stringify({ n, from: "javascript" }));
    // What send() takes waits in memory; let it drain now and then.
    while (socket.bufferedAmount > 1 << 20) await new Promise((done) => setTimeout(done, 5));
  }
  // The server reads in order: its answer to the Close comes behind all refusals.
  socket.close(1000);
};
