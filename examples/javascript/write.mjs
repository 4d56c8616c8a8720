#!/usr/bin/env node
// Publishes messages by POST, which answers each one. Runs in Node 18 and later, and in pages.
//
//     write.mjs http://127.0.0.1:3000 [TOPIC] [--count N]
//
// A WebSocket on /pub/TOPIC takes more messages in less time, but in JavaScript nobody can know when all have been
// judged: refusals come as frames `{"problem":…}`, and what comes after close() was called is dropped by the browser.
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { count: { type: "string", default: "1" } },
});
const [base, topic = "example/javascript"] = positionals;

for (let n = 1; n <= Number(values.count); n += 1) {
  const answer = await fetch(`${base.replace(/\/+$/, "")}/pub/${topic}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ n, from: "javascript" }),
  });
  if (!answer.ok) {
    // A problem document (RFC 9457); its `code` is one of a few stable words.
    const { code, detail } = await answer.json();
    console.error(`${code}: ${detail}`);
    process.exitCode = 1;
  }
}
