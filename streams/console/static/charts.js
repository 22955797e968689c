// Line charts over the time range (uPlot), with what was decided and where drift began across them.

import { $ } from "./dom.js";
import { number, percent, seconds } from "./format.js";
import { covered } from "./tiles.js";
import uPlot from "./vendor/uPlot.esm.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const HEIGHT = 168;
const charts = new Map();
let onZoom = () => {};

export const zoomed = (callback) => {
  onZoom = callback;
};

const control = { stroke: "--blue", dash: [5, 3] };
const candidate = { stroke: "--green", width: 2 };
const ratio = (part, whole) => (whole ? part / whole : null);
const at = (t, name, i) => t[name]?.[i] ?? null;
const per = (name) => (t, i) => ratio(at(t, name, i) * 1000, at(t, "ms", i));
const plain = (name) => (t, i) => at(t, name, i);
const part = (name, ...whole) => (t, i) => ratio(at(t, name, i), whole.reduce((sum, n) => sum + (at(t, n, i) ?? 0), 0));

const SPECS = {
  "c-traffic": { format: (v) => number(v), series: [["blue", "control", per("prompts"), control], ["green", "candidate", per("prompts"), candidate]] },
  "c-latency": { format: seconds, series: [["blue p95", "control", plain("processing_seconds_p95"), control], ["green p95", "candidate", plain("processing_seconds_p95"), candidate],
    ["green p50", "candidate", plain("processing_seconds_p50"), { stroke: "--green", width: 1, dash: [2, 2] }]] },
  "c-errors": { format: percent, series: [["system", null, part("system_errors", "prompts", "system_errors"), { stroke: "--bad", width: 2 }],
    ["semantic", null, part("semantic_errors", "prompts"), { stroke: "--warn", width: 2 }],
    ["rejected", null, part("rejected", "prompts", "rejected"), { stroke: "--ink-3", dash: [2, 3] }]] },
  "c-scores": { format: (v) => number(v), series: [["rules", "candidate", plain("rules_score_mean"), control], ["score", "candidate", plain("score_mean"), candidate],
    ["relevance", "candidate", plain("relevance_mean"), { stroke: "--violet", width: 1.5 }], ["coherence", "candidate", plain("coherence_mean"), { stroke: "--ochre", width: 1.5, dash: [6, 2] }],
    ["satisfaction", null, plain("satisfaction_mean"), { stroke: "--ink-3", width: 1.5, points: true }]] },
};

const ADDED = new Set(["ms", "prompts", "rejected", "system_errors", "semantic_prompts", "semantic_errors", "cache_lookups", "cache_hits", "satisfaction_samples", "accuracy_samples"]);

/** The tables of history with the open window as their last point. */
function tables(history, windows) {
  const found = {};
  for (const [arm, table] of Object.entries(history?.windows ?? {})) found[arm] = Object.fromEntries(Object.entries(table).map(([k, v]) => [k, [...v]]));
  for (const [arm, window] of Object.entries(windows?.arms ?? {})) {
    if (!window) continue;
    const end = window.final ? window.end_ms : Math.min(window.end_ms, windows.status_at_ms ?? window.end_ms);
    const table = (found[arm] ??= { at_ms: [], ms: [] });
    if (end <= (table.at_ms.at(-1) ?? 0)) continue;
    const size = table.at_ms.length;
    for (const [name, value] of Object.entries({ ...window, at_ms: end, ms: covered(window, windows.status_at_ms) * 1000 })) {
      if (typeof value === "string" || typeof value === "boolean") continue;
      table[name] ??= new Array(size).fill(null);
      table[name].push(value);
    }
  }
  found.both = merged([found.control, found.candidate].filter(Boolean));
  return found;
}

