// The WebSocket that Node has (22 by itself, 20 with --experimental-websocket), else that of the package `ws`.
import { createRequire } from "node:module";

const installed = () => createRequire(`${process.env.MINIUM_TEST_NODE_MODULES}/x.js`)("ws");

export const WebSocket = globalThis.WebSocket ?? installed();
