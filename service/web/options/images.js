// Settings for images in words: what is done to them until the network sees them.

const DEFAULTS = { channels: "rgb", layout: "NCHW", scale: 1 / 255, mean: [], std: [], interpolation: "bilinear" };
const ORDERS = { rgb: "red, green, blue", bgr: "blue, green, red", gray: "gray, one channel" };

/**
 * @param {object} settings as in bundle.json; what is missing has its default
 * @returns {[string, string][]} names and what they come to
 */
export function describeSettings(settings) {
  const all = { ...DEFAULTS, ...settings };
  return [
    ["Size", sizeIn(all)],
    ["Channels", `${ORDERS[all.channels] ?? all.channels}; ${all.layout}`],
    ["Values", valuesIn(all)],
    ...(all.classes ? [["Classes", all.classes.join(", ")]] : []),
  ];
}

function sizeIn({ resize, crop, interpolation }) {
  if (resize == null && crop == null) return "as they are";
  const how = interpolation === DEFAULTS.interpolation ? "" : ` (${interpolation})`;
  const resized = resize == null ? "" : Array.isArray(resize) ? `${sides(resize)}${how}` : `shorter side ${resize}${how}`;
  const cropped = crop == null ? "" : `the middle ${sides([crop].flat())}`;
  return [resized, cropped].filter(Boolean).join(", then ");
}

function sides([height, width = height]) {
  return `${height} × ${width}`;
}

function valuesIn({ scale, mean, std }) {
  const isUnit = Math.abs(scale - 1 / 255) < 1e-9;
  const range = isUnit ? "0 to 1" : scale === 1 ? "0 to 255" : `0 to 255, times ${Number(scale.toPrecision(4))}`;
  const less = mean?.length ? `less ${mean.join(", ")}` : "";
  const by = std?.length ? `by ${std.join(", ")}` : "";
  return [range, less, by].filter(Boolean).join("; ");
}
