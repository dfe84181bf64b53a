// The graph in outline, from top to bottom; layers of one block have one colour.
import dagre from "@dagrejs/dagre";
import { shortened } from "./marks.js";

const SVG = "http://www.w3.org/2000/svg";
const BOX = { width: 168, height: 40 };
const JOIN = { width: 64, height: 24 };
const HUES = 8;
const PRINTED_NODES = 60; // a graph of more nodes is left out of print
const QUICK_RANKER = 150; // from so many nodes on the layout's fastest way is taken

export function drawGraph({ graph, layers }, width, caption) {
  const layout = laidOut(graph);
  const shared = sharedBlocks(layers);
  const svg = element("svg", { width: layout.width, height: layout.height, viewBox: `0 0 ${layout.width} ${layout.height}`, role: "img" });
  svg.setAttribute(
    "aria-label",
    `Graph of ${graph.nodes.length} layers, joins and ends; blocks of more than one convolution are listed below.`,
  );
  const edges = layout.edges.map((points) => element("path", { class: "edge", d: pathOf(points) }));
  const nodes = graph.nodes.map((node, i) => drawNode(node, layout.places[i], layers, shared));
  const all = element("g", { "aria-hidden": "true" });
  all.append(...edges, ...nodes);
  svg.append(all);

  const view = document.createElement("div");
  view.className = graph.nodes.length > PRINTED_NODES ? "graph-view screen-only" : "graph-view";
  view.tabIndex = 0;
  view.setAttribute("role", "region");
  view.setAttribute("aria-label", "Graph of the channel classes");
  view.append(svg);
  connectSelect(caption.querySelector("select"), graph, layers, nodes, view);
  if (graph.nodes.length <= PRINTED_NODES) return [view];
  const note = document.createElement("p");
  note.className = "print-only";
  note.textContent = `A graph of ${graph.nodes.length} nodes is not printed; open this file in a browser to see it.`;
  return [view, note];
}

function laidOut(graph) {
  const g = new dagre.graphlib.Graph();
  const ranker = graph.nodes.length > QUICK_RANKER ? "longest-path" : "network-simplex";
  g.setGraph({ rankdir: "TB", nodesep: 24, ranksep: 26, marginx: 8, marginy: 8, ranker });
  g.setDefaultEdgeLabel(() => ({}));
  graph.nodes.forEach((node, i) => g.setNode(String(i), { ...(isLayer(node) ? BOX : JOIN) }));
  for (const [from, to] of graph.edges) g.setEdge(String(from), String(to));
  dagre.layout(g);
  const { width, height } = g.graph();
  return {
    width: Math.ceil(width),
    height: Math.ceil(height),
    places: graph.nodes.map((_, i) => g.node(String(i))),
    edges: g.edges().map((edge) => g.edge(edge).points),
  };
}

const isLayer = (node) => ["Conv", "ConvTranspose", "Gemm", "MatMul", "input", "output"].includes(node.op_type);

function drawNode(node, place, layers, shared) {
  const layer = node.convolution === null ? null : layers[node.convolution];
  const group = element("g", { transform: `translate(${place.x - place.width / 2} ${place.y - place.height / 2})` });
  const isEnd = node.op_type === "input" || node.op_type === "output";
  group.setAttribute("class", [isEnd ? "end" : "", layer?.frozen ? "frozen" : ""].join(" ").trim());
  group.append(element("rect", { class: "box", width: place.width, height: place.height, rx: isLayer(node) ? 5 : 12 }));
  const hint = element("title");
  hint.textContent = [`${node.op_type} ${node.name}`, layer?.frozen && `left alone: ${layer.frozen}`].filter(Boolean).join("\n");
  group.append(hint);
  if (!isLayer(node)) {
    group.append(text(shortened(node.op_type, 8), place.width / 2, place.height / 2 + 4, "middle"));
    return group;
  }
  const block = layer?.blocks.find((b) => shared.has(b));
  if (block !== undefined) {
    const hue = [...shared].indexOf(block) % HUES;
    group.append(element("rect", { width: 7, height: place.height, rx: 2, fill: `var(--b${hue})` }));
  }
  group.append(text(shortened(node.name, 21), 14, 16));
  const parts = [isEnd ? node.op_type : layer?.depthwise ? "depthwise" : node.op_type];
  if (layer) parts.push(layer.before === layer.after ? `${layer.after} filters` : `${layer.before} → ${layer.after}`);
  if (block !== undefined) parts.push(`block ${block + 1}`);
  group.append(text(parts.join(" · "), 14, 32, "start", "count"));
  return group;
}

/** Blocks that more than one convolution has. */
function sharedBlocks(layers) {
  const seen = new Map();
  for (const layer of layers) for (const block of layer.blocks) seen.set(block, (seen.get(block) ?? 0) + 1);
  return new Set([...seen.keys()].filter((block) => seen.get(block) > 1).sort((a, b) => a - b));
}

/** Choosing a block dims the rest and scrolls to its first layer. */
function connectSelect(select, graph, layers, nodes, view) {
  if (select === null) return;
  select.addEventListener("change", () => {
    const wanted = select.value === "" ? null : Number(select.value);
    let first = null;
    graph.nodes.forEach((node, i) => {
      const layer = node.convolution === null ? null : layers[node.convolution];
      const isIn = wanted === null || (layer !== null && layer.blocks.includes(wanted));
      nodes[i].classList.toggle("dim", !isIn);
      if (isIn) first ??= nodes[i];
    });
    if (wanted !== null && first !== null) {
      const offset = first.getBoundingClientRect().top - view.getBoundingClientRect().top;
      view.scrollBy({ top: offset - 40 });
    }
  });
}

function pathOf(points) {
  return points.map((p, i) => `${i ? "L" : "M"}${p.x.toFixed(1)} ${p.y.toFixed(1)}`).join("");
}

function text(content, x, y, anchor = "start", className = "") {
  const node = element("text", { x, y, "text-anchor": anchor, class: className });
  node.textContent = content;
  return node;
}

function element(name, attributes = {}) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}
