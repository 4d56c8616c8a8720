// The line protocol of the queue bench for peers on Node: one JSON object a line, commands on stdin, answers on stdout
// (bench/src/queue/driver.rs). A peer is an object with a method for each command; what they answer is sent with "ok".

import { createInterface } from "node:readline";
import { performance } from "node:perf_hooks";

export const now = () => performance.now();

export const say = (answer) => process.stdout.write(JSON.stringify(answer) + "\n");

// As many characters as make {"p":"…"} so many bytes long.
export const payload = (bytes) => ({ p: "x".repeat(Math.max(0, bytes - 8)) });

// Counts handled jobs, and says so whenever the count has changed and another few milliseconds have passed.
export class Handled {
  count = 0;
  #told = 0;
  #timer;

  begin() {
    this.count = this.#told = 0;
    this.#timer = setInterval(() => this.#tell(), 2);
  }

  end() {
    clearInterval(this.#timer);
    return { handled: this.count };
  }

  #tell() {
    if (this.count !== this.#told) say({ handled: (this.#told = this.count) });
  }
}

// Enqueues one by one: each of the connections waits for its answer before it sends the next.
export async function oneByOne({ jobs, connections, bytes }, enqueue) {
  const each = async (connection) => {
    for (let i = 0; i < Math.floor(jobs / connections); i++) await enqueue(payload(bytes), connection);
  };
  await Promise.all(Array.from({ length: connections }, (_, connection) => each(connection)));
}

// One job each so many milliseconds; answers how long each took from call and acknowledgement to its handler.
// `started` is a map from a job's number to when its handler began.
export async function paced({ jobs, every_ms, bytes }, started, enqueue) {
  const times = [];
  const began = now();
  for (let n = 0; n < jobs; n++) {
    const wait = began + n * every_ms - now();
    if (wait > 0) await new Promise((done) => setTimeout(done, wait));
    const called = now();
    await enqueue({ ...payload(bytes), n });
    times.push([called, now()]);
  }
  while (started.size < jobs) await new Promise((done) => setTimeout(done, 20));
  return {
    from_call_ms: times.map(([called], n) => started.get(n) - called),
    from_ack_ms: times.map(([, acked], n) => started.get(n) - acked),
  };
}

export async function serve(peer) {
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    if (command.do === "end") break;
    try {
      say({ ok: true, ...(await peer[command.do](command)) });
    } catch (error) {
      say({ error: String(error?.stack ?? error) });
    }
  }
  process.exit(0);
}
