// Name, views, API key and theme.

import { readKey } from "../api/key.js";
import { link } from "../lib/router.js";
import { applyTheme, readTheme, THEMES } from "../lib/theme.js";
import { html, useState } from "../vendor/preact.js";
import { Icon, Logo } from "./icons.js";

const VIEWS = [
  ["prune", "Prune"],
  ["jobs", "Jobs"],
  ["compare", "Compare"],
];
const ICON_OF_THEME = { system: "system", light: "sun", dark: "moon" };

export function Header({ view, onKey }) {
  return html`
    <header class="top">
      <div class="top-inner">
        <a class="brand" href=${link("prune")}><${Logo} /><span>ONNX filter pruner</span></a>
        <nav aria-label="Views">
          ${VIEWS.map(
            ([name, label]) =>
              html`<a key=${name} href=${link(name)} aria-current=${name === view ? "page" : null}>${label}</a>`,
          )}
        </nav>
        <div class="top-tools">
          <button type="button" class="quiet" onClick=${onKey}>
            <${Icon} name="key" /><span class="wide-only">${readKey() ? "API key is set" : "API key"}</span>
            <span class="visually-hidden narrow-only">API key</span>
          </button>
          <${ThemeButton} />
        </div>
      </div>
    </header>
  `;
}

function ThemeButton() {
  const [theme, setTheme] = useState(readTheme);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  const onClick = () => {
    applyTheme(next);
    setTheme(next);
  };
  return html`
    <button type="button" class="quiet" onClick=${onClick} aria-label=${`Colours: ${theme}. Change to ${next}`} title=${`Colours: ${theme}`}>
      <${Icon} name=${ICON_OF_THEME[theme]} />
    </button>
  `;
}

export function Footer() {
  return html`
    <footer class="foot">
      <a href="/docs">HTTP API</a>
      <a href="/problems">Problem codes</a>
      <a href="/readyz">Readiness</a>
    </footer>
  `;
}
