// Server-sent events over fetch: an EventSource cannot send the API key.

import { ProblemError, request } from "./client.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;

/**
 * What happens to a job, until it is over. A lost connection is made again, and goes on after the
 * last event that came.
 * @param {string} path of the events
 * @param {{signal: AbortSignal, onConnection: (isUp: boolean) => void}} options
 * @yields {{id: string, type: string, data: object}}
 * @throws {ProblemError} the service refuses: the job is gone, or the key is wrong
 */
export async function* jobEvents(path, { signal, onConnection }) {
  let last = "0";
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    try {
      const response = await request(path, {
        signal,
        headers: { Accept: "text/event-stream", "Last-Event-ID": last },
      });
      if (response.status === 204) return;
      onConnection(true);
      for await (const event of readEvents(response.body)) {
        last = event.id;
        wait = FIRST_WAIT_MS;
        yield event;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ProblemError && error.problem.status < 500) throw error;
    }
    onConnection(false);
    await pause(wait, signal);
    wait = Math.min(2 * wait, LONGEST_WAIT_MS);
  }
}

/** Events of one connection. */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value.replaceAll("\r\n", "\n");
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const event = parseEvent(block);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** One event of the stream's text; null for comments and the like. */
export function parseEvent(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const match = /^(id|event|data): ?(.*)$/.exec(line);
    if (match) fields[match[1]] = match[1] in fields ? `${fields[match[1]]}\n${match[2]}` : match[2];
  }
  if (fields.data === undefined) return null;
  return { id: fields.id, type: fields.event ?? "message", data: JSON.parse(fields.data) };
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
