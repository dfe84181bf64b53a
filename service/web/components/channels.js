// What can be pruned: the blocks of channel classes with what each saves, and for every convolution
// that must stay, why.

import { count, magnitude, plural } from "../lib/format.js";
import { html, useMemo, useState } from "../vendor/preact.js";
import { Bar } from "./cost-change.js";
import { Tabs } from "./tabs.js";

const FIND_FROM = 12;

/** @param {{channels: {blocks: object[], frozen: object[]}}} props of `/v1/models/{id}/channels` */
export function Channels({ channels }) {
  const [wanted, setWanted] = useState("");
  const { blocks, frozen } = channels;
  const matches = useMemo(() => matcher(wanted), [wanted]);
  const shownBlocks = blocks.filter((block) => namesOf(block).some(matches));
  const shownFrozen = frozen.filter((entry) => matches(entry.convolution));
  return html`
    ${blocks.length + frozen.length > FIND_FROM &&
    html`<label class="find">
      <span class="visually-hidden">Find a convolution</span>
      <input
        type="search"
        placeholder="Find a convolution by name"
        value=${wanted}
        onInput=${(event) => setWanted(event.target.value)}
      />
    </label>`}
    <${Tabs}
      label="Convolutions"
      tabs=${[
        {
          name: `Can go (${count(shownBlocks.length)})`,
          content: html`<${Blocks} blocks=${shownBlocks} />`,
        },
        {
          name: `Must stay (${count(shownFrozen.length)})`,
          content: html`<${Frozen} entries=${shownFrozen} />`,
        },
      ]}
    />
  `;
}

function Blocks({ blocks }) {
  if (blocks.length === 0) return html`<p class="muted">None.</p>`;
  const most = Math.max(...blocks.map((block) => block.saves_per_class.macs ?? 0), 1);
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label="Convolutions that can lose filters">
      <table class="list">
        <thead>
          <tr>
            <th scope="col">Convolutions that lose filters together</th>
            <th scope="col" class="number">Choices</th>
            <th scope="col" class="number">Each saves</th>
          </tr>
        </thead>
        <tbody>
          ${blocks.map(
            (block) => html`<tr key=${block.convolutions[0].name}>
              <th scope="row">
                <${Names} block=${block} />
                <${Bar} share=${(block.saves_per_class.macs ?? 0) / most} />
              </th>
              <td class="number">${count(block.classes)}</td>
              <td class="number">
                ${magnitude(block.saves_per_class.macs)} MACs
                <span class="note">${plural(block.saves_per_class.parameters, "weight")}</span>
              </td>
            </tr>`,
          )}
        </tbody>
      </table>
    </div>
  `;
}

function Names({ block }) {
  const { convolutions, followers } = block;
  const names = convolutions.map(({ name, filters_per_class: filters }) =>
    filters === 1 ? name : `${name} (${filters} at a time)`,
  );
  const shown = names.slice(0, 3);
  return html`
    <span class="names">
      ${shown.map((name, index) => html`${index > 0 && html`<span class="muted"> + </span>`}<code>${name}</code>`)}
    </span>
    ${names.length > shown.length &&
    html`<details class="note">
      <summary>and ${count(names.length - shown.length)} more</summary>
      ${names.slice(3).join(", ")}
    </details>`}
    ${followers.length > 0 && html`<span class="note">${followers.join(", ")} follows</span>`}
    ${block.balanced && html`<span class="note">in sets that keep its groups equally wide</span>`}
  `;
}

function Frozen({ entries }) {
  if (entries.length === 0) return html`<p class="muted">None: every convolution can lose filters.</p>`;
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label="Convolutions that must stay">
      <table class="list">
        <thead>
          <tr>
            <th scope="col">Convolution</th>
            <th scope="col" class="number">Filters</th>
            <th scope="col">Why</th>
          </tr>
        </thead>
        <tbody>
          ${entries.map(
            (entry) => html`<tr key=${entry.convolution}>
              <th scope="row"><code>${entry.convolution}</code></th>
              <td class="number">
                ${entry.filters === entry.of ? count(entry.of) : `${count(entry.filters)} of ${count(entry.of)}`}
              </td>
              <td>${entry.reasons.join("; ")}</td>
            </tr>`,
          )}
        </tbody>
      </table>
    </div>
  `;
}

function namesOf(block) {
  return [...block.convolutions.map(({ name }) => name), ...block.followers];
}

function matcher(wanted) {
  const text = wanted.trim().toLowerCase();
  return (name) => name.toLowerCase().includes(text);
}