/** Both arms as one: counts are added, means weighed by prompts. */
function merged(parts) {
  const rows = new Map();
  for (const table of parts) {
    table.at_ms.forEach((at, i) => {
      const row = rows.get(at) ?? { at_ms: at };
      for (const name of Object.keys(table)) {
        const value = table[name][i];
        if (name === "at_ms" || value === null || value === undefined) continue;
        if (ADDED.has(name)) row[name] = (row[name] ?? 0) + value;
        else row[name] ??= value;
      }
      rows.set(at, row);
    });
  }
  const sorted = [...rows.values()].sort((a, b) => a.at_ms - b.at_ms);
  const names = new Set(sorted.flatMap((row) => Object.keys(row)));
  return Object.fromEntries([...names].map((name) => [name, sorted.map((row) => row[name] ?? null)]));
}

export function showCharts({ history, windows }, span) {
  const found = tables(history, span.live ? windows : null);
  for (const [id, spec] of Object.entries(SPECS)) {
    const columns = spec.series.map(([, arm, pick]) => {
      const table = found[arm ?? "both"];
      if (!table?.at_ms?.length) return new Map();
      return new Map(table.at_ms.map((at, i) => [at, table.at_ms && pick(table, i)]).filter(([, v]) => v !== null && v !== undefined && Number.isFinite(v)));
    });
    const xs = [...new Set(columns.flatMap((c) => [...c.keys()]))].sort((a, b) => a - b);
    const data = [xs.map((ms) => ms / 1000), ...columns.map((c) => xs.map((ms) => c.get(ms) ?? null))];
    draw(id, spec, data, { span, markers: history?.markers ?? [], gap: stepOf(history) });
  }
}

const stepOf = (history) => (history ? Math.max(30e3, ((history.to_ms - history.from_ms) / 240) * 3) : 30e3);

function draw(id, spec, data, state) {
  const parent = $(id);
  let chart = charts.get(id);
  parent.classList.toggle("no-data", !data[0].length);
  parent.setAttribute("role", "img");
  parent.setAttribute("aria-label", summary(spec, data));
  if (!chart) {
    chart = { state };
    chart.plot = new uPlot(options(parent, spec, chart), data, parent);
    chart.observer = new ResizeObserver(() => chart.plot.setSize({ width: parent.clientWidth, height: HEIGHT }));
    chart.observer.observe(parent);
    chart.plot.over.addEventListener("mouseleave", () => setTimeout(() => charts.forEach((c) => settle(c.plot))));
    charts.set(id, chart);
    settle(chart.plot);
    return;
  }
  chart.state = state;
  chart.plot.setData(data);
  settle(chart.plot);
}

/** Without a pointer over it the legend shows the newest values. */
function settle(plot) {
  if (plot.cursor.idx === null || plot.cursor.left < 0) plot.setLegend({ idx: Math.max(0, plot.data[0].length - 1) }, false);
}

function summary(spec, data) {
  if (!data[0].length) return "no data in this time range";
  return spec.series.map(([name], i) => {
    const last = data[i + 1].filter((v) => v !== null).at(-1);
    return last === undefined ? null : `${name} ${spec.format(last)}`;
  }).filter(Boolean).join(", ");
}

