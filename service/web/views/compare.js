// Results beside each other: metric against cost, and the curve of those that no other beats.

import { Problem } from "../components/problem.js";
import { ParetoChart } from "../components/pareto-chart.js";
import { Chosen } from "../components/chosen.js";
import { ResultsTable } from "../components/results-table.js";
import { count, isGain, metric, words } from "../lib/format.js";
import { useLoaded } from "../lib/loading.js";
import { front } from "../lib/pareto.js";
import { QUANTITIES } from "../lib/quantities.js";
import { loadResults } from "../lib/results.js";
import { changeQuery, link } from "../lib/router.js";
import { describeJob } from "../options/goals.js";
import { html, useMemo, useState } from "../vendor/preact.js";

export const title = "Compare results";

export function CompareView({ query }) {
  const ids = (query.get("jobs") ?? "").split(",").filter(Boolean);
  const loaded = useLoaded((signal) => loadResults(ids, signal), [ids.join(",")]);
  const { value, problem, isLoading } = loaded;
  if (problem) return html`<${Problem} problem=${problem}><button type="button" onClick=${loaded.reload}>Try again</button><//>`;
  if (!value) return html`<p class="muted" role="status">${isLoading ? "Reading the reports…" : ""}</p>`;
  if (value.results.length === 0) return html`<${Nothing} problems=${value.problems} />`;
  return html`<${Comparison} query=${query} ...${value} />`;
}

function Nothing({ problems }) {
  return html`
    ${problems.map((problem) => html`<${Problem} problem=${problem} />`)}
    <div class="card empty">
      <p>No job has a result to compare yet.</p>
      <p><a class="button primary" href=${link("prune")}>Prune a network</a></p>
    </div>
  `;
}

function Comparison({ query, results, problems }) {
  const models = groups(results);
  const model = models.find(({ key }) => key === query.get("model")) ?? models[0];
  const quantity = QUANTITIES.find(({ name }) => name === query.get("cost")) ?? QUANTITIES[0];
  const metricName = model.results[0].metric?.name ?? "metric";
  const { points, curve, original } = useMemo(
    () => plotted(model.results, quantity.name),
    [results, model.key, quantity.name],
  );
  const [chosenId, setChosenId] = useState(null);
  const chosen = points.find(({ id }) => id === chosenId) ?? curve.at(-1) ?? points[0] ?? null;
  const onChoose = (point) => setChosenId(point.id);
  const place = chosen ? curve.findIndex(({ id }) => id === chosen.id) : -1;
  const say = (point) => `${words(metricName)} ${metric(metricName, point.y)}, ${quantity.label} ${quantity.format(point.x)}`;
  const yFormat = (value) => metric(metricName, value);
  const axes = useMemo(
    () => ({ x: { label: quantity.unit, format: quantity.format }, y: { label: words(metricName), format: yFormat } }),
    [quantity.name, metricName],
  );

  return html`
    <div class="compare">
      <div class="bar-of-tools">
        <${Choice} label="Model" value=${model.key} choices=${models.map(({ key, name }) => [key, name])} onChange=${(key) => changeQuery({ model: key })} />
        <${Choice} label="Against" value=${quantity.name} choices=${QUANTITIES.map(({ name, label }) => [name, label])} onChange=${(name) => changeQuery({ cost: name })} />
        ${query.get("jobs") && html`<a href=${link("compare")}>Compare all newest results</a>`}
      </div>
      ${problems.map((problem) => html`<${Problem} problem=${problem} />`)}
      <section class="card" aria-labelledby="chart-title">
        <header class="card-head"><h2 id="chart-title">${`${words(metricName)} against ${quantity.label}`}</h2></header>
        ${points.length === 0
          ? html`<p class="muted">None of these results has both a metric and this cost.</p>`
          : html`
            <${ParetoChart}
              points=${points}
              curve=${curve}
              original=${original}
              chosen=${chosen}
              xAxis=${axes.x}
              yAxis=${axes.y}
              label=${`${count(points.length)} results, ${count(curve.length)} of them on the curve: ${curve.map(say).join("; ")}.`}
              onChoose=${onChoose}
            />
            <label class="along">
              <span>Along the curve</span>
              <input
                type="range"
                min="0"
                max=${curve.length - 1}
                step="1"
                value=${place < 0 ? curve.length - 1 : place}
                aria-valuetext=${place < 0 ? null : say(curve[place])}
                disabled=${curve.length < 2}
                onInput=${(event) => onChoose(curve[event.target.valueAsNumber])}
              />
            </label>
          `}
      </section>
      ${chosen && html`<${Chosen} result=${chosen} />`}
      <section class="card" aria-labelledby="results-title">
        <header class="card-head"><h2 id="results-title">All results</h2></header>
        <${ResultsTable} points=${points} curve=${curve} chosen=${chosen} metricName=${metricName} onChoose=${onChoose} />
      </section>
    </div>
  `;
}

function Choice({ label, value, choices, onChange }) {
  if (choices.length < 2) return null;
  return html`<label>
    ${label}
    <select onChange=${(event) => onChange(event.target.value)}>
      ${choices.map(([key, text]) => html`<option key=${key} value=${key} selected=${key === value}>${text}</option>`)}
    </select>
  </label>`;
}

/** Results of one model that were measured alike, on as many samples of one bundle: only those can be compared. */
function groups(results) {
  const found = new Map();
  for (const result of results) {
    const { job, metric: measured } = result;
    const metricName = measured?.name ?? "no metric";
    const samples = measured?.samples ?? 0;
    const key = [job.model_id.slice(0, 12), (job.bundle_id ?? "").slice(0, 12), metricName, samples].join("-");
    const name = `${job.filename}, ${metricName} on ${count(samples)} samples`;
    if (!found.has(key)) found.set(key, { key, name, results: [] });
    found.get(key).results.push(result);
  }
  return [...found.values()];
}

function plotted(results, costName) {
  const names = namesOf(results.map(({ job }) => job));
  const points = results
    .map((result, index) => ({
      ...result,
      name: result.point === null ? names[index] : `${names[index]}: point ${result.point}`,
      x: result.cost[costName] ?? null,
      y: result.metric?.after ?? null,
    }))
    .filter(({ x, y }) => x !== null && y !== null);
  const [first] = points;
  const original = first && { x: first.before[costName] ?? null, y: first.metric.before };
  return {
    points: points.sort((a, b) => a.x - b.x),
    curve: first ? front(points, isGain(first.metric)) : [],
    original: original && original.x !== null && original.y !== null ? original : null,
  };
}

function inWords(value) {
  return typeof value === "object" && !Array.isArray(value) ? JSON.stringify(value) : [value].flat().join(" ");
}

/** The goal of each job, and those of its options that the others have not. */
function namesOf(jobs) {
  const { target: _, ...options } = jobs[0].options;
  // An option that was not given says nothing.
  const differing = Object.keys(options).filter(
    (name) => name !== "points" && new Set(jobs.map((job) => JSON.stringify(job.options[name]))).size > 1,
  );
  return jobs.map((job) =>
    [
      describeJob(job),
      ...differing
        .filter((name) => job.options[name] != null)
        .map((name) => `${words(name).toLowerCase()} ${inWords(job.options[name])}`),
    ].join(", "),
  );
}
