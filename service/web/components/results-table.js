// All compared results as a table; a radio button chooses the one that is looked at.

import { metric, words } from "../lib/format.js";
import { QUANTITIES } from "../lib/quantities.js";
import { link } from "../lib/router.js";
import { html, useId } from "../vendor/preact.js";

/** @param {{points: object[], curve: object[], chosen: object | null, metricName: string,
 *   onChoose: (point: object) => void}} props */
export function ResultsTable({ points, curve, chosen, metricName, onChoose }) {
  const group = useId();
  const onCurve = new Set(curve.map(({ id }) => id));
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label="Table of results">
      <table class="list results">
        <thead>
          <tr>
            <th scope="col"><span class="visually-hidden">Look at it</span></th>
            <th scope="col">Result</th>
            <th scope="col" class="number">${words(metricName)}</th>
            ${QUANTITIES.map(({ name, label }) => html`<th key=${name} scope="col" class="number">${label}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${points.map(
            (point) => html`<tr key=${point.id} class=${point.id === chosen?.id ? "is-chosen" : ""}>
              <td>
                <input
                  type="radio"
                  name=${group}
                  checked=${point.id === chosen?.id}
                  aria-label=${`Look at ${point.name}`}
                  onChange=${() => onChoose(point)}
                />
              </td>
              <th scope="row">
                <a href=${link("jobs", { id: point.job.id })}>${point.name}</a>
                ${onCurve.has(point.id) && html`<span class="note">on the curve</span>`}
              </th>
              <td class="number">${metric(metricName, point.y)}</td>
              ${QUANTITIES.map(
                ({ name, format }) => html`<td key=${name} class="number">${format(point.cost[name])}</td>`,
              )}
            </tr>`,
          )}
        </tbody>
      </table>
    </div>
  `;
}
