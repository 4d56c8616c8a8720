// graphile-worker (npm) under the queue bench, with the preset that its documents and its own performance test have for
// throughput: 24 jobs at once, a local queue of 500, completions in batches. Single jobs are picked up without either,
// since both trade delay for throughput. It deletes what is done.

import { Handled, now, oneByOne, paced, payload, serve } from "./peer.mjs";
import { Logger, makeWorkerUtils, run, WorkerPreset } from "graphile-worker";
import pg from "pg";

const CONCURRENT = 24;
const BATCHES = { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };

// it logs each job that is done
const logger = new Logger(() => () => {});
const handled = new Handled();
const started = new Map();
let pgPool, utils, runner;

const taskList = {
  noop: (payload) => {
    if (payload.n !== undefined) started.set(payload.n, now());
    handled.count++;
  },
};

const work = async (more) => {
  const worker = { logger, concurrentJobs: CONCURRENT, maxPoolSize: CONCURRENT + 4, ...more };
  runner = await run({ preset: { extends: [WorkerPreset], worker }, taskList, pgPool, noHandleSignals: true });
};

const rest = async () => {
  const resting = runner;
  runner = undefined;
  await resting?.stop();
};

serve({
  async open({ host, port, user, password, database }) {
    pgPool = new pg.Pool({ host, port, user, password, database, max: CONCURRENT + 4 });
    for (const event of ["error", "connect"]) pgPool.on(event, () => {});
    utils = await makeWorkerUtils({ pgPool, logger });
    await utils.migrate();
  },

  async bulk({ jobs, call, bytes }) {
    for (let left = jobs; left > 0; left -= call) {
      const spec = { identifier: "noop", payload: payload(bytes) };
      await utils.addJobs(Array(Math.min(left, call)).fill(spec));
    }
  },

  enqueue: (command) => oneByOne(command, (job) => utils.addJob("noop", job)),

  async work() {
    handled.begin();
    await work(BATCHES);
  },

  async rest() {
    await rest();
    return handled.end();
  },

  async pickup(command) {
    started.clear();
    await work({});
    const answer = await paced(command, started, (job) => utils.addJob("noop", job));
    await rest();
    return answer;
  },
});
