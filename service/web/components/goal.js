// The goal: which quantity, and how far.

import { bytes, percent } from "../lib/format.js";
import { GOAL_ORDER, goalOf, isShare } from "../options/goals.js";
import { html, useId } from "../vendor/preact.js";

/**
 * @param {{fields: object[], target: object, model: object | null, problem: string | null,
 *   onChange: (target: object) => void}} props `target` has exactly one member
 */
export function Goal({ fields, target, model, problem, onChange }) {
  const id = useId();
  const [chosen, value] = Object.entries(target)[0];
  const known = [...fields].filter((field) => field.type !== null).sort(byOrder);
  const field = known.find(({ name }) => name === chosen);
  return html`
    <fieldset class="segments">
      <legend class="visually-hidden">What to make smaller</legend>
      ${known.map(
        (each) => html`<label key=${each.name}>
          <input
            type="radio"
            name=${`${id}-kind`}
            checked=${each.name === chosen}
            onChange=${() => onChange({ [each.name]: goalOf(each).start(model) })}
          />
          <span>${goalOf(each).label}</span>
        </label>`,
      )}
    </fieldset>
    ${field &&
    html`<${Amount}
      key=${chosen}
      field=${field}
      value=${value}
      model=${model}
      problem=${problem}
      onChange=${(next) => onChange({ [chosen]: next })}
    />`}
  `;
}

function Amount({ field, value, model, problem, onChange }) {
  const id = useId();
  const share = isShare(field);
  const scale = share ? 100 : 1;
  const range = rangeOf(field, model);
  const shown = value == null ? "" : Number((value * scale).toFixed(4));
  const read = (event) => {
    const number = event.target.valueAsNumber;
    onChange(Number.isNaN(number) ? null : Number((number / scale).toFixed(6)));
  };
  const described = [`${id}-hint`, problem && `${id}-problem`].filter(Boolean).join(" ");
  return html`
    <div class="amount">
      <label for=${`${id}-number`}>${goalOf(field).question}</label>
      <div class="amount-inputs">
        <input
          type="range"
          aria-label=${goalOf(field).question}
          aria-valuetext=${value == null ? null : readable(field, value)}
          min=${range.min}
          max=${range.max}
          step=${range.step}
          value=${shown}
          onInput=${read}
        />
        <span class="amount-number">
          <input
            id=${`${id}-number`}
            type="number"
            min=${share ? 0 : field.min}
            max=${share ? 100 : field.max}
            step="any"
            value=${shown}
            aria-invalid=${problem ? "true" : null}
            aria-describedby=${described}
            onInput=${read}
          />
          <span aria-hidden="true">${share ? "%" : field.name.endsWith("bytes") ? "bytes" : ""}</span>
        </span>
      </div>
      <p class="muted" id=${`${id}-hint`}>
        ${field.description}${field.name.endsWith("bytes") && value ? ` That is ${bytes(value)}.` : ""}
      </p>
      ${problem && html`<p class="field-problem" id=${`${id}-problem`} role="alert">${problem}</p>`}
    </div>
  `;
}

function readable(field, value) {
  if (isShare(field)) return percent(value);
  return field.name.endsWith("bytes") ? bytes(value) : String(value);
}

/** Ends of the slider; the number beside it may lie outside. */
function rangeOf(field, model) {
  if (field.name === "max_metric_drop") return { min: 0, max: 0.2, step: 0.005 };
  if (isShare(field)) return { min: 5, max: 95, step: 1 };
  if (field.name === "filters") return { min: 1, max: Math.max(1, model?.prunable_filters ?? 100), step: 1 };
  if (field.name === "max_size_bytes") {
    const most = model?.bytes ?? 1e8;
    return { min: Math.round(0.05 * most), max: most, step: Math.max(1, Math.round(most / 200)) };
  }
  return { min: field.min ?? 0, max: field.max ?? 100, step: "any" };
}

function byOrder(a, b) {
  const place = ({ name }) => (GOAL_ORDER.indexOf(name) + GOAL_ORDER.length + 1) % (GOAL_ORDER.length + 1);
  return place(a) - place(b);
}
