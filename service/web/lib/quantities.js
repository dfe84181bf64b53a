// The costs that results are compared by.

import { bytes, count, magnitude, milliseconds } from "./format.js";

export const QUANTITIES = [
  { name: "macs", label: "MACs", unit: "MACs per sample", format: magnitude },
  { name: "parameters", label: "Parameters", unit: "Parameters", format: magnitude },
  { name: "bytes", label: "File size", unit: "File size", format: bytes },
  { name: "latency_ms", label: "Latency", unit: "Latency of one run", format: milliseconds },
  { name: "filters", label: "Filters", unit: "Filters", format: count },
];

/** A cost in a report, `side` is "before" or "after"; null where it is not known. */
export function costOf(report, side, name) {
  return (name === "filters" ? report.filters[side] : report.cost[side][name]) ?? null;
}
