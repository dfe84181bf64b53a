// Results to compare: those of the jobs that the address names, or of the newest that succeeded. A
// job has one, or with the option `points` a whole curve of them.

import { getJson } from "../api/client.js";
import { reportAt } from "../api/reports.js";
import { problemIn } from "./loading.js";

const MOST = 100;

/**
 * @typedef {{id: string, job: object, point: number | null, cost: object, before: object,
 *   metric: {name: string, before: number, after: number} | null,
 *   links: {model: string, report: string}}} Result
 * `cost` and `before`: by name of a quantity, of the result and of the original.
 */

/**
 * @param {string[]} ids of jobs; none for the newest
 * @returns {Promise<{results: Result[], problems: object[]}>}
 */
export async function loadResults(ids, signal) {
  const jobs = ids.length > 0 ? await named(ids, signal) : await newest(signal);
  const found = await Promise.all(jobs.map(resultsOf));
  return {
    results: found.flatMap(({ results }) => results ?? []),
    problems: found.flatMap(({ problem }) => problem ?? []),
  };
}

async function newest(signal) {
  const page = await getJson(`/v1/jobs?state=succeeded&limit=${MOST}`, { signal });
  return page.items;
}

function named(ids, signal) {
  const one = (id) =>
    getJson(`/v1/jobs/${encodeURIComponent(id)}`, { signal }).catch((error) => ({ refused: error }));
  return Promise.all(ids.slice(0, MOST).map(one));
}

async function resultsOf(job) {
  try {
    if (job.refused) throw job.refused;
    if (!job.links.report) return {}; // it is not over, or is of a kind that has none
    const report = await reportAt(job.links.report);
    return { results: report.curve?.length ? curveOf(job, report) : [single(job, report)] };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { problem: problemIn(error) };
  }
}

/** The result of a job. */
export function single(job, report) {
  return {
    id: job.id,
    job,
    point: null,
    cost: { ...report.cost.after, filters: report.filters.after },
    before: { ...report.cost.before, filters: report.filters.before },
    metric: report.metric,
    links: { model: job.links.model, report: job.links.report },
  };
}

function curveOf(job, report) {
  return report.curve.map((entry) => ({
    ...single(job, report),
    id: `${job.id}/${entry.point}`,
    point: entry.point,
    cost: entry,
    metric: report.metric && { ...report.metric, after: entry.metric },
    links: {
      model: `${job.links.self}/points/${entry.point}`,
      report: `${job.links.self}/points/${entry.point}/report`,
    },
  }));
}
