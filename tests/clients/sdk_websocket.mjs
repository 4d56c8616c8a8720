// For `node --import`: gives those Nodes a WebSocket that have none (22 has one), by the package `ws`.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const installed = () => createRequire(pathToFileURL(`${process.env.MINIUM_TEST_NODE_MODULES}/x.js`))("ws");

globalThis.WebSocket ??= installed();
