// Numbers and times as people read them.

const GROUPED = new Intl.NumberFormat("en");
const NO_BREAK = "\u00a0";

export function count(value) {
  return value == null ? "unknown" : GROUPED.format(value);
}

/** 4,550,400 → "4.55 M"; exact below ten thousand. */
export function magnitude(value) {
  if (value == null) return "unknown";
  return scaled(value, 1000, ["", "k", "M", "G", "T", "P"], 10_000);
}

/** Bytes in powers of 1000, as disks and networks count them. */
export function bytes(value) {
  if (value == null) return "unknown";
  return scaled(value, 1000, ["B", "kB", "MB", "GB", "TB"], 1000);
}

function scaled(value, step, units, exactBelow) {
  let power = 0;
  let rest = value;
  if (Math.abs(value) >= exactBelow) {
    while (Math.abs(rest) >= step * 0.9995 && power < units.length - 1) {
      rest /= step;
      power += 1;
    }
  }
  const digits = power === 0 ? GROUPED.format(Math.round(rest)) : rest.toPrecision(3);
  return units[power] ? `${digits}${NO_BREAK}${units[power]}` : digits;
}

export function milliseconds(value) {
  if (value == null) return "unknown";
  return `${value >= 100 ? value.toFixed(0) : value.toPrecision(3)}${NO_BREAK}ms`;
}

/** 0.5899 → "59 %"; small shares keep a digit. */
export function percent(share) {
  const value = 100 * share;
  return `${Math.abs(value) < 10 ? Number(value.toFixed(1)) : Math.round(value)}${NO_BREAK}%`;
}

/** Change from one to the other, signed: "−41 %". */
export function change(before, after) {
  if (before == null || after == null || before === 0) return "";
  const share = after / before - 1;
  if (Math.abs(share) < 0.0005) return "±0" + NO_BREAK + "%";
  return (share < 0 ? "−" : "+") + percent(Math.abs(share));
}

/** Metrics that are shares of the samples. */
const isShareOfSamples = (name) => /^(accuracy|agreement|top_)/.test(name);

/** A metric's value: shares as percentages, losses as they are. */
export function metric(name, value) {
  if (value == null) return "unknown";
  if (isShareOfSamples(name)) return `${(100 * value).toFixed(2)}${NO_BREAK}%`;
  return value.toPrecision(4);
}

/** Change of a metric: points for shares, per cent for losses. */
export function metricChange(name, before, after) {
  if (before == null || after == null) return "";
  if (!isShareOfSamples(name)) return change(before, after);
  const points = 100 * (after - before);
  const sign = points < 0 ? "−" : points > 0 ? "+" : "±";
  return `${sign}${Math.abs(points).toFixed(2)} points`;
}

/** Whether a larger value of a report's metric is the better one. */
export function isGain({ name, higher_is_better: isHigherBetter }) {
  return isHigherBetter ?? isShareOfSamples(name);
}

export function seconds(value) {
  if (value < 1) return "less than a second";
  if (value < 90) return `${Math.round(value)}${NO_BREAK}s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes}${NO_BREAK}min ${Math.round(value % 60)}${NO_BREAK}s`;
  return `${Math.floor(minutes / 60)}${NO_BREAK}h ${minutes % 60}${NO_BREAK}min`;
}

const TIME = new Intl.DateTimeFormat("en-GB", { timeStyle: "short" });
const DAY_AND_TIME = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });

/** Today's times without their day. */
export function moment(iso) {
  const date = new Date(iso);
  const isToday = date.toDateString() === new Date().toDateString();
  return (isToday ? TIME : DAY_AND_TIME).format(date);
}

/** "max_macs_ratio" → "Max macs ratio" */
export function words(name) {
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function plural(number, noun) {
  return `${count(number)}${NO_BREAK}${noun}${number === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;
}
