// A place for one file: drop it or choose it, watch it go, see what it is.

import { upload } from "../api/upload.js";
import { percent } from "../lib/format.js";
import { problemIn } from "../lib/loading.js";
import { html, useEffect, useId, useRef, useState } from "../vendor/preact.js";
import { Icon } from "./icons.js";
import { Problem } from "./problem.js";

/**
 * @param {{icon: string, title: string, hint: string, path: string, stored: object | null,
 *   problem: object | null, offered: File | null, onFiles: (files: File[]) => void,
 *   onStored: (id: string) => void, onRemove: () => void}} props
 * `stored`: what the service knows of the file; `problem`: what is wrong with it, found later;
 * `offered`: a file that was dropped somewhere and belongs here; `onFiles`: files dropped here.
 */
export function FileCard(props) {
  const { icon, title, hint, stored, problem, onFiles, onRemove, children } = props;
  const { underWay, refused, cancel } = useUpload(props);
  const [isOver, setOver] = useState(false);
  const input = useRef(null);
  const titleId = useId();
  const choose = () => input.current.click();
  const onDrop = (event) => {
    event.preventDefault();
    setOver(false);
    if (event.dataTransfer.files.length > 0) onFiles([...event.dataTransfer.files]);
  };
  const wrong = refused ?? problem;
  return html`
    <section
      class=${`card file-card ${isOver ? "is-over" : ""} ${stored || underWay ? "is-filled" : ""}`}
      aria-labelledby=${titleId}
      onDragOver=${(event) => (event.preventDefault(), setOver(true))}
      onDragLeave=${(event) => !event.currentTarget.contains(event.relatedTarget) && setOver(false)}
      onDrop=${onDrop}
    >
      <header class="card-head">
        <h2 id=${titleId}><${Icon} name=${icon} />${title}</h2>
        ${stored &&
        !underWay &&
        html`<div class="actions">
          <button type="button" class="quiet" onClick=${choose}>Replace</button>
          <button type="button" class="quiet" onClick=${onRemove} aria-label=${`Remove the ${title.toLowerCase()}`}>
            Remove
          </button>
        </div>`}
      </header>
      <input
        ref=${input}
        type="file"
        multiple
        class="visually-hidden"
        tabindex="-1"
        aria-label=${`${title} file`}
        onChange=${(event) => {
          const files = [...event.target.files];
          event.target.value = "";
          if (files.length > 0) onFiles(files);
        }}
      />
      ${underWay && html`<${UnderWay} ...${underWay} onCancel=${cancel} />`}
      ${!underWay &&
      !stored &&
      html`<button type="button" class="drop" onClick=${choose}>
        <span class="drop-main">Drop a file here, or <u>choose one</u></span>
        <span class="muted">${hint}</span>
      </button>`}
      ${wrong && !underWay && html`<${Problem} problem=${wrong} />`}
      ${stored && !underWay && children}
    </section>
  `;
}

function UnderWay({ name, share, onCancel }) {
  const isSent = share >= 1;
  return html`
    <div class="upload">
      <p><strong class="file-name">${name}</strong></p>
      <progress value=${isSent ? undefined : share} max="1" aria-label=${`Upload of ${name}`} />
      <div class="card-head">
        <p class="muted" role="status">${isSent ? "Checking…" : `Uploading: ${percent(share)}`}</p>
        <button type="button" class="quiet" onClick=${onCancel}>Cancel</button>
      </div>
    </div>
  `;
}

/** Sends each file that is offered; a newer one takes the place of the one under way. */
function useUpload({ path, offered, onStored }) {
  const [underWay, setUnderWay] = useState(null);
  const [refused, setRefused] = useState(null);
  const controller = useRef(null);
  const cancel = () => {
    controller.current?.abort();
    setUnderWay(null);
  };
  useEffect(() => {
    if (!offered) return undefined;
    const mine = new AbortController();
    controller.current = mine;
    setRefused(null);
    setUnderWay({ name: offered.name, share: 0 });
    const onProgress = (share) => setUnderWay((last) => last && { ...last, share });
    upload(path, offered, { onProgress, signal: mine.signal })
      .then((view) => onStored(view.id))
      .catch((error) => mine.signal.aborted || setRefused(problemIn(error)))
      .finally(() => mine.signal.aborted || setUnderWay(null));
    return () => mine.abort();
  }, [offered]);
  return { underWay, refused, cancel };
}
