// Where a job stands, in a word and a colour.

import { html } from "../vendor/preact.js";

const STATES = {
  queued: ["Waiting", "calm"],
  running: ["Running", "active"],
  cancelling: ["Stopping", "warn"],
  cancelled: ["Cancelled", "calm"],
  succeeded: ["Done", "good"],
  failed: ["Failed", "bad"],
  expired: ["Expired", "calm"],
};

export const JOB_STATES = Object.keys(STATES);
const OVER = new Set(["succeeded", "failed", "cancelled", "expired"]);

export const isOver = (state) => OVER.has(state);

export const stateName = (state) => STATES[state]?.[0] ?? state;

export function State({ state }) {
  return html`<span class=${`state ${STATES[state]?.[1] ?? "calm"}`}>${stateName(state)}</span>`;
}
