// How scores are spread over time: each column is a step of time, each cell a twentieth of [0, 1].

import { $, h, show } from "./dom.js";
import { clock, number, percent } from "./format.js";

const HEIGHT = 168;
const LEFT = 34;
const BOTTOM = 20;
const TOP = 8;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const observed = new Set();
let last = null;

export function showHeat(history, span) {
  last = { history, span };
  for (const name of ["relevance", "coherence"]) {
    const parent = $(`c-${name}`);
    if (!observed.has(name)) {
      observed.add(name);
      new ResizeObserver(() => draw(name)).observe(parent);
    }
    draw(name);
  }
}

export const redrawHeat = () => {
  if (last) showHeat(last.history, last.span);
};

function draw(name) {
  const { history, span } = last;
  const parent = $(`c-${name}`);
  const columns = history?.scores?.columns ?? [];
  parent.classList.toggle("no-data", !columns.length);
  let canvas = parent.querySelector("canvas");
  if (!canvas) {
    canvas = h("canvas", { role: "img" });
    show(parent, canvas, h("div", { class: "heat-foot" }));
    canvas.addEventListener("mousemove", (event) => point(name, event));
    canvas.addEventListener("mouseleave", () => foot(name));
  }
  const width = Math.max(120, parent.clientWidth);
  const scale = devicePixelRatio;
  canvas.width = width * scale;
  canvas.height = HEIGHT * scale;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${HEIGHT}px`;
  const ctx = canvas.getContext("2d");
  ctx.scale(scale, scale);
  paint(ctx, name, columns, history, span, width);
  canvas.setAttribute("aria-label", summary(name, columns));
  foot(name);
}

const place = (ms, span, width) => LEFT + ((ms - span.from) / (span.to - span.from)) * (width - LEFT - 8);

function paint(ctx, name, columns, history, span, width) {
  const tall = HEIGHT - TOP - BOTTOM;
  ctx.font = "11px system-ui, sans-serif";
  ctx.fillStyle = colour("--ink-3");
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  for (const value of [0, 0.5, 1]) ctx.fillText(String(value), LEFT - 6, TOP + tall * (1 - value));
  ctx.fillStyle = colour("--heat-empty");
  ctx.fillRect(LEFT, TOP, width - LEFT - 8, tall);
  ctx.fillStyle = colour("--heat");
  for (const column of columns) {
    const x0 = Math.max(LEFT, place(column.at_ms, span, width));
    const x1 = Math.min(width - 8, place(column.at_ms + history.scores.step_ms, span, width));
    const bins = column[name];
    column.rows && bins.forEach((n, i) => {
      if (!n || x1 <= x0) return;
      // Square roots, so that a few prompts far off are seen beside the many.
      ctx.globalAlpha = Math.min(1, 0.08 + 0.92 * Math.sqrt(n / column.rows / 0.5));
      const y = TOP + tall * (1 - (i + 1) / bins.length);
      ctx.fillRect(x0, y, Math.max(1, x1 - x0 - 0.5), tall / bins.length - 0.5);
    });
  }
  ctx.globalAlpha = 1;
  ctx.fillStyle = colour("--ink-3");
  ctx.textBaseline = "top";
  for (let i = 0; i <= 2; i += 1) {
    const at = span.from + ((span.to - span.from) * i) / 2;
    ctx.textAlign = i === 0 ? "left" : i === 2 ? "right" : "center";
    ctx.fillText(clock(at, span.to).slice(0, -3), place(at, span, width), HEIGHT - BOTTOM + 5);
  }
  for (const marker of history?.markers ?? []) {
    if (!marker.kind.startsWith("drift")) continue;
    const x = place(marker.at_ms, span, width);
    if (x < LEFT || x > width - 8) continue;
    ctx.strokeStyle = ctx.fillStyle = colour(marker.kind === "drift.detected" ? "--warn" : "--ink-3");
    ctx.setLineDash([3, 3]);
    ctx.beginPath();
    ctx.moveTo(x, TOP);
    ctx.lineTo(x, TOP + tall);
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.beginPath();
    ctx.moveTo(x, TOP - 4);
    ctx.lineTo(x + 4, TOP);
    ctx.lineTo(x, TOP + 4);
    ctx.lineTo(x - 4, TOP);
    ctx.fill();
  }
}

function spread(bins) {
  const all = bins.reduce((a, b) => a + b, 0);
  if (!all) return null;
  const at = (q) => {
    let seen = 0;
    for (let i = 0; i < bins.length; i += 1) {
      seen += bins[i];
      if (seen >= q * all) return (i + 0.5) / bins.length;
    }
    return 1;
  };
  return { all, low: at(0.1), middle: at(0.5), high: at(0.9), weak: bins.slice(0, Math.round(bins.length * 0.5)).reduce((a, b) => a + b, 0) / all };
}

function total(name, columns) {
  return columns.reduce((sum, c) => c[name].map((n, i) => n + (sum[i] ?? 0)), []);
}

function summary(name, columns) {
  const found = spread(total(name, columns));
  return found ? `${name}: median ${number(found.middle, 2)}, 10 to 90 % between ${number(found.low, 2)} and ${number(found.high, 2)}` : "no data in this time range";
}

function foot(name, column = null) {
  const columns = last.history?.scores?.columns ?? [];
  const found = spread(column ? column[name] : total(name, columns));
  const parent = $(`c-${name}`).querySelector(".heat-foot");
  if (!parent) return;
  show(parent, found ? [h("span", {}, column ? clock(column.at_ms, last.span.to) : "whole range"), h("span", {}, `median ${number(found.middle, 2)}`),
    h("span", {}, `80 % in ${number(found.low, 2)}–${number(found.high, 2)}`), h("span", {}, `below 0.5: ${percent(found.weak)}`)] : "");
}

function point(name, event) {
  const { history, span } = last;
  const width = event.target.clientWidth;
  const ms = span.from + ((event.offsetX - LEFT) / (width - LEFT - 8)) * (span.to - span.from);
  const step = history?.scores?.step_ms ?? 0;
  foot(name, (history?.scores?.columns ?? []).find((c) => c.at_ms <= ms && ms < c.at_ms + step) ?? null);
}
