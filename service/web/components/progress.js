// How far a job is.

import { count, moment, seconds } from "../lib/format.js";
import { html, useEffect, useState } from "../vendor/preact.js";

const PHASES = {
  load: "Reading model and bundle",
  analyse: "Following the channels",
  score: "Scoring filters",
  select: "Choosing filters",
  cut: "Cutting the graph",
  prove: "Proving the result",
  recover: "Giving accuracy back",
  measure: "Measuring",
  write: "Writing the result",
};

export function Progress({ job, isConnected }) {
  const { state, progress } = job;
  const isRunning = state === "running" && progress;
  const share = isRunning && progress.total > 0 ? progress.done / progress.total : null;
  return html`
    <div class="progress">
      <div class="card-head">
        <p class="progress-phase" role="status">
          <strong>${headline(job)}</strong>
          ${isRunning && progress.message && html`<span class="muted">${progress.message}</span>`}
        </p>
        <${Elapsed} since=${job.times.running ?? job.times.queued} />
      </div>
      <progress value=${share ?? undefined} max="1" aria-label="Progress of this phase" />
      <p class="muted">${detail(job)}${isConnected ? "" : " The connection is lost; trying again."}</p>
    </div>
  `;
}

function headline({ state, progress }) {
  if (state === "queued") return "Waiting for a worker";
  if (state === "cancelling") return "Stopping";
  return PHASES[progress?.phase] ?? progress?.phase ?? "Starting";
}

function detail({ state, progress, attempts }) {
  const again = attempts > 1 ? `Attempt ${count(attempts)}. ` : "";
  if (state !== "running" || !progress) return again;
  const done = progress.total > 1 ? `${count(progress.done)} of ${count(progress.total)}` : "";
  const rest = progress.eta_s ? `about ${seconds(progress.eta_s)} left in this phase` : "";
  return again + [done, rest].filter(Boolean).join(", ");
}

function Elapsed({ since }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  const passed = Math.max(0, (now - new Date(since)) / 1000);
  return html`<span class="muted elapsed" title=${`since ${moment(since)}`}>${seconds(passed)}</span>`;
}
