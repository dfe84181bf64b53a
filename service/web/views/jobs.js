// All jobs, newest first, a page at a time.

import { getJson } from "../api/client.js";
import { Problem } from "../components/problem.js";
import { State } from "../components/state.js";
import { count, moment, percent } from "../lib/format.js";
import { problemIn } from "../lib/loading.js";
import { link, replaceAddress } from "../lib/router.js";
import { isOver, JOB_STATES, stateName } from "../lib/states.js";
import { describeJob } from "../options/goals.js";
import { html, useEffect, useState } from "../vendor/preact.js";

const PAGE = 50;
const REFRESH_MS = 3000;
const CALM_REFRESH_MS = 15_000;

export const title = "Jobs";

export function JobsView({ query }) {
  const state = query.get("state") ?? "";
  const { jobs, cursor, problem, isLoading, more, reload } = useJobs(state);
  const [chosen, setChosen] = useState(() => new Set());
  const toggle = (id) => {
    const next = new Set(chosen);
    if (!next.delete(id)) next.add(id);
    setChosen(next);
  };
  const setState = (value) => replaceAddress(link("jobs", { query: value ? { state: value } : {} }));
  return html`
    <div class="jobs">
      <div class="bar-of-tools">
        <label>
          Show
          <select onChange=${(event) => setState(event.target.value)}>
            <option value="" selected=${state === ""}>all jobs</option>
            ${JOB_STATES.map(
              (name) => html`<option key=${name} value=${name} selected=${name === state}>${stateName(name).toLowerCase()}</option>`,
            )}
          </select>
        </label>
        <span class="muted" role="status">${jobs && `${count(jobs.length)}${cursor ? " newest" : ""} shown`}</span>
        ${chosen.size > 0 &&
        html`<a class="button primary" href=${link("compare", { query: { jobs: [...chosen].join(",") } })}>
          ${`Compare ${count(chosen.size)}`}
        </a>`}
      </div>
      ${problem && html`<${Problem} problem=${problem}><button type="button" onClick=${reload}>Try again</button><//>`}
      ${jobs?.length === 0 &&
      html`<div class="card empty">
        <p>${state ? "No job is in this state." : "There are no jobs yet."}</p>
        <p><a class="button primary" href=${link("prune")}>Prune a network</a></p>
      </div>`}
      ${jobs?.length > 0 && html`<${Table} jobs=${jobs} chosen=${chosen} onToggle=${toggle} />`}
      ${cursor &&
      html`<p class="more-jobs">
        <button type="button" onClick=${more} disabled=${isLoading}>${isLoading ? "Loading…" : "Show older ones"}</button>
      </p>`}
    </div>
  `;
}

function Table({ jobs, chosen, onToggle }) {
  return html`
    <table class="card list job-list">
      <thead>
        <tr>
          <th scope="col"><span class="visually-hidden">Compare</span></th>
          <th scope="col">Model</th>
          <th scope="col" class="wide-only">Goal</th>
          <th scope="col">State</th>
          <th scope="col" class="number">Sent</th>
        </tr>
      </thead>
      <tbody>
        ${jobs.map(
          (job) => html`<tr key=${job.id}>
            <td>
              ${job.links.report &&
              html`<input
                type="checkbox"
                checked=${chosen.has(job.id)}
                aria-label=${`Compare ${job.filename}, ${describeJob(job)}, ${moment(job.times.queued)}`}
                onChange=${() => onToggle(job.id)}
              />`}
            </td>
            <th scope="row">
              <a href=${link("jobs", { id: job.id })}>${job.filename}</a>
              <span class="narrow-only">${describeJob(job)}</span>
            </th>
            <td class="wide-only">${describeJob(job)}</td>
            <td><${State} state=${job.state} />${" "}<span class="muted">${shareOf(job)}</span></td>
            <td class="number">${moment(job.times.queued)}</td>
          </tr>`,
        )}
      </tbody>
    </table>
  `;
}

function shareOf({ state, progress, problem }) {
  if (state === "failed") return problem?.title ?? "";
  if (state !== "running" || !progress?.total) return "";
  return `${progress.phase} ${percent(progress.done / progress.total)}`;
}

/** Pages that were asked for so far; the first is asked for again while a job on it goes on. */
function useJobs(state) {
  const [found, setFound] = useState({ jobs: null, cursor: null });
  const [problem, setProblem] = useState(null);
  const [isLoading, setLoading] = useState(false);
  const [round, setRound] = useState(0);

  const ask = async (cursor, signal) => {
    const query = new URLSearchParams({ limit: PAGE, ...(state && { state }), ...(cursor && { cursor }) });
    return getJson(`/v1/jobs?${query}`, { signal });
  };

  useEffect(() => {
    const controller = new AbortController();
    const { signal } = controller;
    let timer;
    const refresh = async () => {
      let pause = CALM_REFRESH_MS;
      try {
        const page = await ask(null, signal);
        setProblem(null);
        setFound((last) => joined(page, last));
        if (page.items.some((job) => !isOver(job.state))) pause = REFRESH_MS;
      } catch (error) {
        if (!signal.aborted) setProblem(problemIn(error));
      }
      if (!signal.aborted) timer = setTimeout(refresh, pause);
    };
    setFound({ jobs: null, cursor: null });
    refresh();
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [state, round]);

  const more = async () => {
    setLoading(true);
    try {
      const page = await ask(found.cursor);
      setFound((last) => ({ jobs: [...last.jobs, ...page.items], cursor: page.next_cursor }));
    } catch (error) {
      setProblem(problemIn(error));
    } finally {
      setLoading(false);
    }
  };
  return { ...found, problem, isLoading, more, reload: () => setRound((last) => last + 1) };
}

/** A fresh first page, and after its last job the older ones that were loaded before. */
function joined(page, { jobs, cursor }) {
  const last = page.items.at(-1);
  const place = jobs && last ? jobs.findIndex(({ id }) => id === last.id) : -1;
  if (place < 0 || place === jobs.length - 1) return { jobs: page.items, cursor: page.next_cursor };
  return { jobs: [...page.items, ...jobs.slice(place + 1)], cursor };
}