function options(parent, spec, chart) {
  const ink = colour("--ink-3");
  const axis = { stroke: ink, grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return {
    width: parent.clientWidth || 300,
    height: HEIGHT,
    padding: [10, 18, 0, 0],
    cursor: { sync: { key: "time" }, drag: { x: true, y: false, setScale: false }, points: { size: 6 }, y: false },
    legend: { live: true, markers: { width: 0, fill: (_u, i) => (i ? colour(spec.series[i - 1][3].stroke) : null) } },
    scales: {
      x: { time: true, range: () => [chart.state.span.from / 1000, chart.state.span.to / 1000] },
      y: { range: (_u, low, high) => around(low, high) },
    },
    axes: [{ ...axis, size: 26, space: 70, values: times }, { ...axis, size: 58, values: (_u, splits) => splits.map((v) => spec.format(v)) }],
    series: [
      { label: "", value: (_u, v) => (v === null ? "" : new Date(v * 1000).toTimeString().slice(0, 8)) },
      ...spec.series.map(([label, , , look]) => ({
        label, stroke: colour(look.stroke), width: look.width ?? 1.5, dash: look.dash, points: { show: Boolean(look.points), size: 4 },
        value: (_u, v) => (v === null ? "–" : spec.format(v)),
        gaps: (u, i, from, to, gaps) => gapsOf(u, i, from, to, gaps, chart.state.gap), spanGaps: false,
      })),
    ],
    hooks: {
      draw: [(u) => drawMarkers(u, chart.state.markers)],
      setSelect: [(u) => {
        if (u.select.width < 6) return;
        const [from, to] = [u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")];
        u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        onZoom(from * 1000, to * 1000);
      }],
    },
  };
}

const two = (n) => String(n).padStart(2, "0");

/** Hours and minutes; the day where it changes. */
function times(_u, splits, _axis, _space, increment) {
  let day = "";
  return splits.map((s) => {
    const at = new Date(s * 1000);
    const date = `${two(at.getMonth() + 1)}-${two(at.getDate())}`;
    const text = `${two(at.getHours())}:${two(at.getMinutes())}${increment < 60 ? `:${two(at.getSeconds())}` : ""}`;
    const changed = day && day !== date;
    day = date;
    return increment >= 86400 ? date : changed ? `${date}\n${text}` : text;
  });
}

function around(low, high) {
  if (low === null || high === null || !Number.isFinite(low)) return [0, 1];
  const space = (high - low) * 0.12 || Math.abs(high) * 0.1 || 0.01;
  return [low >= 0 ? Math.max(0, low - space) : low - space, high + space];
}

/** Where so long nothing was measured that a line would be a guess. */
function gapsOf(u, series, from, to, gaps, gapMs) {
  const x = u.data[0];
  const y = u.data[series];
  const found = [];
  let last = null;
  for (let i = from; i <= to; i += 1) {
    if (y[i] === null || y[i] === undefined) continue;
    if (last !== null && (x[i] - x[last]) * 1000 > gapMs) found.push([u.valToPos(x[last], "x", true), u.valToPos(x[i], "x", true)]);
    last = i;
  }
  return found;
}

const MARKERS = { "drift.detected": "--warn", "drift.cleared": "--ink-3", "gate.breached": "--bad", "rollout.rolled_back": "--bad" };

/** Vertical lines: drift, breaches, and every change of the share. */
export function drawMarkers(u, markers) {
  const { ctx, bbox } = u;
  const scale = devicePixelRatio;
  ctx.save();
  for (const marker of markers) {
    const x = u.valToPos(marker.at_ms / 1000, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    const stroke = colour(MARKERS[marker.kind] ?? "--ink-3");
    ctx.strokeStyle = ctx.fillStyle = stroke;
    ctx.lineWidth = scale;
    ctx.setLineDash(marker.kind.startsWith("drift") ? [3 * scale, 3 * scale] : []);
    ctx.globalAlpha = 0.55;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.globalAlpha = 1;
    sign(ctx, marker.kind, x, bbox.top, scale);
  }
  ctx.restore();
}

/** A shape at the top of a marker, since colour alone says nothing to some. */
function sign(ctx, kind, x, top, scale) {
  const r = 3.5 * scale;
  ctx.beginPath();
  if (kind.startsWith("drift")) {
    ctx.moveTo(x, top - r);
    ctx.lineTo(x + r, top);
    ctx.lineTo(x, top + r);
    ctx.lineTo(x - r, top);
  } else if (kind === "gate.breached" || kind === "rollout.rolled_back") {
    ctx.moveTo(x - r, top - r);
    ctx.lineTo(x + r, top - r);
    ctx.lineTo(x, top + r);
  } else {
    ctx.arc(x, top, r * 0.8, 0, 2 * Math.PI);
  }
  ctx.fill();
}

/** Draws everything anew, in the colours of another theme. */
export function recolour() {
  for (const [id, chart] of charts) {
    chart.observer.disconnect();
    chart.plot.destroy();
    charts.delete(id);
  }
}
