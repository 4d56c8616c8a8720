// @ts-check
// What the one who looks may probably do, for buttons that are worth showing.

import * as session from "./session.js";
import { useStore } from "./store.js";

/** @param {"jobs:write" | "admin" | "pub" | "push" | "bus"} scope @returns {boolean} */
export function useMay(scope) {
  const held = useStore(session.token);
  const without = useStore(session.refused);
  return session.mayTry(scope, held, without);
}
