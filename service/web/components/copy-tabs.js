// Texts to copy, one tab each.

import { html, useState } from "../vendor/preact.js";
import { Icon } from "./icons.js";
import { Tabs } from "./tabs.js";

const COPIED_MS = 2000;

/** @param {{label: string, texts: {name: string, text: string}[]}} props */
export function CopyTabs({ label, texts }) {
  const [chosen, setChosen] = useState(0);
  const [isCopied, setCopied] = useState(false);
  const copy = async () => {
    await copyText(texts[chosen].text);
    setCopied(true);
    setTimeout(() => setCopied(false), COPIED_MS);
  };
  return html`
    <${Tabs}
      label=${label}
      onChoose=${(index) => (setChosen(index), setCopied(false))}
      aside=${html`<button type="button" class="quiet" onClick=${copy}>
        <${Icon} name=${isCopied ? "check" : "copy"} />
        <span aria-live="polite">${isCopied ? "Copied" : "Copy"}</span>
      </button>`}
      tabs=${texts.map(({ name, text }) => ({
        name,
        content: html`<pre class="snippet" tabindex="0" aria-label=${name}><code>${text}</code></pre>`,
      }))}
    />
  `;
}

/** The clipboard is only there on https and localhost; elsewhere a selection does. */
async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
