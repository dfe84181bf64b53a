// The same run in other words: what a person copies to repeat it without this page.

/**
 * @typedef {{model: string, bundle: string, options: object, origin: string, hasKey: boolean}} Run
 * File names, the options that differ from the defaults, where the service is.
 */

const SAFE_WORD = /^[\w@%+=:,./-]+$/;

/** A word of a shell command. */
export function shellWord(text) {
  return SAFE_WORD.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** `-F name=@file`; curl takes ; and , in a bare file name for its own. */
function formFile(name, file) {
  const isPlain = /^[\w.+/-]+$/.test(file);
  const quoted = file.replaceAll("\\", "\\\\").replaceAll('"', '\\"');
  return `-F ${shellWord(isPlain ? `${name}=@${file}` : `${name}=@"${quoted}"`)}`;
}

/** @param {Run} run */
export function curl(run) {
  return [
    "curl --fail-with-body",
    ...(run.hasKey ? ['-H "Authorization: Bearer $API_KEY"'] : []),
    formFile("model", run.model),
    formFile("bundle", run.bundle),
    `-F ${shellWord(`options=${JSON.stringify(run.options)}`)}`,
    `${run.origin}/v1/prune`,
    `-o ${shellWord(prunedName(run.model))}`,
  ].join(" \\\n    ");
}

/** @param {Run} run */
export function python(run) {
  return `from graph_ops import prune

result = prune(
    ${JSON.stringify(run.model)},
    ${JSON.stringify(run.bundle)},
    ${pythonLiteral(run.options)},
)
result.write_model(${JSON.stringify(prunedName(run.model))})
print(result.report["metric"])`;
}

/** @param {Run} run */
export function cli(run) {
  return [
    `onnx-filter-pruner prune ${shellWord(run.model)} ${shellWord(run.bundle)}`,
    `-o ${shellWord(prunedName(run.model))} --report report.json`,
    ...flags(run.options),
  ].join(" \\\n    ");
}

function flags({ target, ...options }) {
  return Object.entries({ ...target, ...options }).flatMap(([name, value]) => {
    const flag = `--${name.replaceAll("_", "-")}`;
    if (typeof value === "boolean") return [value ? flag : `--no-${flag.slice(2)}`];
    // The flags of a list are repeated; what has a structure of its own is given as JSON.
    if (typeof value === "object" && !Array.isArray(value)) return [`${flag} ${shellWord(JSON.stringify(value))}`];
    return [value].flat().map((item) => `${flag} ${shellWord(String(item))}`);
  });
}

function pythonLiteral(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(pythonLiteral).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const items = Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${pythonLiteral(v)}`);
  return `{${items.join(", ")}}`;
}

/** As the service names the result: digits.onnx → digits-pruned.onnx */
function prunedName(model) {
  return `${model.replace(/\.(onnx|zip)$/i, "")}-pruned.onnx`;
}
