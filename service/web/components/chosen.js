// The result that was chosen on the chart or in the table.

import { reportAt } from "../api/reports.js";
import { useLoaded } from "../lib/loading.js";
import { link } from "../lib/router.js";
import { html } from "../vendor/preact.js";
import { Problem } from "./problem.js";
import { Downloads, Headline } from "./result.js";

export function Chosen({ result }) {
  const { job, name, links } = result;
  const report = useLoaded(() => reportAt(links.report), [links.report]);
  return html`
    <section class="card" aria-labelledby="chosen-title">
      <header class="card-head">
        <h2 id="chosen-title">${job.filename} <span class="goal-note">${name}</span></h2>
      </header>
      ${report.problem && html`<${Problem} problem=${report.problem} />`}
      ${report.value && html`<${Headline} report=${report.value} />`}
      <${Downloads} links=${links} />
      <p><a href=${link("jobs", { id: job.id })}>Open the job</a></p>
    </section>
  `;
}
