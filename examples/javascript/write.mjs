#!/usr/bin/env node
// Publishes messages, with console/sdk.js (a node serves it at /sdk.js). Each is acknowledged, on a durable channel
// after its commit and with its position, and said again with the same id when the connection was cut. Needs a
// WebSocket: Node 22 has one, Node 20 with --experimental-websocket.
//
//     write.mjs http://127.0.0.1:3000 [TOPIC] [--count N]
import { parseArgs } from "node:util";
import { connect } from "../../console/sdk.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { count: { type: "string", default: "1" } },
});
const [base, topic = "example/javascript"] = positionals;
const minium = connect(base);

for (let n = 1; n <= Number(values.count); n += 1) {
  try {
    await minium.publish(topic, { n, from: "javascript" });
  } catch (error) {
    // `code` is one of a few stable words
    console.error(error.message);
    process.exitCode = 1;
  }
}
minium.close();
