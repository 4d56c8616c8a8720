#!/usr/bin/env node
// Reads events and resumes by position, with console/sdk.js (a node serves it at /sdk.js). Needs a WebSocket: Node 22
// has one, Node 20 with --experimental-websocket.
//
//     read.mjs http://127.0.0.1:3000 [TOPIC] [--after POSITION] [--count N]
//
// Each event goes to stdout as one line of JSON. A program that must not miss anything over its own restarts keeps
// `after` where it keeps the work it did, and writes both at once; where repeating the last one is harmless,
// `subscribe(topic, { name, … })` keeps it in `options.store`.
import { parseArgs } from "node:util";
import { connect } from "../../console/sdk.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { after: { type: "string", default: "earliest" }, count: { type: "string", default: "Infinity" } },
});
const [base, topic = "task"] = positionals;
const onstate = (state, why) => state === "connecting" && console.error(`coming back: ${why}`);
const minium = connect(base, { onstate });

let left = Number(values.count);
for await (const event of minium.subscribe(topic, { after: values.after })) {
  if (event.type === "message") {
    process.stdout.write(JSON.stringify(event.data) + "\n");
    if (--left <= 0) break;
  } else if (event.type === "lost") {
    // 410: the position is gone, begin anew or think
    console.error(`${event.problem.code}: ${event.problem.detail}`);
    process.exitCode = 1;
    break;
  }
}
minium.close();
