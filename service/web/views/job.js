// One job: live while it runs, its result when it is done, what went wrong when it failed.

import { getJson, postJson, request } from "../api/client.js";
import { reportAt } from "../api/reports.js";
import { CopyTabs } from "../components/copy-tabs.js";
import { Layers } from "../components/layers.js";
import { Problem } from "../components/problem.js";
import { Progress } from "../components/progress.js";
import { Downloads, Headline, Proof } from "../components/result.js";
import { snippetsOf } from "../components/snippets.js";
import { State } from "../components/state.js";
import { moment, seconds, words } from "../lib/format.js";
import { useLiveJob } from "../lib/live-job.js";
import { problemIn, useLoaded } from "../lib/loading.js";
import { goTo, link } from "../lib/router.js";
import { isOver } from "../lib/states.js";
import { describeJob } from "../options/goals.js";
import { notDefault, readSchema } from "../options/schema.js";
import { html, useState } from "../vendor/preact.js";

export const title = "Job";

export function JobView({ id }) {
  const { job, problem, isConnected, refresh } = useLiveJob(id);
  const schema = useLoaded(async (signal) => readSchema(await getJson("/v1/options/schema", { signal })), []);
  const report = useLoaded(() => reportAt(job.links.report), [job?.links.report]);
  const bundle = useLoaded(
    (signal) => getJson(`/v1/bundles/${job.bundle_id}`, { signal }),
    [job?.bundle_id],
  );
  if (!job) {
    return problem
      ? html`<${Problem} problem=${problem}><button type="button" onClick=${refresh}>Try again</button><//>`
      : html`<p class="muted" role="status">Loading…</p>`;
  }
  const options = schema.value && notDefault(job.options, schema.value);
  return html`
    <div class="job">
      <section class="card" aria-labelledby="state-title">
        <header class="card-head">
          <h2 id="state-title">${job.filename} <span class="goal-note">${describeJob(job)}</span></h2>
          <${State} state=${job.state} />
        </header>
        ${!isOver(job.state) && html`<${Progress} job=${job} isConnected=${isConnected} />`}
        ${problem && html`<${Problem} problem=${problem} />`}
        ${job.problem && html`<${Problem} problem=${job.problem} isQuiet=${job.state === "cancelled"} />`}
        ${report.problem && html`<${Problem} problem=${report.problem} />`}
        ${report.value && html`<${Headline} report=${report.value} /><${Proof} report=${report.value} />`}
        ${job.state === "succeeded" && html`<${Downloads} links=${job.links} />`}
        <${Actions} job=${job} options=${options} onChange=${refresh} />
      </section>
      ${report.value && html`
        <section class="card" aria-labelledby="layers-title">
          <header class="card-head"><h2 id="layers-title">Filters per convolution</h2></header>
          <${Layers} convolutions=${report.value.convolutions} />
        </section>
      `}
      ${options && isRun(job) && html`
        <section class="card" aria-labelledby="again-title">
          <header class="card-head"><h2 id="again-title">The same without this page</h2></header>
          <${CopyTabs}
            label="Language"
            texts=${snippetsOf(job.filename, bundle.value?.filename ?? "calibration.npz", options)}
          />
        </section>
      `}
      <section class="card" aria-labelledby="facts-title">
        <header class="card-head"><h2 id="facts-title">Facts</h2></header>
        <${Facts} job=${job} report=${report.value} options=${options} />
      </section>
    </div>
  `;
}

function Actions({ job, options, onChange }) {
  const [state, setState] = useState({ isUnderWay: false, problem: null });
  const act = (work) => async () => {
    setState({ isUnderWay: true, problem: null });
    try {
      await work();
      setState({ isUnderWay: false, problem: null });
    } catch (error) {
      setState({ isUnderWay: false, problem: problemIn(error) });
    }
  };
  const path = `/v1/jobs/${encodeURIComponent(job.id)}`;
  const cancel = act(async () => (await postJson(`${path}/cancel`), onChange()));
  const retry = act(async () => (await postJson(`${path}/retry`), onChange()));
  const remove = act(async () => {
    await request(path, { method: "DELETE" });
    goTo(link("jobs"));
  });
  const again = { model: job.model_id, bundle: job.bundle_id, options: JSON.stringify(options ?? {}) };
  return html`
    <div class="actions">
      ${!isOver(job.state) &&
      html`<button type="button" onClick=${cancel} disabled=${state.isUnderWay || job.state === "cancelling"}>Cancel</button>`}
      ${["failed", "cancelled"].includes(job.state) &&
      html`<button type="button" onClick=${retry} disabled=${state.isUnderWay}>Go on with it</button>`}
      ${isOver(job.state) &&
      html`
        ${isRun(job) && html`<a class="button" href=${link("prune", { query: again })}>Change the goal</a>`}
        ${job.links.report && html`<a class="button" href=${link("compare", { query: { jobs: job.id } })}>${job.options.points ? "Choose along the curve" : "Compare"}</a>`}
        <${Delete} onDelete=${remove} isUnderWay=${state.isUnderWay} />
      `}
    </div>
    ${state.problem && html`<${Problem} problem=${state.problem} />`}
  `;
}

/** Deleting takes a second click, in the same place. */
function Delete({ onDelete, isUnderWay }) {
  const [isAsked, setAsked] = useState(false);
  if (!isAsked) {
    return html`<button type="button" class="quiet" onClick=${() => setAsked(true)}>Delete</button>`;
  }
  return html`<button type="button" class="danger" onClick=${onDelete} onBlur=${() => setAsked(false)} disabled=${isUnderWay}>
    Delete the job and its results
  </button>`;
}

/** Whether the job is a pruning run, which can be sent again with another goal. */
function isRun(job) {
  return (job.kind ?? "prune") === "prune" && job.bundle_id;
}

function Facts({ job, report, options }) {
  const { target: _, ...others } = options ?? {};
  const ended = job.times.succeeded ?? job.times.failed ?? job.times.cancelled;
  const rows = [
    ["Id", html`<code>${job.id}</code>`],
    ["Sent", moment(job.times.queued)],
    ended && job.times.running && ["Took", seconds((new Date(ended) - new Date(job.times.running)) / 1000)],
    job.expires_at && ["Results kept until", moment(job.expires_at)],
    Object.keys(others).length > 0 && ["Options", Object.entries(others).map(([name, value]) => `${name}: ${JSON.stringify(value)}`).join(", ")],
    ...Object.entries(job.metadata).map(([name, value]) => [name, value]),
    report?.engine && ["Engine", `${words(report.engine.name)} on ${report.engine.device}`],
    report?.loss && ["Loss", `${report.loss.name}: ${report.loss.why}`],
    ["Model", html`<code class="digest">${job.model_id}</code>`],
    job.bundle_id && ["Bundle", html`<code class="digest">${job.bundle_id}</code>`],
  ];
  return html`<dl class="facts">
    ${rows.filter(Boolean).map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}
