// What the charts share: the theme's colours, rows of layers, descriptions for screen readers.
import * as Plot from "@observablehq/plot";

export const COLOURS = {
  kept: "var(--kept)",
  dropped: "var(--dropped)",
  alone: "var(--alone)",
  before: "var(--before)",
  cut: "var(--cut)",
};

const NARROWEST_LAYER = 13; // px that a layer of a chart takes at least
const MARGINS = 60;
const LETTER = 6.2; // px that a letter takes on average
const NAMED_LAYERS = 24; // up to so many layers in a row have their names below

/** A plot with the page's font and a description in place of its many shapes. */
export function plot(label, options) {
  const svg = Plot.plot({ className: "plot", ...options });
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  for (const inner of svg.children) inner.setAttribute("aria-hidden", "true");
  return svg;
}

/** Layers cut into rows that are wide enough to tell neighbours apart, all but equally long. */
export function rowsOf(layers, width) {
  const most = Math.max(8, Math.floor((width - MARGINS) / NARROWEST_LAYER));
  const rows = Math.ceil(layers.length / most);
  const each = Math.ceil(layers.length / rows);
  return Array.from({ length: rows }, (_, i) => layers.slice(i * each, (i + 1) * each));
}

/** The x axis of one row: names where they fit, across or slanting, else the number in the table. */
export function layerAxis(row, width) {
  const place = (width - MARGINS) / row.length;
  const names = new Map(row.map((layer) => [layer.number, shortened(layer.name, 16)]));
  const longest = Math.max(0, ...[...names.values()].map((name) => name.length)) * LETTER;
  const isAcross = longest < place;
  const isNamed = isAcross || (row.length <= NAMED_LAYERS && place >= 24);
  const step = Math.ceil(row.length / Math.max(6, Math.min(20, width / 36)));
  return {
    marginBottom: isAcross ? 24 : isNamed ? 18 + longest * 0.7 : 36,
    x: {
      type: "band",
      domain: row.map((layer) => layer.number),
      label: isNamed ? null : "convolution no.",
      labelArrow: "none",
      tickRotate: isNamed && !isAcross ? -40 : 0,
      tickFormat: isNamed ? (n) => names.get(n) : (n) => String(n),
      ticks: isNamed ? undefined : row.filter((_, i) => i % step === 0).map((l) => l.number),
      tickSize: 3,
      padding: row.length < 8 ? 0.4 : 0.15,
    },
  };
}

/** A name with its middle left out: beginnings say the stage, ends the layer. */
export function shortened(name, length) {
  if (name.length <= length) return name;
  const end = Math.floor((length - 1) * 0.6);
  return `${name.slice(0, length - 1 - end)}…${name.slice(-end)}`;
}

/** A number for people. */
export function figure(value, digits = 3) {
  if (value === null || value === undefined) return "unknown";
  return Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits });
}
