// Results as points: cost across, metric up, and the curve of those that no other beats. The chart
// is for the eye and the pointer; the slider and the table beside it do the same for everyone.

import { nearest } from "../lib/pareto.js";
import { html, useEffect, useRef, useState } from "../vendor/preact.js";

const HEIGHT = 380;
const NARROW = 560;
const TICK_WIDTH = 90;

/**
 * @param {{points: Point[], curve: Point[], original: {x: number, y: number} | null,
 *   chosen: Point | null, xAxis: Axis, yAxis: Axis, label: string,
 *   onChoose: (point: Point) => void}} props
 * Point: {id, x, y}; Axis: {label, format}. `curve` holds points of `points`.
 */
export function ParetoChart(props) {
  const { points, curve, label, onChoose } = props;
  const place = useRef(null);
  const chart = useRef(null);
  const width = useWidth(place);
  const Plot = usePlot();
  useEffect(() => {
    if (!Plot || !width) return;
    chart.current = draw(Plot, width, props);
    place.current.replaceChildren(chart.current);
  }, [Plot, width, points, curve, props.original, props.chosen, props.xAxis]);

  const choose = (event, candidates) => {
    if (!chart.current) return;
    const box = chart.current.getBoundingClientRect();
    const [x, y] = [chart.current.scale("x"), chart.current.scale("y")];
    const at = { x: event.clientX - box.left, y: event.clientY - box.top };
    const found = nearest(candidates, at, (point) => ({ x: x.apply(point.x), y: y.apply(point.y) }));
    if (found) onChoose(found);
  };
  const onPointerDown = (event) => {
    event.currentTarget.setPointerCapture(event.pointerId);
    choose(event, points);
  };
  const onPointerMove = (event) => {
    if (event.buttons & 1) choose(event, curve);
  };
  return html`
    <div
      class="chart"
      ref=${place}
      role="img"
      aria-label=${label}
      onPointerDown=${onPointerDown}
      onPointerMove=${onPointerMove}
    ></div>
  `;
}

function draw(Plot, width, { points, curve, original, chosen, xAxis, yAxis }) {
  const isNarrow = width < NARROW;
  const ticks = isNarrow ? Math.floor(width / TICK_WIDTH) : 8;
  const at = { x: "x", y: "y" };
  const onCurve = new Set(curve.map(({ id }) => id));
  const others = points.filter(({ id }) => !onCurve.has(id));
  const svg = Plot.plot({
    width,
    height: HEIGHT,
    marginLeft: 68,
    marginRight: 28,
    marginTop: 34,
    marginBottom: 46,
    className: "plot",
    x: { label: `${xAxis.label} →`, tickFormat: xAxis.format, ticks, nice: true, insetLeft: 12, insetRight: 12 },
    y: { label: `↑ ${yAxis.label}`, tickFormat: yAxis.format, ticks: 6, nice: true, insetTop: 12, insetBottom: 12 },
    marks: [
      Plot.gridY({ stroke: "var(--line)", strokeOpacity: 1, ticks: 6 }),
      Plot.gridX({ stroke: "var(--line)", strokeOpacity: 1, ticks }),
      Plot.line(curve, { ...at, stroke: "var(--accent)", strokeWidth: 2 }),
      Plot.dot(others, { ...at, r: 5, stroke: "var(--line-strong)", fill: "var(--surface)", strokeWidth: 2 }),
      Plot.dot(curve, { ...at, r: 6, fill: "var(--accent)", stroke: "var(--surface)", strokeWidth: 1.5 }),
      Plot.dot(original ? [original] : [], { ...at, r: 6, symbol: "diamond", fill: "var(--ink)" }),
      Plot.text(original ? [original] : [], { ...at, text: () => "original", dy: -15, textAnchor: "end", dx: 8, fill: "var(--ink-soft)" }),
      Plot.dot(chosen ? [chosen] : [], { ...at, r: 11, stroke: "var(--ink)", strokeWidth: 2 }),
    ],
  });
  // Its rules stand in views.css: the page's policy allows no style but that of its files.
  svg.querySelector("style")?.remove();
  // The place around it has the words.
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

/** Width of an element in pixels, as it changes; 0 until it is known. */
function useWidth(place) {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(place.current);
    return () => observer.disconnect();
  }, []);
  return width;
}

/** Observable Plot, which is only loaded where a chart is. */
function usePlot() {
  const [Plot, setPlot] = useState(null);
  useEffect(() => {
    import("../vendor/plot.js").then((module) => setPlot(() => module));
  }, []);
  return Plot;
}
