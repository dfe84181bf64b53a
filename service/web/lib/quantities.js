// The costs that results are compared by; `name` is that in reports.

import { bytes, count, magnitude, milliseconds } from "./format.js";

export const QUANTITIES = [
  { name: "macs", label: "MACs", unit: "MACs per sample", format: magnitude },
  { name: "parameters", label: "Parameters", unit: "Parameters", format: magnitude },
  { name: "bytes", label: "File size", unit: "File size", format: bytes },
  { name: "latency_ms", label: "Latency", unit: "Latency of one run", format: milliseconds },
  { name: "filters", label: "Filters", unit: "Filters", format: count },
];
