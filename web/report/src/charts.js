// The charts of report.html. What they draw is in the page as JSON (graph_ops/report_page/figures.py);
// names come from a model that someone sent, and are only ever written as text.
import { drawFilters } from "./filters.js";
import { drawGraph } from "./graph.js";
import { drawOperators } from "./operators.js";
import { drawRefits } from "./refits.js";
import { drawScores } from "./scores.js";
import { drawSteps } from "./steps.js";
import { connectFilters } from "./tables.js";

const CHARTS = {
  filters: drawFilters,
  scores: drawScores,
  "steps-macs": (data, width) => drawSteps(data, width, "macs"),
  "steps-latency": (data, width) => drawSteps(data, width, "latency_ms"),
  refits: drawRefits,
  operators: drawOperators,
  graph: drawGraph,
};

const data = JSON.parse(document.getElementById("figures").textContent);

/** Draw a figure at its width; drawn again only when the width has changed. */
function draw(figure) {
  const width = Math.round(figure.getBoundingClientRect().width);
  if (!width || Number(figure.dataset.width) === width) return;
  figure.dataset.width = width;
  const caption = figure.querySelector("figcaption");
  figure.replaceChildren(caption, ...CHARTS[figure.dataset.chart](data, width, caption));
}

const watcher = new ResizeObserver((entries) => entries.forEach((entry) => draw(entry.target)));
for (const figure of document.querySelectorAll("figure[data-chart]")) {
  draw(figure);
  if (figure.dataset.chart !== "graph") watcher.observe(figure);
}
connectFilters(document);
