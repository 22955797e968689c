// Rate, errors, duration, and what else an on-call engineer looks at first.

import { $, h, show } from "./dom.js";
import { count, dash, duration, number, percent, seconds } from "./format.js";
import { spark } from "./spark.js";

const sum = (a, b) => (a ?? 0) + (b ?? 0);

/** How long a window has been filling, in seconds. */
export function covered(window, statusAtMs) {
  const end = window.final || !statusAtMs ? window.end_ms : Math.min(window.end_ms, statusAtMs);
  return Math.max(1, (end - window.start_ms) / 1000);
}

export function showTiles({ windows, history, workers, service }, span) {
  const arms = windows?.arms ?? {};
  const { control, candidate } = arms;
  const at = windows?.status_at_ms;
  const rate = (w) => (w ? w.prompts / covered(w, at) : null);
  const total = sum(control?.prompts, candidate?.prompts);
  const system = sum(control?.system_errors, candidate?.system_errors);
  const semantic = sum(control?.semantic_errors, candidate?.semantic_errors);
  const errors = total + system ? (system + semantic) / (total + system) : null;
  const shown = candidate ?? control;
  const lookups = sum(control?.cache_lookups, candidate?.cache_lookups);
  const hits = sum(control?.cache_hits, candidate?.cache_hits);
  const reliability = history?.reliability;
  const quality = candidate?.relevance_mean != null ? candidate : control;
  const satisfied = sum(control?.satisfaction_samples, candidate?.satisfaction_samples);
  const any = Boolean(control || candidate);
  const names = { control: service?.rollout?.blue.name ?? "blue", candidate: service?.rollout?.green?.name ?? "green" };
  const line = (pick, label) => spark(series(history, pick), { ...span, label, width: 160, height: 28 });

  show($("tiles"),
    tile("Traffic", any ? number(sum(rate(control), rate(candidate))) : dash, "prompts/s",
      any ? [arm("control", names, number(rate(control))), candidate && arm("candidate", names, number(rate(candidate))),
        h("span", {}, `${count(sum(control?.rejected, candidate?.rejected))} rejected`)] : ["no prompts yet"],
      line((h_, i) => (h_.ms[i] ? (h_.prompts[i] / h_.ms[i]) * 1000 : null), "traffic over time")),
    tile("Errors", percent(errors), "", any ? [h("span", {}, `${count(system)} system`), h("span", {}, `${count(semantic)} semantic`)] : [],
      line((h_, i) => ratio(h_.system_errors[i] + h_.semantic_errors[i], h_.prompts[i]), "errors over time"), errors !== null && errors > 0.01 ? "bad" : ""),
    tile("Duration p95", seconds(shown?.processing_seconds_p95), "",
      any ? [candidate && arm("control", names, seconds(control?.processing_seconds_p95)), h("span", {}, `p50 ${seconds(shown?.processing_seconds_p50)}`), h("span", {}, `p99 ${seconds(shown?.processing_seconds_p99)}`)] : [],
      spark(armSeries(history, candidate ? "candidate" : "control", "processing_seconds_p95"), { ...span, label: "p95 over time", width: 160, height: 28 }),
      shown?.processing_seconds_p95 > 0.5 ? "bad" : ""),
    tile("Availability", percent(reliability?.availability), "",
      reliability?.availability != null ? [h("span", {}, `objective ${percent(reliability.objective)}`),
        h("span", {}, `${percent(reliability.fallback_share)} fell back`),
        reliability.rollbacks > 0 && h("span", {}, `${reliability.rollbacks} rollback${reliability.rollbacks > 1 ? "s" : ""}${reliability.recovery_ms !== null ? `, recovered in ${duration(reliability.recovery_ms)}` : ""}`)] : ["of the range, once a window is over"],
      line((h_, i) => ratio(h_.semantic_errors[i], h_.semantic_prompts[i] + h_.semantic_errors[i]), "fallbacks over time"),
      reliability?.availability != null && reliability.availability < reliability.objective ? "bad" : ""),
    tile("Cache hits", lookups ? percent(hits / lookups) : percent(workers?.cache.hit_rate), "",
      [h("span", {}, `${count(workers?.cache.entries ?? 0)} vectors`), workers?.cache.shared !== "off" && workers && h("span", {}, `shared: ${workers.cache.shared}`)],
      line((h_, i) => ratio(h_.cache_hits[i], h_.cache_lookups[i]), "hit rate over time")),
    satisfied
      ? tile("Satisfaction", percent(mean(control, candidate, "satisfaction")), "", [h("span", {}, `${count(satisfied)} ratings`), h("span", {}, `accuracy ${percent(mean(control, candidate, "accuracy"))}`)],
        line((h_, i) => h_.satisfaction_mean[i], "satisfaction over time"))
      : tile("Relevance", number(quality?.relevance_mean), "", [h("span", {}, `coherence ${number(quality?.coherence_mean)}`)],
        spark(armSeries(history, candidate ? "candidate" : "control", "relevance_mean"), { ...span, label: "relevance over time", width: 160, height: 28 })));
}

function tile(name, value, unit, notes, drawing, level = "") {
  return h("div", { class: `tile ${level}`, "data-key": name },
    h("div", { class: "tile-name" }, name),
    h("div", { class: "tile-value" }, value, unit && h("span", { class: "tile-unit" }, unit)),
    h("div", { class: "tile-notes" }, notes),
    drawing);
}

const arm = (name, names, text) => h("span", { class: `arm ${name}` }, `${names[name]} ${text}`);
const ratio = (part, whole) => (whole ? part / whole : null);

function mean(a, b, metric) {
  const [n, m] = [a?.[`${metric}_samples`] ?? 0, b?.[`${metric}_samples`] ?? 0];
  if (!(n + m)) return null;
  return ((a?.[`${metric}_mean`] ?? 0) * n + (b?.[`${metric}_mean`] ?? 0) * m) / (n + m);
}

/** A number of both arms together, over time. */
function series(history, pick) {
  const merged = new Map();
  for (const table of Object.values(history?.windows ?? {})) {
    table.at_ms.forEach((at, i) => {
      const known = merged.get(at);
      if (!known) merged.set(at, Object.fromEntries(Object.entries(table).map(([k, v]) => [k, v[i]])));
      else for (const [k, v] of Object.entries(table)) if (k !== "at_ms" && k !== "ms" && !k.endsWith("_mean") && !k.includes("_p")) known[k] = sum(known[k], v[i]);
    });
  }
  return [...merged.entries()].sort(([a], [b]) => a - b).map(([at, row]) => {
    const columns = Object.fromEntries(Object.entries(row).map(([k, v]) => [k, [v]]));
    return [at, pick(columns, 0)];
  });
}

function armSeries(history, arm_, name) {
  const table = history?.windows?.[arm_];
  return table ? table.at_ms.map((at, i) => [at, table[name][i]]) : [];
}
