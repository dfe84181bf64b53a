// The page: header, the view that the address names, dialog for the API key.

import { onKey } from "./api/key.js";
import { Footer, Header } from "./components/header.js";
import { KeyDialog } from "./components/key-dialog.js";
import { useRoute } from "./lib/router.js";
import { applyTheme, readTheme } from "./lib/theme.js";
import { html, render, useEffect, useRef, useState } from "./vendor/preact.js";
import * as compare from "./views/compare.js";
import * as job from "./views/job.js";
import * as jobs from "./views/jobs.js";
import * as prune from "./views/prune.js";

function App() {
  const route = useRoute();
  const [keyRound, setKeyRound] = useState(0);
  const [dialog, setDialog] = useState({ isOpen: false, wasRefused: false });
  useEffect(() => onKey("refused", () => setDialog({ isOpen: true, wasRefused: true })), []);
  useEffect(() => onKey("change", () => setKeyRound((last) => last + 1)), []);
  const { name, title, View } = viewOf(route);
  const heading = useRef(null);
  useTitle(title, heading, `${name}/${route.id}`);
  return html`
    <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), heading.current.focus())}>
      Skip to content
    </a>
    <${Header} view=${route.view} onKey=${() => setDialog({ isOpen: true, wasRefused: false })} />
    <main id="main">
      <h1 tabindex="-1" ref=${heading}>${title}</h1>
      <${View} key=${`${name}/${route.id}/${keyRound}`} id=${route.id} query=${route.query} />
    </main>
    <${Footer} />
    <${KeyDialog} ...${dialog} onClose=${() => setDialog({ isOpen: false, wasRefused: false })} />
  `;
}

function viewOf({ view, id }) {
  if (view === "jobs" && id) return { name: "job", title: job.title, View: job.JobView };
  if (view === "jobs") return { name: view, title: jobs.title, View: jobs.JobsView };
  if (view === "compare") return { name: view, title: compare.title, View: compare.CompareView };
  return { name: "prune", title: prune.title, View: prune.PruneView };
}

/** Readers are told of a new view by its heading; the first one they find by themselves. */
function useTitle(title, heading, place) {
  const last = useRef(place);
  useEffect(() => {
    document.title = `${title} · ONNX filter pruner`;
    if (last.current !== place) {
      heading.current.focus();
      scrollTo(0, 0);
    }
    last.current = place;
  }, [place]);
}

applyTheme(readTheme());
render(html`<${App} />`, document.getElementById("app"));
