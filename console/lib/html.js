// @ts-check
// Preact's pieces in one place, so that pages know neither where they lie nor how they are joined.

import htm from "../vendor/htm.js";
import { h } from "../vendor/preact.js";

export { Fragment, render } from "../vendor/preact.js";
export { useEffect, useErrorBoundary, useId, useLayoutEffect, useMemo, useRef, useState } from "../vendor/hooks.js";

/** A tagged template of markup. */
export const html = htm.bind(h);
