// Before and after, quantity by quantity: a table whose rows have a bar.

import { change } from "../lib/format.js";
import { html } from "../vendor/preact.js";

/**
 * @param {{caption: string, rows: {label: string, before: number | null, after: number | null,
 *   format: (value: number) => string, change?: string, tone?: string, hasBar?: boolean,
 *   note?: string}[]}} props
 */
export function CostChange({ caption, rows }) {
  return html`
    <table class="cost">
      <caption class="visually-hidden">
        ${caption}
      </caption>
      <thead>
        <tr>
          <th scope="col">Quantity</th>
          <th scope="col" class="number">Before</th>
          <th scope="col" class="number">After</th>
          <th scope="col" class="number">Change</th>
        </tr>
      </thead>
      <tbody>
        ${rows.map((row) => html`<${Row} key=${row.label} ...${row} />`)}
      </tbody>
    </table>
  `;
}

function Row({ label, before, after, format, change: given, tone, hasBar = true, note }) {
  const share = hasBar && before ? Math.min(1, after / before) : null;
  return html`
    <tr>
      <th scope="row">
        <span class="cost-label">${label}</span>
        ${note && html`<span class="note">${note}</span>`}
        ${share !== null && html`<${Bar} share=${share} />`}
      </th>
      <td class="number">${format(before)}</td>
      <td class="number strong">${format(after)}</td>
      <td class=${`number change ${tone ?? ""}`}>${given ?? change(before, after)}</td>
    </tr>
  `;
}

/** A bar of this share of its place; the number beside it says the same. */
export function Bar({ share, label }) {
  return html`
    <span class="bar" aria-hidden="true" title=${label}>
      <span class="bar-fill" style=${{ width: `${100 * share}%` }}></span>
    </span>
  `;
}
