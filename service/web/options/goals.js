// The goals a person can choose from: the fields of the option `target`, in words.

import { bytes, count, percent, words } from "../lib/format.js";

const GOALS = {
  max_macs_ratio: {
    label: "Operations",
    question: "How much of the work per sample (MACs) may remain?",
    short: (value) => `MACs ≤ ${percent(value)}`,
    start: () => 0.7,
  },
  max_latency_ratio: {
    label: "Latency",
    question: "How much of the time of one run may remain?",
    short: (value) => `Latency ≤ ${percent(value)}`,
    start: () => 0.8,
  },
  max_metric_drop: {
    label: "Accuracy",
    question: "How much worse may the metric on the held-out samples be?",
    short: (value) => `Metric worse by ≤ ${value}`,
    start: () => 0.01,
  },
  max_params_ratio: {
    label: "Parameters",
    question: "How many of the weights may remain?",
    short: (value) => `Parameters ≤ ${percent(value)}`,
    start: () => 0.7,
  },
  max_size_bytes: {
    label: "File size",
    question: "How large may the file be?",
    short: (value) => `File ≤ ${bytes(value)}`,
    start: (model) => Math.round(0.8 * (model?.bytes ?? 1e6)),
  },
  filter_ratio: {
    label: "Share of filters",
    question: "How many of the filters may remain?",
    short: (value) => `Filters ≤ ${percent(value)}`,
    start: () => 0.8,
  },
  filters: {
    label: "Filters",
    question: "How many filters should go?",
    short: (value) => `Drop ${count(value)} filters`,
    start: (model) => Math.max(1, Math.min(8, model?.prunable_filters ?? 8)),
  },
};

export const GOAL_ORDER = Object.keys(GOALS);

/** Words for a field of `target`; those of fields that are not known here are made of its name. */
export function goalOf(field) {
  return (
    GOALS[field.name] ?? {
      label: words(field.name),
      question: field.description,
      short: (value) => `${words(field.name)}: ${value}`,
      start: () => (isShare(field) ? 0.5 : (field.min ?? 1)),
    }
  );
}

/** Whether a field is a number between 0 and 1. */
export function isShare(field) {
  return field.type === "number" && field.max === 1;
}

/** A target in a few words, for lists. */
export function describeTarget(target) {
  const [name, value] = Object.entries(target ?? {}).find(([, given]) => given != null) ?? [];
  if (name === undefined) return "";
  if (typeof value === "object") return words(name);
  return (GOALS[name] ?? goalOf({ name })).short(value);
}

/** What a job is to do, in a few words. */
export function describeJob({ kind = "prune", options }) {
  if (kind === "score") return "Scores for a session";
  const target = describeTarget(options?.target);
  if (kind === "cut") return ["Cut", target].filter(Boolean).join(": ");
  return options.points ? `${target}, ${options.points} points on the way` : target;
}

/** How far a target that is out of reach could be met, from the problem's members; else null. */
export function nearestReach(problem) {
  const { target, best } = problem;
  if (problem.code !== "target_unreachable" || !best) return null;
  const roundedUp = (share) => (share == null ? null : Math.ceil(1000 * share) / 1000);
  const found = {
    max_macs_ratio: roundedUp(best.macs_ratio),
    max_params_ratio: roundedUp(best.params_ratio),
    max_size_bytes: best.size_bytes,
    filters: best.filters_dropped,
  }[target];
  return found ? { name: target, value: found } : null;
}
