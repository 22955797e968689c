// Alerts, rollouts, decisions and worst cases.

import { $, code, empty, h, icon, show } from "./dom.js";
import { ago, clock, duration, number, percent, visible } from "./format.js";
import { steps, title } from "./verdict.js";

export function showAlerts(section, role, nowMs, linked) {
  const open = section?.open ?? [];
  const critical = open.filter((a) => a.severity === "critical").length;
  show($("alerts-note"), open.length ? `${open.length} open${critical ? `, ${critical} critical` : ""}` : "");
  const over = section?.resolved ?? [];
  show($("alerts"),
    open.length ? h("ul", { class: "list" }, open.map((alert) => alertItem(alert, role, nowMs, linked)))
      : empty(icon("ok"), " No alert is open. ", code("driftgate notifier"), " brings new ones to people."),
    over.length > 0 && h("details", { class: "over", "data-key": "over" }, h("summary", {}, `${over.length} resolved`),
      h("ul", { class: "list" }, over.map((alert) => h("li", { "data-key": alert.id, class: "muted" },
        h("span", { class: "when" }, clock(alert.at_ms, nowMs)), " ", h("span", { class: "mono" }, visible(alert.key)), " ", visible(alert.summary))))));
}

function alertItem(alert, role, nowMs, linked) {
  const acknowledged = alert.status === "acknowledged";
  const state = acknowledged ? `acknowledged by ${alert.actor ?? "somebody"}`
    : alert.escalation > 0 ? `escalated ${alert.escalation === 1 ? "once" : `${alert.escalation} times`}, nobody has acknowledged it`
      : "nobody has acknowledged it yet";
  return h("li", { "data-key": alert.key, class: `alert ${alert.severity}` },
    h("div", { class: "alert-head" },
      h("span", { class: `chip ${alert.severity === "critical" ? "bad" : "warn"}` }, icon(alert.severity === "critical" ? "bad" : "warn"), alert.severity),
      h("span", { class: "mono" }, visible(alert.key)),
      h("span", { class: "when", title: clock(alert.since_ms) }, duration(nowMs - alert.since_ms))),
    h("p", {}, visible(alert.summary)),
    alert.cure && h("p", { class: "muted" }, "What to do: ", visible(alert.cure)),
    h("div", { class: "alert-foot" }, h("span", { class: acknowledged ? "muted" : "state" }, state),
      role === "operator" && !acknowledged && h("button", { type: "button", class: "small", "data-action": "acknowledge", "data-alert": alert.key, "data-key": `ack-${alert.key}`, disabled: !linked }, "Acknowledge")));
}

const PHASES = {
  progressing: ["up", "open", "rolling out"], paused: ["pause", "warn", "paused"], promoted: ["ok", "ok", "promoted"],
  rolled_back: ["back", "bad", "rolled back"], idle: ["open", "open", "idle"],
};

export function showRollouts(service, history, nowMs) {
  const known = new Map();
  for (const line of [...(history?.rollouts ?? []), ...(service?.rollouts ?? [])]) known.set(`${line.service}/${line.rollout_id}`, line);
  const lines = [...known.values()].sort((a, b) => b.started_ms - a.started_ms).slice(0, 20);
  const services = new Set(lines.map((line) => line.service));
  show($("rollouts-note"), lines.length ? `${lines.length} of ${services.size === 1 ? "1 service" : `${services.size} services`}` : "");
  if (!lines.length) {
    show($("rollouts"), empty("No rollout yet. ", code("driftgate rollout start --reason \"…\""), " begins one in shadow."));
    return;
  }
  show($("rollouts"), h("ul", { class: "list rollouts" }, lines.map((line) => {
    const [sign, level, word] = PHASES[line.phase] ?? PHASES.idle;
    const end = line.ended_ms ?? nowMs;
    return h("li", { "data-key": `${line.service}/${line.rollout_id}` },
      h("div", { class: "rollout-head" },
        h("span", { class: `chip ${level}` }, icon(sign), word),
        services.size > 1 && h("button", { type: "button", class: "link-button", "data-action": "service", "data-service": line.service }, line.service),
        h("span", { class: "rollout-what" }, `${line.green ?? "green"} over ${line.blue ?? "blue"}`, line.mode === "experiment" && " (experiment)", line.rehearsal && " (rehearsal)"),
        h("span", { class: "steps" }, steps(line))),
      h("div", { class: "muted when", title: `${clock(line.started_ms)}, ${line.rollout_id}` }, `${ago(line.started_ms, nowMs)} by ${line.actor || "unknown"}, ${line.ended_ms ? "took" : "for"} ${duration(end - line.started_ms)}`),
      h("div", { class: "muted why" }, visible(line.reason)));
  })));
}

