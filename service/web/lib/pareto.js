// Which results are worth having: those that no other beats in both cost and metric.

/**
 * @param {{x: number, y: number}[]} points `x` is a cost: less is better
 * @param {boolean} isGain whether more of `y` is better
 * @returns {{x: number, y: number}[]} the front, from the cheapest on
 */
export function front(points, isGain) {
  const better = isGain ? (a, b) => a > b : (a, b) => a < b;
  const sorted = [...points].sort((a, b) => a.x - b.x || (better(a.y, b.y) ? -1 : 1));
  const kept = [];
  for (const point of sorted) {
    if (kept.length === 0 || better(point.y, kept.at(-1).y)) kept.push(point);
  }
  return kept;
}

/** The point nearest to a place, by distance in pixels. */
export function nearest(points, place, toPixels) {
  let best = null;
  let least = Infinity;
  for (const point of points) {
    const { x, y } = toPixels(point);
    const distance = Math.hypot(x - place.x, y - place.y);
    if (distance < least) [best, least] = [point, distance];
  }
  return best;
}
