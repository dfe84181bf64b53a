// Where a job stands, in a word and a colour.

import { stateName } from "../lib/states.js";
import { html } from "../vendor/preact.js";

const TONES = { running: "active", cancelling: "warn", succeeded: "good", failed: "bad" };

export function State({ state }) {
  return html`<span class=${`state ${TONES[state] ?? ""}`}>${stateName(state)}</span>`;
}
