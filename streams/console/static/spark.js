// Small drawings in SVG: a line without axes, an interval against its limit, shares of a whole.

import { h } from "./dom.js";

/** A line over time. `points` are [ms, value or null]; a null breaks the line.
 * `limit` is drawn across, and `band` are [ms, lower, upper]. */
export function spark(points, { from, to, limit = null, band = [], width = 96, height = 24, kind = "", label = "" }) {
  const values = points.map(([, v]) => v).filter((v) => v !== null && v !== undefined);
  const svg = h("svg", {
    viewBox: `0 0 ${width} ${height}`, class: `spark ${kind}`, preserveAspectRatio: "none", role: "img",
    "aria-label": label || (values.length ? `from ${values[0]} to ${values.at(-1)}` : "no data"),
  });
  if (!values.length) {
    svg.append(h("line", { x1: 0, x2: width, y1: height - 1.5, y2: height - 1.5, class: "spark-none" }));
    return svg;
  }
  const edges = [...values, ...band.flatMap(([, a, b]) => [a, b]).filter((v) => v !== null)];
  if (limit !== null) edges.push(limit);
  let [low, high] = [Math.min(...edges), Math.max(...edges)];
  if (high - low < 1e-12) [low, high] = [low - 0.5, high + 0.5];
  const x = (ms) => ((ms - from) / (to - from || 1)) * width;
  const y = (v) => height - 2 - ((v - low) / (high - low)) * (height - 4);
  const edge = band.filter(([, a, b]) => a !== null && b !== null);
  if (edge.length > 1) {
    const upper = edge.map(([ms, , b]) => `${x(ms).toFixed(1)},${y(b).toFixed(1)}`);
    const lower = edge.map(([ms, a]) => `${x(ms).toFixed(1)},${y(a).toFixed(1)}`).reverse();
    svg.append(h("polygon", { points: [...upper, ...lower].join(" "), class: "spark-band" }));
  }
  if (limit !== null) svg.append(h("line", { x1: 0, x2: width, y1: y(limit), y2: y(limit), class: "spark-limit" }));
  let run = [];
  const flush = () => {
    if (run.length === 1) svg.append(h("circle", { cx: run[0][0], cy: run[0][1], r: 1.5, class: "spark-dot" }));
    else if (run.length) svg.append(h("polyline", { points: run.map((p) => p.map((n) => n.toFixed(1)).join(",")).join(" "), class: "spark-line" }));
    run = [];
  };
  for (const [ms, v] of points) {
    if (v === null || v === undefined) flush();
    else run.push([x(ms), y(v)]);
  }
  flush();
  const last = points.filter(([, v]) => v !== null && v !== undefined).at(-1);
  svg.append(h("circle", { cx: Math.min(width - 2, x(last[0])), cy: y(last[1]), r: 2, class: "spark-dot" }));
  return svg;
}

/** Where a value and its bounds lie, and the limit that they are held against. */
export function interval({ value, lower, upper, limit }, label, width = 132) {
  const height = 20;
  const svg = h("svg", { viewBox: `0 0 ${width} ${height}`, class: "interval", role: "img", "aria-label": label });
  const known = [value, lower, upper, limit].filter((v) => v !== null && v !== undefined);
  if (value === null || value === undefined || !known.length) return svg;
  let [low, high] = [Math.min(...known), Math.max(...known)];
  // A small difference is drawn small: at least a fifth of the value is shown.
  const wide = Math.max(high - low, 0.2 * Math.max(Math.abs(high), Math.abs(low)), 1e-9);
  const middle_ = (low + high) / 2;
  [low, high] = [middle_ - wide * 0.62, middle_ + wide * 0.62];
  const x = (v) => 4 + ((v - low) / (high - low)) * (width - 8);
  const middle = height / 2;
  svg.append(h("line", { x1: 0, x2: width, y1: middle, y2: middle, class: "interval-axis" }));
  const bounded = (lower ?? upper ?? null) !== null;
  // A bound that is not known is open: the line goes on to the edge.
  if (bounded) svg.append(h("line", { x1: x(lower ?? low), x2: x(upper ?? high), y1: middle, y2: middle, class: "interval-range" }));
  for (const end of [lower, upper]) {
    if (end !== null && end !== undefined) svg.append(h("line", { x1: x(end), x2: x(end), y1: middle - 3.5, y2: middle + 3.5, class: "interval-end" }));
  }
  if (limit !== null && limit !== undefined) svg.append(h("line", { x1: x(limit), x2: x(limit), y1: 1, y2: height - 1, class: "interval-limit" }));
  svg.append(h("circle", { cx: x(value), cy: middle, r: 3.2, class: "interval-value" }));
  return svg;
}

/** Parts of a whole side by side: [[share, class], ...]. */
export function shares(parts, label) {
  const svg = h("svg", { viewBox: "0 0 100 6", class: "shares", preserveAspectRatio: "none", role: "img", "aria-label": label });
  let at = 0;
  for (const [share, kind] of parts) {
    const wide = Math.max(0, share) * 100;
    if (wide > 0) svg.append(h("rect", { x: at, y: 0, width: wide, height: 6, class: kind }));
    at += wide;
  }
  return svg;
}
