// Filters of each convolution: what is left, and above it what was dropped.
import * as Plot from "@observablehq/plot";
import { COLOURS, layerAxis, plot, rowsOf } from "./marks.js";

export function drawFilters({ layers }, width) {
  const all = layers.map((layer, i) => ({
    ...layer,
    number: i + 1,
    gone: layer.before - layer.after,
    colour: layer.frozen === null ? COLOURS.kept : COLOURS.alone,
  }));
  const most = Math.max(1, ...all.map((layer) => layer.before));
  return rowsOf(all, width).map((row) => {
    const label =
      `Bars of the filters of convolutions ${row[0].number} to ${row.at(-1).number}, left and dropped; ` +
      "the numbers are in the table of convolutions.";
    const title = (d) =>
      `${d.name}\n${d.after} of ${d.before} filters left${d.frozen ? `\nleft alone: ${d.frozen}` : ""}`;
    return plot(label, {
      width,
      height: 230,
      marginTop: 24,
      ...layerAxis(row, width),
      y: { label: "filters", labelArrow: "none", domain: [0, most], grid: true, ticks: 5 },
      marks: [
        Plot.barY(row, { x: "number", y: "after", fill: "colour" }),
        Plot.barY(row, { x: "number", y1: "after", y2: "before", fill: COLOURS.dropped }),
        Plot.ruleY([0], { stroke: "currentColor" }),
        Plot.tip(row, Plot.pointerX({ x: "number", y: "before", title, maxRadius: 60 })),
      ],
    });
  });
}
