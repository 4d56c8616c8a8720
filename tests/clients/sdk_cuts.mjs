// A publisher or a subscriber with console/sdk.js, for the test that cuts their connections: lines of JSON on stdout,
// "stop" on stdin.
//
//     sdk_cuts.mjs publish|subscribe URL TOPIC
import { createInterface } from "node:readline";
import { connect } from "../../console/sdk.js";

const [role, url, topic] = process.argv.slice(2);
const minium = connect(url, { pauseFirst: 2, pauseMax: 20, idle: 2000 });
const line = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const written = ({ epoch, offset }) => `${epoch}:${offset}`;

if (role === "publish") {
  let stop = false;
  createInterface({ input: process.stdin }).on("line", () => (stop = true));
  const awaited = [];
  for (let n = 0; !stop; n += 1) {
    awaited.push(minium.publish(topic, { n, text: "x".repeat((n * 37) % 500) }).then((at) => line({ n, position: written(at) })));
    if (awaited.length >= 16) await awaited.shift();
  }
  await Promise.all(awaited);
  line({ position: written(await minium.publish(topic, "last")) });
} else {
  for await (const event of minium.subscribe(topic, { after: "earliest" })) {
    if (event.type === "message") line({ position: written(event.position), data: event.data });
    if (event.data === "last") break;
  }
}
minium.close();
