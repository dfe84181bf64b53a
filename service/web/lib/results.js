// Results to compare: the jobs that the address names, or the newest that succeeded.

import { getJson } from "../api/client.js";
import { reportOf } from "../api/reports.js";
import { problemIn } from "./loading.js";

const MOST = 100;

/**
 * @param {string[]} ids of jobs; none for the newest
 * @returns {Promise<{results: {job: object, report: object}[], problems: object[]}>}
 */
export async function loadResults(ids, signal) {
  const jobs = ids.length > 0 ? await named(ids, signal) : await newest(signal);
  const found = await Promise.all(jobs.map(withReport));
  return {
    results: found.filter(({ report }) => report),
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

async function withReport(job) {
  try {
    if (job.refused) throw job.refused;
    if (!job.links.report) return {}; // it is not over, or left nothing
    return { job, report: await reportOf(job) };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { problem: problemIn(error) };
  }
}
