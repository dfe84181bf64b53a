// Scores of each layer as a column: every bin as wide as it has filters, dropped ones at the right.
import * as Plot from "@observablehq/plot";
import { COLOURS, figure, layerAxis, plot, rowsOf } from "./marks.js";

const COLUMN = 0.88; // share of its place that the widest bin of a column takes

export function drawScores({ scores, layers }, width) {
  const all = scores.layers.map((entry) => ({
    ...entry,
    number: entry.layer + 1,
    name: layers[entry.layer].name,
  }));
  const { edges } = scores;
  return rowsOf(all, width).map((row) => {
    const bins = row.flatMap((entry, i) => binsOf(entry, i, edges));
    const cuts = row.flatMap((entry, i) => (entry.cut === null ? [] : [{ ...entry, i }]));
    const axis = layerAxis(row, width);
    const label =
      `Distributions of the scores of convolutions ${row[0].number} to ${row.at(-1).number} with the cut of each; ` +
      "lowest, median, highest and cut are in the table of convolutions.";
    const title = (d) =>
      `${d.name}\n${d.filters} filters\n${d.cut === null ? "none dropped" : `cut at ${figure(d.cut)}`}`;
    const points = row.map((entry, i) => ({
      ...entry,
      x: i + COLUMN / 2,
      y: entry.cut ?? edges[edges.length >> 1],
      filters: sum(entry.kept) + sum(entry.dropped),
    }));
    return plot(label, {
      width,
      height: 260,
      marginLeft: 58,
      marginTop: 24,
      marginBottom: axis.marginBottom,
      x: {
        ...axis.x,
        type: "linear",
        domain: [-0.12, row.length],
        ticks: ticksOf(row, axis.x),
        tickFormat: (x) => axis.x.tickFormat(row[Math.floor(x)].number),
      },
      y: { type: "log", label: "score", labelArrow: "none", domain: [edges[0], edges.at(-1)], grid: true, ticks: decades(edges), tickFormat: ".0e" },
      marks: [
        Plot.rect(bins, { x1: "x1", x2: "x2", y1: "y1", y2: "y2", fill: "colour", inset: 0.25 }),
        Plot.ruleY(cuts, { x1: (d) => d.i - 0.06, x2: (d) => d.i + 0.94, y: "cut", stroke: COLOURS.cut, strokeWidth: 2 }),
        Plot.tip(points, Plot.pointerX({ x: "x", y: "y", title, maxRadius: 60 })),
      ],
    });
  });
}

function binsOf(entry, i, edges) {
  const most = Math.max(1, ...entry.kept.map((kept, bin) => kept + entry.dropped[bin]));
  const scale = COLUMN / most;
  return entry.kept.flatMap((kept, bin) => {
    const dropped = entry.dropped[bin];
    const bounds = { y1: edges[bin], y2: edges[bin + 1] };
    const middle = i + kept * scale;
    const parts = [];
    if (kept) parts.push({ ...bounds, x1: i, x2: middle, colour: COLOURS.kept });
    if (dropped) parts.push({ ...bounds, x1: middle, x2: middle + dropped * scale, colour: COLOURS.dropped });
    return parts;
  });
}

/** Powers of ten on the score axis; where there are fewer than two, as many ticks as fit. */
function decades(edges) {
  const powers = [];
  for (let p = Math.ceil(Math.log10(edges[0])); p <= Math.log10(edges.at(-1)); p++) powers.push(Number(`1e${p}`));
  return powers.length < 2 ? 4 : powers;
}

function ticksOf(row, axis) {
  const shown = new Set(axis.ticks ?? row.map((entry) => entry.number));
  return row.flatMap((entry, i) => (shown.has(entry.number) ? [i + COLUMN / 2] : []));
}

const sum = (counts) => counts.reduce((a, b) => a + b, 0);
