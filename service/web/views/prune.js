// A new job: model, bundle, goal, and what it would come to.

import { getJson, postJson } from "../api/client.js";
import { Channels } from "../components/channels.js";
import { CopyTabs } from "../components/copy-tabs.js";
import { FileCard } from "../components/file-card.js";
import { BundleFacts, ModelFacts } from "../components/file-facts.js";
import { Forecast } from "../components/forecast.js";
import { Goal } from "../components/goal.js";
import { ImageSettings } from "../components/image-settings.js";
import { OptionsForm } from "../components/options-form.js";
import { Problem } from "../components/problem.js";
import { snippetsOf } from "../components/snippets.js";
import { plural } from "../lib/format.js";
import { problemIn, useLoaded } from "../lib/loading.js";
import { fieldProblems, placeOf } from "../lib/problems.js";
import { changeQuery, goTo, link } from "../lib/router.js";
import { nearestReach } from "../options/goals.js";
import { readSchema } from "../options/schema.js";
import { html, useEffect, useState } from "../vendor/preact.js";

const FORECAST_DELAY_MS = 350;
const FIRST_TARGET = { max_macs_ratio: 0.7 };

export const title = "Prune a network";

export function PruneView({ query }) {
  const modelId = query.get("model");
  const bundleId = query.get("bundle");
  const options = readOptions(query.get("options"));
  const [offered, setOffered] = useState({ model: null, bundle: null });

  const schema = useLoaded(async (signal) => readSchema(await getJson("/v1/options/schema", { signal })), []);
  const model = useLoaded((signal) => getJson(`/v1/models/${modelId}`, { signal }), [modelId]);
  const bundle = useLoaded((signal) => getJson(`/v1/bundles/${bundleId}`, { signal }), [bundleId]);
  const channels = useLoaded((signal) => getJson(`/v1/models/${modelId}/channels`, { signal }), [modelId]);
  const images = bundle.value?.images;
  const lacksSettings = images && !images.preprocessing && !options.preprocessing;
  const optionsText = JSON.stringify(options);
  const forecast = useLoaded(
    (signal) =>
      postJson("/v1/jobs?dry_run=true", { model_id: modelId, bundle_id: bundleId, options }, { signal }),
    // Images that nobody has said how to read are asked about, not tried.
    [modelId, bundle.value && !lacksSettings ? bundleId : null, optionsText],
    { delayMs: FORECAST_DELAY_MS },
  );
  const start = useStart({ modelId, bundleId, options });
  const problem = start.problem ?? forecast.problem;
  const place = problem && placeOf(problem);
  // Opened where an option is wrong, and left as it is when that is mended.
  const [isMoreOpen, setMoreOpen] = useState(false);
  useEffect(() => {
    if (place === "options") setMoreOpen(true);
  }, [place]);
  const at = (where) => (place === where ? problem : null);

  const change = (part) => {
    start.clear();
    changeQuery(part);
  };
  const setOptions = (next) => change({ options: JSON.stringify(next) });
  // What was agreed for one bundle's images says nothing of another's.
  const changeBundle = (id) => change({ bundle: id, options: JSON.stringify(without(options, "preprocessing")) });
  const agree = (preprocessing) =>
    setOptions(preprocessing ? { ...options, preprocessing } : without(options, "preprocessing"));
  const onFiles = (kind) => (files) => setOffered((last) => ({ ...last, ...sorted(files, kind) }));
  const isReady = model.value && bundle.value && !lacksSettings;
  const isRefused = forecast.problem && place !== "run";

  return html`
    <div class="prune">
      <div class="files">
        <${FileCard}
          icon="model"
          title="Model"
          hint="An .onnx file, or a .zip of it and its external data"
          path="/v1/models"
          stored=${modelId && model.value}
          problem=${model.problem ?? at("model")}
          offered=${offered.model}
          onFiles=${onFiles("model")}
          onStored=${(id) => change({ model: id })}
          onRemove=${() => change({ model: null })}
        >
          ${model.value && html`<${ModelFacts} stored=${model.value} />`}
        <//>
        <${FileCard}
          icon="bundle"
          title="Bundle"
          hint="A few hundred examples of what the network sees: images as .zip, .tar (a folder per class, labels.csv, WebDataset) or .parquet; or arrays as .npz or .safetensors, named as the inputs"
          path="/v1/bundles"
          stored=${bundleId && bundle.value}
          problem=${bundle.problem ?? (settingsProblem(problem) ? null : at("bundle"))}
          offered=${offered.bundle}
          onFiles=${onFiles("bundle")}
          onStored=${changeBundle}
          onRemove=${() => changeBundle(null)}
        >
          ${bundle.value && html`<${BundleFacts} stored=${bundle.value} />`}
          ${images && html`
            <${ImageSettings}
              key=${bundleId}
              own=${images.preprocessing}
              guess=${modelId && model.value ? (model.value.model.preprocessing_guess ?? null) : undefined}
              agreed=${options.preprocessing ?? null}
              problem=${settingsProblem(problem)}
              onAgree=${agree}
            />
          `}
        <//>
      </div>

      ${schema.problem && html`<${Problem} problem=${schema.problem} />`}
      ${modelId && model.value && html`
        <div class="plan">
          <section class="card" aria-labelledby="goal-title">
            <header class="card-head"><h2 id="goal-title">Goal</h2></header>
            ${schema.value && html`
              <${Goal}
                fields=${schema.value.targets}
                target=${options.target}
                model=${model.value.model}
                problem=${at("goal") && goalProblem(problem)}
                onChange=${(target) => setOptions({ ...options, target })}
              />
              <${Nearest} problem=${at("goal")} onChoose=${(target) => setOptions({ ...options, target })} />
            `}
          </section>
          <section class="card preview" aria-labelledby="preview-title" aria-busy=${String(forecast.isLoading)}>
            <header class="card-head"><h2 id="preview-title">Preview</h2></header>
            <${Forecast} forecast=${forecast} isReady=${isReady} lacks=${lacksSettings ? "settings" : "bundle"} />
            ${at("run") && html`<${Problem} problem=${problem} />`}
            <button
              type="button"
              class="primary"
              disabled=${!isReady || isRefused || start.isUnderWay}
              onClick=${start.go}
            >
              ${start.isUnderWay ? "Sending…" : "Start pruning"}
            </button>
          </section>
        </div>
        ${schema.value && html`
          <details class="card more" open=${isMoreOpen} onToggle=${(event) => setMoreOpen(event.currentTarget.open)}>
            <summary>More options${changedNote(options)}</summary>
            ${at("options") && html`<${Problem} problem=${problem} />`}
            <${OptionsForm}
              fields=${schema.value.options}
              options=${options}
              problems=${place === "options" ? fieldProblems(problem) : {}}
              onChange=${(next) => setOptions({ ...next, target: options.target })}
            />
          </details>
        `}
        <section class="card" aria-labelledby="channels-title">
          <header class="card-head"><h2 id="channels-title">What can be pruned</h2></header>
          ${channels.problem && html`<${Problem} problem=${channels.problem} />`}
          ${channels.value
            ? html`<${Channels} key=${modelId} channels=${channels.value} />`
            : channels.isLoading && html`<p class="muted" role="status">Following the channels…</p>`}
        </section>
        ${isReady && html`
          <section class="card" aria-labelledby="again-title">
            <header class="card-head"><h2 id="again-title">The same without this page</h2></header>
            <${CopyTabs}
              label="Language"
              texts=${snippetsOf(model.value.filename, bundle.value.filename, options)}
            />
          </section>
        `}
      `}
    </div>
  `;
}

