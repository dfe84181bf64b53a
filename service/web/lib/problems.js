// Where on the page a problem belongs, and the facts that it carries.

const STANDARD = new Set(["type", "title", "status", "detail", "instance", "code", "job_id"]);

/** "model", "bundle", "goal", "options" or "run". */
export function placeOf(problem) {
  const { code } = problem;
  if (code.startsWith("model_") || code === "nothing_prunable") return "model";
  if (code.startsWith("bundle_")) return "bundle";
  if (code === "target_unreachable") return "goal";
  if (code === "options_invalid" || code === "options_no_match" || code === "loss_invalid") {
    const fields = fieldProblems(problem);
    const names = new Set(Object.keys(fields).map((field) => field.split(".")[0]));
    if (names.has("preprocessing")) return "bundle";
    return names.has("target") ? "goal" : "options";
  }
  return "run";
}

/** What is wrong with each field: {"target.max_macs_ratio": "…", "steps": "…"}. */
export function fieldProblems(problem) {
  const listed = problem?.fields ?? problem?.errors ?? [];
  const found = {};
  for (const { field, problem: text } of listed) found[field.replace(/^options\./, "")] = text;
  if (problem?.field && listed.length === 0) found[problem.field] = problem.detail;
  return found;
}

/** Members beyond the standard ones, as pairs of texts. */
export function factsOf(problem) {
  return Object.entries(problem)
    .filter(([name, value]) => !STANDARD.has(name) && value != null && value !== "")
    .map(([name, value]) => [name, typeof value === "object" ? JSON.stringify(value) : String(value)]);
}
