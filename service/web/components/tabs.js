// Panels of which one is shown (the tabs pattern of the ARIA practices guide).

import { html, useId, useRef, useState } from "../vendor/preact.js";

/** @param {{label: string, tabs: {name: string, content: any}[], aside?: any}} props */
export function Tabs({ label, tabs, aside, onChoose }) {
  const [chosen, setChosen] = useState(0);
  const list = useRef(null);
  const id = useId();
  const choose = (index) => {
    setChosen(index);
    list.current.children[index].focus();
    onChoose?.(index);
  };
  const onKeyDown = (event) => {
    const goal = {
      ArrowRight: (chosen + 1) % tabs.length,
      ArrowLeft: (chosen + tabs.length - 1) % tabs.length,
      Home: 0,
      End: tabs.length - 1,
    }[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    choose(goal);
  };
  return html`
    <div class="tabs">
      <div class="tab-bar">
        <div role="tablist" aria-label=${label} ref=${list} onKeyDown=${onKeyDown}>
          ${tabs.map(
            ({ name }, index) => html`
              <button
                key=${index}
                type="button"
                role="tab"
                id=${`${id}-tab-${index}`}
                aria-selected=${String(index === chosen)}
                aria-controls=${`${id}-panel`}
                tabindex=${index === chosen ? 0 : -1}
                onClick=${() => choose(index)}
              >
                ${name}
              </button>
            `,
          )}
        </div>
        ${aside}
      </div>
      <div role="tabpanel" id=${`${id}-panel`} aria-labelledby=${`${id}-tab-${chosen}`}>
        ${tabs[chosen].content}
      </div>
    </div>
  `;
}
