// pg-boss (npm) under the queue bench: batches of 1,000, four workers in the process, fetching on while batches are full,
// each batch completed by one call. Single jobs are picked up by LISTEN, which it has to be asked for.

import { Handled, now, oneByOne, paced, payload, serve } from "./peer.mjs";
import { PgBoss } from "pg-boss";

const QUEUE = "noop";
const BATCHES = { batchSize: 1000, localConcurrency: 4, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 };

const handled = new Handled();
const started = new Map();
let place, boss;

const begin = async (options, queue) => {
  boss = new PgBoss({ ...place, ...options });
  boss.on("error", (error) => process.stderr.write(`${error?.message ?? error}\n`));
  await boss.start();
  await boss.createQueue(QUEUE, queue);
};

serve({
  async open({ host, port, user, password, database }) {
    place = { host, port, user, password, database, max: 10 };
    await begin({}, {});
  },

  async bulk({ jobs, call, bytes }) {
    for (let left = jobs; left > 0; left -= call) {
      await boss.insert(QUEUE, Array(Math.min(left, call)).fill({ data: payload(bytes) }));
    }
  },

  enqueue: (command) => oneByOne(command, (job) => boss.send(QUEUE, job)),

  async work() {
    handled.begin();
    await boss.work(QUEUE, BATCHES, async (jobs) => {
      handled.count += jobs.length;
    });
  },

  async rest() {
    await boss.offWork(QUEUE, { wait: true });
    return handled.end();
  },

  async pickup(command) {
    started.clear();
    await boss.stop({ graceful: true, close: true });
    await begin({ useListenNotify: true }, {});
    await boss.updateQueue(QUEUE, { notify: true });
    await boss.work(QUEUE, {}, async (jobs) => {
      for (const job of jobs) started.set(job.data.n, now());
    });
    const answer = await paced(command, started, (job) => boss.send(QUEUE, job));
    await boss.offWork(QUEUE, { wait: true });
    return answer;
  },
});
