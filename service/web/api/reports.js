// Reports. They never change, so each is asked for once.

import { getJson } from "./client.js";
import { onKey } from "./key.js";

const AT_ONCE = 4;
const reports = new Map();
const waiting = [];
let underWay = 0;

onKey("change", () => reports.clear());

/** The report at this path. */
export function reportAt(path) {
  const known = reports.get(path);
  if (known) return known;
  const report = inTurn(() => getJson(path));
  report.catch(() => reports.delete(path));
  reports.set(path, report);
  return report;
}

/** Run `work` when fewer than `AT_ONCE` others are under way. */
async function inTurn(work) {
  if (underWay >= AT_ONCE) await new Promise((resolve) => waiting.push(resolve));
  underWay += 1;
  try {
    return await work();
  } finally {
    underWay -= 1;
    waiting.shift()?.();
  }
}
