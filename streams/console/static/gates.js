// Every gate in a line, and what the enhancement adds.

import { $, code, empty, h, icon, show } from "./dom.js";
import { ago, count, dash, inUnit, number, percent, signedPercent, visible } from "./format.js";
import { interval, shares, spark } from "./spark.js";

const VERDICTS = {
  successful: ["ok", "ok", "certified"],
  inconclusive: ["open", "open", "watching"],
  error: ["warn", "warn", "cannot judge"],
  failed: ["bad", "bad", "broken"],
};
const ORDER = { failed: 0, error: 1, inconclusive: 2, successful: 3 };
// What has no data yet goes last: there is nothing to read.
const order = (gate) => (gate.value === null && gate.verdict === "inconclusive" ? 4 : ORDER[gate.verdict]);

export function showGates(section, history, span, nowMs) {
  const gates = section?.gates ?? [];
  const broken = gates.filter((g) => g.verdict === "failed").length;
  const certified = gates.filter((g) => g.verdict === "successful").length;
  show($("gates-note"), !gates.length ? ""
    : section.over ? `as they stood when it ended, ${ago(section.at_ms, nowMs)}`
      : `${certified} certified, ${broken} broken, ${gates.length} in all · ${ago(section.at_ms, nowMs)}`);
  $("gates").classList.toggle("over", Boolean(section?.over));
  if (!gates.length) {
    show($("gates"), empty("No gate is watched, since nothing is being rolled out. ", code("driftgate rollout start"), " begins a rollout with the gates of its policy."));
    return;
  }
  const sorted = [...gates].sort((a, b) => order(a) - order(b));
  show($("gates"),
    h("table", { class: "grid gates-table" },
      h("thead", {}, h("tr", {}, ["Gate", "Value", "Limit", "Interval", "Rows", "Trend", "Verdict"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", {}, sorted.map((gate) => row(gate, history?.gates?.[gate.gate], span)))));
}

// Gates whose reason was opened or closed by hand; one that is broken says why by itself.
const chosen = new Map();
const isOpen = (gate) => chosen.get(gate.gate) ?? (gate.verdict === "failed" || gate.verdict === "error");

export function toggleReason(button) {
  chosen.set(button.dataset.gate, button.getAttribute("aria-expanded") !== "true");
}

function row(gate, past, span) {
  const [level, sign, word] = VERDICTS[gate.verdict];
  const show_ = (v) => inUnit(v, gate.unit);
  const bounds = gate.lower === null && gate.upper === null ? "" : `${show_(gate.lower)} to ${show_(gate.upper)}`;
  const points = past ? past.at_ms.map((at, i) => [at, past.value[i]]) : [];
  const band = past ? past.at_ms.map((at, i) => [at, past.lower[i], past.upper[i]]) : [];
  const open = isOpen(gate);
  const id = `why-${gate.gate}`;
  return [
    h("tr", { "data-key": gate.gate, class: gate.verdict },
      h("th", { scope: "row" },
        h("button", { type: "button", class: "disclose", "data-action": "why", "data-gate": gate.gate, "aria-expanded": String(open), "aria-controls": id },
          h("span", { class: "gate-name" }, gate.gate), " ", h("span", { class: "gate-what" }, what(gate)))),
      cell("Value", [show_(gate.value), gate.unit === "share above" && h("span", { class: "muted" }, " above")], "num"),
      cell("Limit", show_(gate.limit), "num muted"),
      cell("Interval", [interval(gate, `${show_(gate.value)}, ${bounds || "no bounds"}, limit ${show_(gate.limit)}`), h("span", { class: "bounds" }, bounds)], "wide"),
      cell("Rows", [count(gate.samples), gate.control_samples > 0 && h("span", { class: "muted" }, ` / ${count(gate.control_samples)}`)], "num"),
      cell("Trend", spark(points, { ...span, limit: gate.limit, band, label: `trend of ${gate.gate}` }), "trend"),
      cell("Verdict", h("span", { class: `chip ${level}` }, icon(sign), word), "verdict-cell")),
    open && h("tr", { "data-key": id, id, class: `why-row ${gate.verdict}` },
      h("td", { colspan: 7 }, h("p", { class: "reason" }, visible(gate.reason)),
        h("p", { class: "muted small" }, `${gate.metric.replaceAll("_", " ")}; ${role(gate)}`, bounds && `; between ${bounds}`),
        gate.evidence !== null && gate.boundary !== null && h("p", { class: "evidence" },
          shares([[Math.max(0, Math.min(1, gate.evidence / gate.boundary)), gate.verdict === "successful" ? "meter-good" : "meter-fill"]], ""),
          h("span", { class: "muted small" }, `evidence ${gate.verdict === "successful" ? "that it holds" : "of a breach"}: ${number(gate.evidence)} of ${number(gate.boundary)} that certify it`)))),
  ];
}

/** The objective with its statistic and what it is relative to, where the reason has them; the metric
 * stands in the reason, and mostly in the name. */
function what(gate) {
  const subject = gate.reason.startsWith(`${gate.metric} `) ? gate.reason.split(":")[0].slice(gate.metric.length + 1) : gate.objective;
  return (subject.length < 48 ? subject : gate.objective).replaceAll("<=", "≤").replaceAll(">=", "≥").replace("candidate share of users =", "share of users");
}

function role(gate) {
  if (gate.dry_run) return "dry run: reports, and never acts";
  return { guardrail: "guardrail: a breach rolls back", signal: "signal: a breach pauses", promotion: "promotion: must be certified to advance" }[gate.role] ?? gate.role;
}

const cell = (name, content, kind) => h("td", { "data-label": name, class: kind }, content);

/** What the semantic half adds to the rules score of the same prompts. */
export function showImpact(section) {
  const found = section?.before_after;
  if (!found) {
    show($("impact"), empty("Shown while a rollout with a gate on the score ", code("against: rules"), " is judged."));
    return;
  }
  const [level, sign, word] = VERDICTS[found.verdict];
  const bounds = found.lower === null ? null : `${signedPercent(found.lower)} to ${signedPercent(found.upper)}`;
  show($("impact"),
    h("div", { class: "impact" },
      h("div", { class: "impact-gain" }, found.gain === null ? dash : signedPercent(found.gain), h("span", { class: `chip ${level}` }, icon(sign), word)),
      h("div", { class: "impact-bounds" }, bounds ? `confidence interval ${bounds}` : "no interval yet"),
      interval({ value: found.gain, lower: found.lower, upper: found.upper, limit: found.wanted }, `gain ${signedPercent(found.gain)}, interval ${bounds ?? "none"}, wanted ${signedPercent(found.wanted)}`, 280),
      h("dl", { class: "facts" },
        h("div", {}, h("dt", {}, "Before (rules)"), h("dd", {}, number(found.rules_score))),
        h("div", {}, h("dt", {}, "After (blend)"), h("dd", {}, number(found.score))),
        h("div", {}, h("dt", {}, "Wanted"), h("dd", {}, `at least ${signedPercent(found.wanted)}`)),
        h("div", {}, h("dt", {}, "Prompts"), h("dd", {}, count(found.samples)))),
      h("p", { class: "muted small" }, `Gate ${found.gate}. The gain is the gate's value over the mean rules score of the newest window (${percent(found.wanted)} is its objective).`)));
}
