// How the images of a bundle become samples: as bundle.json says, or as a person has agreed.

import { describeSettings } from "../options/images.js";
import { html, useEffect, useId, useState } from "../vendor/preact.js";

const FIRST_SETTINGS = { preset: "imagenet" };

/**
 * @param {{own: object | null, guess: object | null | undefined, agreed: object | null,
 *   problem: string | null, onAgree: (settings: object | null) => void}} props
 * `own`: from bundle.json; `guess`: what the model's input suggests, undefined without a model;
 * `agreed`: the option that takes the place of both; `problem`: what is wrong with that.
 */
export function ImageSettings({ own, guess, agreed, problem, onAgree }) {
  const [isEditing, setEditing] = useState(false);
  const used = agreed ?? own;
  const suggested = guess ?? FIRST_SETTINGS;
  useEffect(() => {
    if (problem) setEditing(true);
  }, [problem]);
  const agree = (settings) => {
    setEditing(false);
    onAgree(settings);
  };
  if (!used && guess === undefined) {
    return html`<p class="muted">
      These images have no bundle.json. Add the model: its input suggests how they have to be read.
    </p>`;
  }
  const isOpen = isEditing || (!used && guess === null);
  return html`
    <div class=${used ? "settings" : "settings is-asking"} role="group" aria-label="How images are read">
      <p class="settings-title">${titleOf(own, guess, agreed)}</p>
      ${!isOpen && html`<${Described} settings=${used ?? suggested} />`}
      ${isOpen &&
      html`<${Editor}
        settings=${used ?? suggested}
        problem=${problem}
        onUse=${agree}
        onCancel=${used || guess ? () => setEditing(false) : null}
      />`}
      ${!isOpen &&
      html`<div class="actions">
        ${!used && html`<button type="button" class="primary" onClick=${() => agree(guess)}>Use these settings</button>`}
        <button type="button" class=${used ? "quiet" : ""} onClick=${() => setEditing(true)}>Change</button>
        ${agreed && html`<button type="button" class="quiet" onClick=${() => agree(null)}>Undo</button>`}
      </div>`}
    </div>
  `;
}

function titleOf(own, guess, agreed) {
  if (agreed) return "Read as you said";
  if (own) return "Read as its bundle.json says";
  if (guess) return "No bundle.json. A guess from the model’s input; is this how it was trained?";
  return "No bundle.json, and the model’s input suggests nothing. How are images read?";
}

function Described({ settings }) {
  return html`<dl class="facts">
    ${describeSettings(settings).map(
      ([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`,
    )}
  </dl>`;
}

function Editor({ settings, problem, onUse, onCancel }) {
  const id = useId();
  const [text, setText] = useState(asLines(brief(settings)));
  const [slip, setSlip] = useState(null);
  const wrong = slip ?? problem;
  const use = () => {
    try {
      const found = JSON.parse(text);
      if (typeof found !== "object" || found === null || Array.isArray(found)) throw new Error("an object is needed");
      onUse(found);
    } catch (error) {
      setSlip(`This is not JSON: ${error.message}`);
    }
  };
  return html`
    <label for=${id}>Settings, as in <code>bundle.json</code></label>
    <textarea
      id=${id}
      rows="8"
      spellcheck="false"
      aria-describedby=${`${id}-hint ${wrong ? `${id}-problem` : ""}`}
      aria-invalid=${wrong ? "true" : null}
      value=${text}
      onInput=${(event) => (setText(event.target.value), setSlip(null))}
    />
    ${wrong && html`<p class="field-problem" id=${`${id}-problem`} role="alert">${wrong}</p>`}
    <p class="muted" id=${`${id}-hint`}>
      Keys: preset (imagenet, cifar, grayscale), resize, crop, interpolation, channels, layout, scale, mean, std, dtype, classes.
    </p>
    <div class="actions">
      <button type="button" class="primary" onClick=${use}>Use these settings</button>
      ${onCancel && html`<button type="button" class="quiet" onClick=${onCancel}>Cancel</button>`}
    </div>
  `;
}

/** JSON with a line for each setting. */
function asLines(settings) {
  const lines = Object.entries(settings).map(([name, value]) => ` ${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  return `{\n${lines.join(",\n")}\n}`;
}

/** Without what says nothing. */
function brief(settings) {
  const says = (value) => value != null && !(Array.isArray(value) && value.length === 0);
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => says(value)));
}