const SIGNS = [["rolled_back", "back", "bad"], ["breached", "bad", "bad"], ["rejected", "warn", "warn"], ["paused", "pause", "warn"],
  ["drift.detected", "drift", "warn"], ["advanced", "up", "ok"], ["promoted", "ok", "ok"], ["confirmed", "ok", "ok"], ["recovered", "ok", "ok"]];

export function showDecisions(section, history, span, nowMs) {
  const known = new Map();
  for (const decision of [...(section?.decisions ?? []), ...(history?.decisions ?? [])]) {
    if (decision.at_ms >= span.from && (span.live || decision.at_ms < span.to)) known.set(decision.id, decision);
  }
  const decisions = [...known.values()].sort((a, b) => b.at_ms - a.at_ms).slice(0, 100);
  if (!decisions.length) {
    show($("decisions"), empty("Nothing was decided in this time range."));
    return;
  }
  show($("decisions"), h("ol", { class: "list decisions" }, decisions.map((d) => {
    const [, sign, level] = SIGNS.find(([part]) => d.type.includes(part)) ?? [null, "open", "open"];
    return h("li", { "data-key": d.id },
      h("span", { class: `stamp small ${level}` }, icon(sign)),
      h("div", {},
        h("strong", {}, title(d)), " ", h("time", { class: "muted when", datetime: new Date(d.at_ms).toISOString(), title: ago(d.at_ms, nowMs) }, clock(d.at_ms, nowMs)),
        h("p", { class: "why" }, visible(d.reason)),
        h("p", { class: "muted small" }, icon("person"), d.actor === "driftgate" ? "decided by its gates" : `asked for by ${d.actor}`, " · ",
          h("span", { class: "mono", title: "why, with a plot: driftgate rollout explain ID" }, d.id.slice(0, 12)), " · ",
          h("span", { class: "mono" }, `log ${d.cause.partition}/${d.cause.offset}`))));
  })));
}

const REASONS = { disagreement: "disagreement", drift: "drift", fallback: "fallback", low_relevance: "low relevance", negative_feedback: "negative feedback" };

export function showCases(section, span, nowMs) {
  const cases = (section?.cases ?? []).filter((c) => c.curated_ms >= span.from && (span.live || c.curated_ms < span.to));
  if (!cases.length) {
    show($("cases"), empty("No case in this time range. ", code("driftgate curator"), " collects prompts with low relevance, fallbacks, disagreement or bad feedback."));
    return;
  }
  show($("cases"), h("ul", { class: "list cases" }, cases.map((c) => h("li", { "data-key": c.id },
    h("div", { class: "case-head" },
      c.reasons.map((reason) => h("span", { class: "chip warn" }, REASONS[reason] ?? reason)),
      h("span", { class: `arm ${c.arm}` }, c.deployment), c.domain && h("span", {}, visible(c.domain)),
      h("span", { class: "muted" }, `score ${number(c.score)}, rules ${number(c.rules_score)}`, c.relevance !== null && `, relevance ${number(c.relevance)}`, c.coherence !== null && `, coherence ${number(c.coherence)}`),
      c.feedback && h("span", {}, `${c.feedback.kind.replace("_", " ")} ${percent(c.feedback.value, 0)}`),
      h("span", { class: "muted when", title: clock(c.curated_ms) }, ago(c.curated_ms, nowMs))),
    // A prompt is anybody's text: it is shown as text, in a box of its own direction.
    h("details", { class: "prompt", "data-key": "prompt" }, h("summary", {}, h("bdi", { dir: "auto" }, visible(c.prompt))),
      h("pre", { dir: "auto" }, visible(c.prompt)), c.prompt_truncated && h("p", { class: "muted small" }, "cut"),
      c.feedback?.comment && h("p", {}, "Comment: ", h("bdi", { dir: "auto" }, visible(c.feedback.comment))),
      h("p", { class: "muted small mono" }, c.id))))));
}
