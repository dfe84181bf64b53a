// All other options, made from the service's own schema.

import { words } from "../lib/format.js";
import { html, useId } from "../vendor/preact.js";

const FIRST = ["points", "steps", "recovery", "min_filters", "channel_multiple", "include", "exclude"];

/**
 * @param {{fields: object[], options: object, problems: object, onChange: (options: object) => void}}
 *   props `options`: those that differ from the defaults; `problems`: by name
 */
export function OptionsForm({ fields, options, problems, onChange }) {
  const ordered = [...fields].sort((a, b) => place(a) - place(b));
  const set = (field, value) => {
    const { [field.name]: _, ...others } = options;
    const isDefault = JSON.stringify(value) === JSON.stringify(field.default);
    onChange(isDefault ? others : { ...others, [field.name]: value });
  };
  return html`
    <div class="options">
      ${ordered.map(
        (field) => html`<${Option}
          key=${field.name}
          field=${field}
          value=${field.name in options ? options[field.name] : field.default}
          isChanged=${field.name in options}
          problem=${problemWith(field.name, problems)}
          onChange=${(value) => set(field, value)}
        />`,
      )}
    </div>
  `;
}

function Option({ field, value, isChanged, problem, onChange }) {
  const id = useId();
  const described = [`${id}-hint`, problem && `${id}-problem`].filter(Boolean).join(" ");
  const common = { id, "aria-describedby": described, "aria-invalid": problem ? "true" : null };
  return html`
    <div class=${`option ${isChanged ? "is-changed" : ""}`}>
      <label for=${id}>${words(field.name)}</label>
      <${Input} field=${field} value=${value} common=${common} onChange=${onChange} />
      ${problem && html`<p class="field-problem" id=${`${id}-problem`} role="alert">${problem}</p>`}
      <p class="muted" id=${`${id}-hint`}>${field.description.replaceAll("`", "")}</p>
    </div>
  `;
}

function Input({ field, value, common, onChange }) {
  if (field.choices) {
    return html`<select ...${common} onChange=${(event) => onChange(event.target.value)}>
      ${field.choices.map(
        (choice) => html`<option key=${choice} value=${choice} selected=${choice === value}>${choice}</option>`,
      )}
    </select>`;
  }
  if (field.type === "boolean") {
    return html`<input ...${common} type="checkbox" checked=${value} onChange=${(event) => onChange(event.target.checked)} />`;
  }
  if (field.isList) {
    const read = (text) => text.split(",").map((part) => part.trim()).filter(Boolean);
    return html`<input
      ...${common}
      type="text"
      value=${(value ?? []).join(", ")}
      placeholder="none"
      onChange=${(event) => onChange(read(event.target.value))}
    />`;
  }
  if (field.type === "string") {
    return html`<input
      ...${common}
      type="text"
      value=${value ?? ""}
      placeholder=${field.isOptional ? "not given" : ""}
      onChange=${(event) => onChange(event.target.value || field.default)}
    />`;
  }
  return html`<input
    ...${common}
    type="number"
    step=${field.type === "integer" ? 1 : "any"}
    min=${field.min}
    max=${field.max}
    value=${value ?? ""}
    placeholder=${field.isOptional ? "not given" : ""}
    onChange=${(event) => {
      const number = event.target.valueAsNumber;
      onChange(Number.isNaN(number) ? field.default : number);
    }}
  />`;
}

/** Lists are refused by their entries: "include.0". */
function problemWith(name, problems) {
  const found = Object.entries(problems).find(([field]) => field.split(".")[0] === name);
  return found?.[1] ?? null;
}

function place({ name }) {
  const index = FIRST.indexOf(name);
  return index < 0 ? FIRST.length : index;
}
