// A problem document, shown where it belongs.

import { getJson } from "../api/client.js";
import { words } from "../lib/format.js";
import { useLoaded } from "../lib/loading.js";
import { factsOf } from "../lib/problems.js";
import { html } from "../vendor/preact.js";

/** Only what happens now is announced; `isQuiet` for what was there when the page was opened. */
export function Problem({ problem, isQuiet = false, children }) {
  const facts = factsOf(problem);
  return html`
    <div class="problem" role=${isQuiet ? null : "alert"} data-code=${problem.code}>
      <p class="problem-title">${problem.title}</p>
      <p>${problem.detail}</p>
      <${Advice} problem=${problem} />
      ${facts.length > 0 &&
      html`<details>
        <summary>Details</summary>
        <dl class="facts">
          ${facts.map(
            ([name, value]) => html`<div key=${name}><dt>${words(name)}</dt><dd>${value}</dd></div>`,
          )}
        </dl>
      </details>`}
      ${children && html`<div class="actions">${children}</div>`}
    </div>
  `;
}

/** What the service advises for such problems, where the detail does not say it already. */
function Advice({ problem }) {
  const path = problem.type?.startsWith("/problems/") ? problem.type : null;
  const { value } = useLoaded((signal) => getJson(path, { signal }).catch(() => null), [path]);
  const advice = value?.advice;
  if (!advice || problem.detail?.includes(advice)) return null;
  return html`<p class="muted">${advice.replaceAll("`", "")}</p>`;
}
