// Where the API key is entered. It stays in this tab.

import { keepKey, readKey } from "../api/key.js";
import { html, useEffect, useRef } from "../vendor/preact.js";

/** @param {{isOpen: boolean, wasRefused: boolean, onClose: () => void}} props */
export function KeyDialog({ isOpen, wasRefused, onClose }) {
  const dialog = useRef(null);
  const input = useRef(null);
  // The event of closing comes a moment later; by then the server may have refused again.
  const closedHere = useRef(0);
  useEffect(() => {
    if (isOpen && !dialog.current.open) dialog.current.showModal();
    if (!isOpen && dialog.current.open) {
      closedHere.current += 1;
      dialog.current.close();
    }
  }, [isOpen]);
  const onClosed = () => {
    if (closedHere.current) closedHere.current -= 1;
    else onClose();
  };
  const keep = (key) => {
    onClose();
    keepKey(key);
  };
  const onSubmit = (event) => {
    event.preventDefault();
    keep(input.current.value.trim());
  };
  return html`
    <dialog ref=${dialog} class="key-dialog" aria-labelledby="key-title" onClose=${onClosed}>
      <form onSubmit=${onSubmit}>
        <h2 id="key-title">API key</h2>
        ${wasRefused && html`<p class="field-problem" role="alert">This server needs a key that it knows.</p>`}
        <label>
          Key
          <input ref=${input} type="password" autocomplete="off" spellcheck="false" value=${readKey()} />
        </label>
        <p class="muted">It is kept for this tab only, and sent to this server alone.</p>
        <div class="actions">
          <button type="submit" class="primary">Use it</button>
          ${readKey() && html`<button type="button" onClick=${() => keep("")}>Forget it</button>`}
          <button type="button" class="quiet" onClick=${onClose}>Cancel</button>
        </div>
      </form>
    </dialog>
  `;
}
