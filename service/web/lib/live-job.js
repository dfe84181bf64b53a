// A job as it stands, kept up to date by its events until it is over.

import { getJson } from "../api/client.js";
import { jobEvents } from "../api/events.js";
import { useCallback, useEffect, useState } from "../vendor/preact.js";
import { problemIn } from "./loading.js";
import { isOver } from "./states.js";

/** @returns {{job: object | null, problem: object | null, isConnected: boolean, refresh: () => void}} */
export function useLiveJob(id) {
  const [job, setJob] = useState(null);
  const [problem, setProblem] = useState(null);
  const [isConnected, setConnected] = useState(true);
  const [round, setRound] = useState(0);
  useEffect(() => {
    const controller = new AbortController();
    const { signal } = controller;
    follow(id, { signal, onJob: setJob, onConnection: setConnected }).catch((error) => {
      if (!signal.aborted) setProblem(problemIn(error));
    });
    return () => controller.abort();
  }, [id, round]);
  const refresh = useCallback(() => (setProblem(null), setRound((last) => last + 1)), []);
  return { job, problem, isConnected, refresh };
}

/** When the job entered the state it was read in; the events before that are told again. */
function lastChange({ times }) {
  return Object.values(times).reduce((last, time) => (time > last ? time : last), "");
}

async function follow(id, { signal, onJob, onConnection }) {
  const path = `/v1/jobs/${encodeURIComponent(id)}`;
  let job = await getJson(path, { signal });
  onJob(job);
  if (isOver(job.state)) return;
  for await (const event of jobEvents(job.links.events, { signal, onConnection })) {
    if (event.type === "progress") {
      job = { ...job, progress: event.data };
      onJob(job);
    } else if (event.type === "state" && event.data.at > lastChange(job)) {
      job = await getJson(path, { signal });
      onJob(job);
      if (isOver(job.state)) return;
    }
  }
  onJob(await getJson(path, { signal }));
}
