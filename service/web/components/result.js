// What a job came to: the headline table, the proof, the downloads.

import { save } from "../api/download.js";
import { readKey } from "../api/key.js";
import { bytes, count, isGain, magnitude, metric, metricChange, milliseconds, words } from "../lib/format.js";
import { problemIn } from "../lib/loading.js";
import { html, useState } from "../vendor/preact.js";
import { CostChange } from "./cost-change.js";
import { Icon } from "./icons.js";
import { Problem } from "./problem.js";

export function Headline({ report }) {
  const { before, after } = report.cost;
  return html`
    <${CostChange}
      caption="Before and after"
      rows=${[
        ...metricRows(report.metric),
        { label: "MACs", before: before.macs, after: after.macs, format: magnitude },
        { label: "Parameters", before: before.parameters, after: after.parameters, format: magnitude },
        { label: "File size", before: before.bytes, after: after.bytes, format: bytes },
        { label: "Latency", before: before.latency_ms, after: after.latency_ms, format: milliseconds },
        { label: "Filters", before: report.filters.before, after: report.filters.after, format: count },
      ]}
    />
  `;
}

function metricRows(found) {
  if (found?.after == null) return [];
  const { name, before, after, samples } = found;
  const isWorse = isGain(found) ? after < before : after > before;
  return [
    {
      label: words(name),
      note: `on ${count(samples)} samples that were held out`,
      before,
      after,
      format: (value) => metric(name, value),
      change: metricChange(name, before, after),
      tone: after === before ? "" : isWorse ? "worse" : "better",
      hasBar: false,
    },
  ];
}

export function Proof({ report }) {
  const { proof, recovery } = report;
  if (!proof) return null;
  return html`
    <p class="proof">
      <${Icon} name="check" />
      <span>
        ${`Proven on ${count(proof.samples)} samples: the cut network equals the original with the same filters masked, to a relative difference of ${proof.max_rel_diff.toExponential(1)}.`}
        ${recovery && recovery.method !== "none" && " What is left was refitted after that."}
      </span>
    </p>
  `;
}

const RESULTS = [
  ["model", "Download the model"],
  ["report_html", "Open the report"],
  ["report", "Report (JSON)"],
  ["scores", "Scores"],
];

/** @param {{links: object}} props `links`: paths by name, as jobs have them */
export function Downloads({ links }) {
  const [problem, setProblem] = useState(null);
  const onClick = async (event) => {
    if (!readKey()) return; // the link does it
    event.preventDefault();
    setProblem(null);
    try {
      await save(event.currentTarget.getAttribute("href"));
    } catch (error) {
      setProblem(problemIn(error));
    }
  };
  return html`
    <div class="actions downloads">
      ${RESULTS.filter(([name]) => links[name]).map(
        ([name, label]) => html`
          <a
            key=${name}
            class=${name === "model" ? "button primary" : "button"}
            href=${links[name]}
            download=${name === "report_html" ? null : ""}
            onClick=${onClick}
          >
            ${name === "model" && html`<${Icon} name="download" />`}${label}
          </a>
        `,
      )}
    </div>
    ${problem && html`<${Problem} problem=${problem} />`}
  `;
}