/** Sends the job, and goes to its page. */
function useStart({ modelId, bundleId, options }) {
  const [state, setState] = useState({ isUnderWay: false, problem: null });
  const go = async () => {
    setState({ isUnderWay: true, problem: null });
    try {
      const job = await postJson("/v1/jobs", { model_id: modelId, bundle_id: bundleId, options });
      goTo(link("jobs", { id: job.id }));
    } catch (error) {
      setState({ isUnderWay: false, problem: problemIn(error) });
    }
  };
  return { ...state, go, clear: () => state.problem && setState({ isUnderWay: false, problem: null }) };
}

/** A target that is out of reach can be moved to where it is in reach. */
function Nearest({ problem, onChoose }) {
  const nearest = problem && nearestReach(problem);
  if (!nearest) return null;
  return html`<p>
    <button type="button" onClick=${() => onChoose({ [nearest.name]: nearest.value })}>
      Go as far as it can
    </button>
  </p>`;
}

function goalProblem(problem) {
  const [first] = Object.entries(fieldProblems(problem)).filter(([field]) => field.startsWith("target"));
  return first ? first[1] : problem.detail;
}

/** What is wrong with the settings for images, in words; null where nothing is. */
function settingsProblem(problem) {
  const found = Object.entries(problem ? fieldProblems(problem) : {});
  return found.find(([field]) => field.split(".")[0] === "preprocessing")?.[1] ?? null;
}

function without(options, name) {
  return Object.fromEntries(Object.entries(options).filter(([key]) => key !== name));
}

function changedNote(options) {
  const changed = Object.keys(without(options, "preprocessing")).length - 1;
  return changed > 0 ? `: ${plural(changed, "changed option")}` : "";
}

/** Two files that are dropped together each go where they belong. */
function sorted(files, kind) {
  if (files.length === 1) return { [kind]: files[0] };
  const isModel = (file) => file.name.toLowerCase().endsWith(".onnx");
  const found = { model: files.find(isModel), bundle: files.find((file) => !isModel(file)) };
  return Object.fromEntries(Object.entries(found).filter(([, file]) => file));
}

/** Options in the address, which anyone may have changed. */
function readOptions(text) {
  try {
    const options = JSON.parse(text);
    if (options?.target && Object.keys(options.target).length === 1) return options;
    return { ...options, target: FIRST_TARGET };
  } catch {
    return { target: FIRST_TARGET };
  }
}
