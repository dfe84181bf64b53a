// What the job would come to, found without doing it.

import { count, magnitude, plural } from "../lib/format.js";
import { html } from "../vendor/preact.js";
import { CostChange } from "./cost-change.js";

const LACKING = {
  bundle: "Add a bundle to see what this goal would come to.",
  settings: "Say how the images are read to see what this goal would come to.",
};

/** `lacks`: what is missing while it is not ready. */
export function Forecast({ forecast, isReady, lacks }) {
  const { value, problem, isLoading } = forecast;
  if (!isReady) {
    return html`<p class="muted">${LACKING[lacks]}</p>`;
  }
  if (!value) {
    if (problem) return html`<p class="muted">There is no preview: see what is wrong first.</p>`;
    return html`<p class="muted" role="status">${isLoading ? "Working it out…" : ""}</p>`;
  }
  const { before, after } = value;
  if (!after) {
    return html`
      <p>${`${plural(value.samples, "sample")} are scored, and ${count(value.held_out)} held out to decide by.`}</p>
      <p class="muted">How small the model gets is found by trying; only the job can tell.</p>
    `;
  }
  return html`
    <div class=${isLoading ? "is-stale" : ""}>
      <${CostChange}
        caption="What the job would come to"
        rows=${[
          { label: "MACs", before: before.macs, after: after.macs, format: magnitude },
          { label: "Parameters", before: before.parameters, after: after.parameters, format: magnitude },
          { label: "Filters", before: before.filters, after: after.filters, format: count },
        ]}
      />
      <p class="muted">
        ${`${plural(value.rounds, "round")}, ${plural(value.samples, "sample")} scored in each, ${count(value.held_out)} held out to measure the result.`}
        ${" "}What the goal is given in will be close, the rest is an estimate: here filters are ranked by the size of their weights.
      </p>
      ${!value.is_reachable && html`<p class="field-problem">The goal is out of reach; this is the nearest.</p>`}
    </div>
  `;
}
