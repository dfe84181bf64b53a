// Filters of each convolution before and after, in graph order.

import { count } from "../lib/format.js";
import { html } from "../vendor/preact.js";

export function Layers({ convolutions }) {
  const most = Math.max(...convolutions.map((each) => each.filters_before), 1);
  const hasNotes = convolutions.some(noteOf);
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label="Filters of each convolution">
      <table class="list layers">
        <thead>
          <tr>
            <th scope="col">Convolution</th>
            <th scope="col" class="number">Before</th>
            <th scope="col" class="number">After</th>
            ${hasNotes && html`<th scope="col" class="note-cell wide-only">Left alone because</th>`}
          </tr>
        </thead>
        <tbody>
          ${convolutions.map((each) => html`<${Layer} key=${each.name} each=${each} most=${most} hasNotes=${hasNotes} />`)}
        </tbody>
      </table>
    </div>
  `;
}

function Layer({ each, most, hasNotes }) {
  return html`
    <tr>
      <th scope="row">
        <code>${each.name}</code>
        <span class="bar" aria-hidden="true">
          <span class="bar-rest" style=${{ width: `${(100 * each.filters_before) / most}%` }}></span>
          <span class="bar-fill" style=${{ width: `${(100 * each.filters_after) / most}%` }}></span>
        </span>
      </th>
      <td class="number">${count(each.filters_before)}</td>
      <td class="number strong">${count(each.filters_after)}</td>
      ${hasNotes && html`<td class="note-cell wide-only">${noteOf(each)}</td>`}
    </tr>
  `;
}

function noteOf({ frozen, depthwise }) {
  return frozen ?? (depthwise ? "follows its input" : "");
}
