// What is in a model, and in a bundle.

import { bytes, count, magnitude, percent, plural } from "../lib/format.js";
import { html } from "../vendor/preact.js";
import { Bar } from "./cost-change.js";

const CLASSES_SHOWN = 8;

export function ModelFacts({ stored }) {
  const { model } = stored;
  const share = model.filters ? model.prunable_filters / model.filters : 0;
  return html`
    <p class="file-name"><strong>${stored.filename}</strong> <span class="muted">${bytes(stored.size_bytes)}</span></p>
    <p class="prunable">
      <strong class="figure">${count(model.prunable_filters)}</strong>${" "}
      ${`of ${count(model.filters)} filters can go, in ${plural(model.convolutions, "convolution")}`}
      <${Bar} share=${share} label=${`${percent(share)} of the filters`} />
    </p>
    <dl class="facts">
      <${Fact} name="MACs per sample">${magnitude(model.macs)}<//>
      <${Fact} name="Parameters">${magnitude(model.parameters)}<//>
      <${Fact} name="Inputs">${model.inputs.map(tensor)}<//>
      <${Fact} name="Outputs">${model.outputs.map(tensor)}<//>
      <${Fact} name="Format">
        ${`opset ${model.opset}, ${plural(model.nodes, "node")}${model.producer ? `, from ${model.producer}` : ""}`}
      <//>
    </dl>
  `;
}

export function BundleFacts({ stored }) {
  if (stored.images) return html`<${ImageFacts} stored=${stored} />`;
  return html`
    <p class="file-name"><strong>${stored.filename}</strong> <span class="muted">${bytes(stored.size_bytes)}</span></p>
    <p class="prunable">
      <strong class="figure">${count(samplesIn(stored.arrays))}</strong> samples
    </p>
    <dl class="facts">
      ${stored.arrays.map((array) => html`<${Fact} key=${array.name} name=${array.name}>${tensor({ ...array, name: "" })}<//>`)}
    </dl>
  `;
}

function ImageFacts({ stored }) {
  const { images } = stored;
  return html`
    <p class="file-name"><strong>${stored.filename}</strong> <span class="muted">${bytes(stored.size_bytes)}</span></p>
    <p class="prunable"><strong class="figure">${count(images.count)}</strong> images, ${labelsIn(images)}</p>
  `;
}

function labelsIn({ is_labelled: isLabelled, classes }) {
  if (!isLabelled) return "without labels";
  if (!classes) return "with class ids";
  const named = classes.slice(0, CLASSES_SHOWN).join(", ");
  const more = classes.length > CLASSES_SHOWN ? ", …" : "";
  return `of ${plural(classes.length, "class")}: ${named}${more}`;
}

function Fact({ name, children }) {
  return html`<div>
    <dt>${name}</dt>
    <dd>${children}</dd>
  </div>`;
}

function tensor({ name, dtype, shape }) {
  return html`<span class="tensor">
    ${name && html`<span class="tensor-name">${name}</span>${" "}`}<code>${shape.join(" × ") || "scalar"}</code>${" "}
    <span class="muted">${dtype}</span>
  </span>`;
}

/** Samples are the first axis of every array. */
function samplesIn(arrays) {
  return Math.max(0, ...arrays.map((array) => array.shape[0] ?? 0));
}
