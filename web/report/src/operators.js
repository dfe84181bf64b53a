// Time of the operator types that take most of it, before and after.
import * as Plot from "@observablehq/plot";
import { COLOURS, figure, plot, shortened } from "./marks.js";

const SHOWN = 12;

export function drawOperators({ operators }, width) {
  const longest = [...operators]
    .sort((a, b) => Math.max(b.before, b.after) - Math.max(a.before, a.after))
    .slice(0, SHOWN);
  if (!longest.length) return [];
  const bars = longest.flatMap(({ name, before, after }) => [
    { name, side: "before", ms: before },
    { name, side: "after", ms: after },
  ]);
  const label = `Time of ${longest.length} types of operators before and after, in milliseconds; the table below has the numbers.`;
  return [
    plot(label, {
      width,
      height: 46 + 34 * longest.length,
      marginBottom: 38,
      marginLeft: Math.min(150, width * 0.36),
      marginRight: 60,
      marginTop: 4,
      x: { label: "ms", labelArrow: "none", grid: true, ticks: Math.max(3, width / 140) },
      y: { axis: null, domain: ["before", "after"], padding: 0.05 },
      fy: { label: null, domain: longest.map((o) => o.name), tickFormat: (n) => shortened(n, width < 500 ? 14 : 22), padding: 0.25, axis: "left" },
      marks: [
        Plot.barX(bars, { fy: "name", y: "side", x: "ms", fill: (d) => (d.side === "after" ? COLOURS.kept : COLOURS.before) }),
        Plot.text(bars, { fy: "name", y: "side", x: "ms", text: (d) => figure(d.ms), dx: 4, textAnchor: "start", fill: "currentColor" }),
      ],
    }),
  ];
}
