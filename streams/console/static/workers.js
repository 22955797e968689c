// The analyzers, what they could take, and how their caches do.

import { $, code, empty, h, icon, show } from "./dom.js";
import { bytes, count, dash, duration, number, percent } from "./format.js";
import { shares, spark } from "./spark.js";

function state(worker) {
  if (worker.leaving) return ["open", "open", "left"];
  if (!worker.live) return ["bad", "bad", "silent"];
  if (worker.fenced) return ["bad", "bad", "fenced"];
  if (worker.behind) return ["warn", "warn", "behind"];
  if (worker.model === "unavailable") return ["bad", "bad", "no model"];
  if (worker.model === "loading") return ["open", "open", "loading"];
  return ["ok", "ok", "live"];
}

export function showWorkers(section, history, span, nowMs) {
  const workers = section?.workers ?? [];
  show($("workers-note"), workers.length ? `${section.capacity.live} live of ${workers.length}` : "");
  if (!workers.length) {
    show($("workers"), empty("No analyzer has been heard of. Start one: ", code("driftgate analyzer --worker-id analyzer-1"), "."));
    return;
  }
  const head = ["Worker", "State", "CPU", "Memory", "Prompts/s", "Waiting", "Up", "Runs"];
  show($("workers"), h("table", { class: "grid workers-table" },
    h("thead", {}, h("tr", {}, head.map((t) => h("th", { scope: "col" }, t)))),
    h("tbody", {}, workers.map((w) => {
      const [sign, level, word] = state(w);
      const past = history?.workers?.[w.worker];
      const points = past ? past.at_ms.map((at, i) => [at, past.rss_bytes[i]]) : [];
      return h("tr", { "data-key": w.worker },
        h("th", { scope: "row", class: "mono" }, w.worker),
        cell("State", [h("span", { class: `chip ${level}` }, icon(sign), word), !w.live && !w.leaving && h("span", { class: "muted" }, ` for ${duration(nowMs - w.seen_ms)}`)]),
        cell("CPU", [h("span", { class: "meter" }, shares([[Math.min(1, w.cpu_share ?? 0), w.cpu_share > 0.9 ? "meter-high" : "meter-fill"]], "")), w.cpu_share === null ? dash : percent(w.cpu_share, 0)], "num"),
        cell("Memory", [spark(points, { ...span, width: 56, height: 18, label: `memory of ${w.worker}` }), bytes(w.rss_bytes)], "num"),
        cell("Prompts/s", w.prompts_per_s === null ? dash : number(w.prompts_per_s), "num"),
        cell("Waiting", count(w.lag_messages), "num"),
        cell("Up", [duration(nowMs - w.since_ms), w.restarts > 0 && h("span", { class: "muted" }, ` (${w.restarts} restart${w.restarts > 1 ? "s" : ""})`)], "num"),
        cell("Runs", [h("span", {}, w.encoder || dash), h("span", { class: "muted" }, ` r${w.applied_revision}`)]));
    }))));
}

const cell = (name, content, kind = "") => h("td", { "data-label": name, class: kind }, content);

export function showCapacity(section, history) {
  const { capacity, cache } = section ?? {};
  if (!capacity?.live && !section?.workers?.length) {
    show($("capacity"), empty("Known once an analyzer works."));
    return;
  }
  const used = capacity.ceiling_per_s ? capacity.prompts_per_s / capacity.ceiling_per_s : null;
  const time = timeShare(history);
  const advice = [...capacity.advice, ...cache.advice];
  show($("capacity"),
    used !== null && h("div", { class: "load" },
      h("div", { class: "load-text" }, h("strong", {}, percent(used, 0)), ` of about ${number(capacity.ceiling_per_s)} prompts/s that ${capacity.live} worker${capacity.live === 1 ? "" : "s"} could take`),
      shares([[Math.min(1, used), used > 0.7 ? "meter-high" : "meter-fill"]], `load ${percent(used, 0)}`)),
    h("dl", { class: "facts" },
      fact("Efficiency", capacity.prompts_per_cpu_s === null ? dash : `${number(capacity.prompts_per_cpu_s)} prompts a CPU second`),
      fact("Waiting", `${count(capacity.lag_messages)} prompts`),
      fact("Memory", bytes(capacity.rss_bytes)),
      time !== null && fact("Embedding", `${percent(time, 0)} of the time`),
      fact("Hits of blue", percent(cache.control_hit_rate)),
      fact("Hits of green", percent(cache.candidate_hit_rate)),
      fact("Evicted", count(cache.evictions)),
      cache.shared !== "off" && fact("Shared cache", `${cache.shared.replace("_", " ")}, ${percent(cache.shared_hit_rate)}`)),
    h("ul", { class: "advice" }, advice.length ? advice.map((text) => h("li", {}, text)) : h("li", { class: "muted" }, "Nothing to advise.")));
}

const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

function timeShare(history) {
  const columns = history?.scores?.columns ?? [];
  const all = columns.reduce((s, c) => s + c.processing, 0);
  return all > 0 ? Math.min(1, columns.reduce((s, c) => s + c.embed, 0) / all) : null;
}
