// Requests to the service. Every failure, that of the network too, is a ProblemError that holds a
// problem document (RFC 9457).

import { announceRefusal, keyHeaders } from "./key.js";

export class ProblemError extends Error {
  constructor(problem) {
    super(problem.detail ?? problem.title);
    this.problem = problem;
  }
}

/**
 * Send a request; `json` becomes its body.
 * @returns {Promise<Response>} a response whose status says success
 * @throws {ProblemError} any other outcome but an abort
 */
export async function request(path, { method = "GET", json, headers, signal } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method,
      signal,
      headers: {
        ...keyHeaders(),
        ...(json === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      body: json === undefined ? undefined : JSON.stringify(json),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ProblemError(UNREACHABLE);
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** The JSON that a GET answers with. */
export async function getJson(path, options) {
  return (await request(path, options)).json();
}

/** The JSON that a POST answers with; null where it has no body. */
export async function postJson(path, json, options) {
  const response = await request(path, { ...options, method: "POST", json });
  return response.status === 204 ? null : response.json();
}

/** The error that a response with another status than success is. */
async function problemOf(response) {
  return refusal(response.status, await response.text(), response.statusText);
}

/** The error in a body that came with such a status. */
export function refusal(status, body, statusText = "") {
  if (status === 401) announceRefusal();
  try {
    const problem = JSON.parse(body);
    if (problem.code) return new ProblemError(problem);
  } catch {
    // Something between this page and the service answered.
  }
  return new ProblemError({
    code: "http_error",
    status,
    title: `HTTP ${status} ${statusText}`.trim(),
    detail: "Something between this page and the service answered in its place. Try again later.",
  });
}

export const UNREACHABLE = {
  code: "unreachable",
  title: "The service does not answer",
  detail: "It may be stopped, or the network is gone. Nothing that it had accepted is lost.",
};
