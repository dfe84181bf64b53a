// Relative error of each refitted layer, without its refit and with it.
import * as Plot from "@observablehq/plot";
import { COLOURS, figure, layerAxis, plot, rowsOf } from "./marks.js";

export function drawRefits({ refits }, width) {
  const all = refits.map((refit, i) => ({ ...refit, number: i + 1 }));
  const most = Math.max(1e-9, ...all.flatMap((refit) => [refit.before, refit.after]));
  return rowsOf(all, width).map((row) => {
    const axis = layerAxis(row, width);
    if (axis.x.label) axis.x.label = "layer behind a cut";
    const label = `Relative errors of ${row.length} layers before and after their refits.`;
    const title = (d) => `${d.name}\nbefore ${figure(d.before)}, after ${figure(d.after)} (${d.method})`;
    return plot(label, {
      width,
      height: 220,
      marginLeft: 50,
      marginTop: 24,
      ...axis,
      y: { label: "relative error", labelArrow: "none", domain: [0, most], nice: true, grid: true, ticks: 5 },
      marks: [
        Plot.ruleX(row, { x: "number", y1: "before", y2: "after", stroke: COLOURS.before, strokeWidth: 2 }),
        Plot.dot(row, { x: "number", y: "before", r: 4, fill: COLOURS.dropped }),
        Plot.dot(row, { x: "number", y: "after", r: 4, fill: COLOURS.kept }),
        Plot.ruleY([0], { stroke: "currentColor" }),
        Plot.tip(row, Plot.pointerX({ x: "number", y: "before", title, maxRadius: 60 })),
      ],
    });
  });
}
