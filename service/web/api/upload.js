// Uploads by XMLHttpRequest: fetch does not tell how far a body has come.

import { ProblemError, refusal, UNREACHABLE } from "./client.js";
import { keyHeaders } from "./key.js";

/**
 * Send a file to `/v1/models` or `/v1/bundles`.
 * @param {string} path
 * @param {File} file
 * @param {{onProgress: (share: number) => void, signal: AbortSignal}} options share: 0 to 1; at 1
 *     the service has the bytes and checks them
 * @returns {Promise<object>} what the service knows of the file
 */
export function upload(path, file, { onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open("POST", path);
    for (const [name, value] of Object.entries(keyHeaders())) xhr.setRequestHeader(name, value);
    xhr.upload.addEventListener("progress", (event) => onProgress(event.loaded / event.total));
    xhr.upload.addEventListener("load", () => onProgress(1));
    xhr.addEventListener("load", () => {
      if (xhr.status >= 200 && xhr.status < 300) resolve(JSON.parse(xhr.responseText));
      else reject(refusal(xhr.status, xhr.responseText, xhr.statusText));
    });
    xhr.addEventListener("error", () => reject(new ProblemError(UNREACHABLE)));
    xhr.addEventListener("abort", () => reject(new DOMException("Aborted", "AbortError")));
    signal.addEventListener("abort", () => xhr.abort());
    const form = new FormData();
    form.append("file", file);
    xhr.send(form);
  });
}
