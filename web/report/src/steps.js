// The metric against a cost, from the original to the returned model.
import * as Plot from "@observablehq/plot";
import { COLOURS, figure, plot } from "./marks.js";

const AXES = {
  macs: { label: "multiply-accumulates", tickFormat: "~s" },
  latency_ms: { label: "latency, ms", tickFormat: "~r" },
};

export function drawSteps({ steps, metric }, width, cost) {
  const known = steps.filter((step) => step[cost] !== null && step.metric !== null);
  const rounds = known.filter((step) => step.kind === "round");
  if (!rounds.length) return [];
  const isShare = metric === "accuracy" || metric === "agreement";
  const percent = (value) => `${figure(value * 100, 4)} %`;
  const shown = isShare ? percent : figure;
  const title = (d) => `${d.label}\n${AXES[cost].label}: ${figure(d[cost], 4)}\n${metric}: ${shown(d.metric)}`;
  const label =
    `${metric} against ${AXES[cost].label} over ${rounds.length} steps, from ${shown(rounds[0].metric)} ` +
    `to ${shown(rounds.at(-1).metric)}; the table below has every step.`;
  const at = { x: cost, y: "metric" };
  return [
    plot(label, {
      width,
      height: 290,
      marginBottom: 40,
      marginLeft: 56,
      marginRight: 24,
      marginTop: 28,
      x: { ...AXES[cost], labelArrow: "none", grid: true, nice: true, ticks: 5, domain: padded(known.map((s) => s[cost])) },
      y: {
        label: metric.replaceAll("_", " "),
        labelArrow: "none",
        grid: true,
        ticks: 5,
        domain: padded(known.map((s) => s.metric), isShare ? 1 : Infinity),
        tickFormat: isShare ? percent : undefined,
      },
      marks: [
        Plot.line(rounds, { ...at, stroke: COLOURS.kept, strokeWidth: 1.5 }),
        Plot.dot(rounds, { ...at, r: 4, fill: (d, i) => (i ? COLOURS.kept : "var(--paper)"), stroke: COLOURS.kept, strokeWidth: 1.5 }),
        Plot.dot(known.filter((s) => s.kind === "unrecovered"), { ...at, r: 5, symbol: "times", stroke: COLOURS.dropped, strokeWidth: 2 }),
        Plot.text(notable(known), { ...at, text: "label", dy: -12, lineAnchor: "bottom", textAnchor: (d) => d.anchor, fill: "currentColor" }),
        Plot.tip(known, Plot.pointer({ ...at, title })),
      ],
    }),
  ];
}

/** The steps with a name beside them: the first, the last, and the last without recovery. */
function notable(steps) {
  const rounds = steps.filter((step) => step.kind === "round");
  const named = [{ ...rounds[0], anchor: "end" }];
  if (rounds.length > 1) named.push({ ...rounds.at(-1), label: "returned", anchor: "start" });
  return named.concat(
    steps
      .filter((step) => step.kind === "unrecovered" && Math.abs(step.metric - rounds.at(-1).metric) > 0.002)
      .map((step) => ({ ...step, label: "before recovery", anchor: "start" })),
  );
}

/** Ends of an axis with room around the values; no more than `most`. */
function padded(values, most = Infinity) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = Math.max((high - low) * 0.12, Math.abs(high) * 0.01, 1e-9);
  return [Math.max(0, low - room), Math.max(high, Math.min(most, high + room))];
}
