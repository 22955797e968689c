// The bar at the top: how things stand, who is served by what, and what was decided last.

import { $, code, h, icon, show } from "./dom.js";
import { ago, clock, count, duration, percent, visible } from "./format.js";
import { shares } from "./spark.js";

const ICONS = { ok: "ok", warn: "warn", bad: "bad", unknown: "open" };

export function showStanding({ standing, known }) {
  $("standing").closest(".verdict").dataset.level = standing.level;
  show($("standing"),
    h("span", { class: `stamp ${standing.level}` }, icon(ICONS[standing.level])),
    h("span", { class: "standing-title" }, standing.title),
    h("span", { class: "standing-why" }, visible(standing.why)));
  $("board").classList.toggle("nothing", !known);
}

const FIRST_STEPS = [
  ["Watch", "driftgate monitor", "measures, judges, decides"],
  ["Analyse", "driftgate analyzer --worker-id analyzer-1", "takes prompts from Kafka"],
  ["Feed", "driftgate produce prompts.jsonl --rate 50", "or your own producers"],
  ["Roll out", "driftgate rollout start --reason \"…\"", "begins in shadow: everybody stays on rules"],
];

/** Who is served by what, and the stages that were reached. */
export function showTraffic(service, nowMs) {
  const { rollout, phase } = service;
  if (!service.known) {
    show($("traffic"), h("ol", { class: "first-steps" }, FIRST_STEPS.map(([name, command, what]) => h("li", {}, h("strong", {}, name), code(command), h("span", { class: "muted" }, what)))));
    return;
  }
  if (!rollout) {
    show($("traffic"), h("div", { class: "muted" }, "No rollout yet: everybody is served by rules. Start one with ",
      code("driftgate rollout start --reason \"…\""), "."));
    return;
  }
  const green = rollout.green?.name;
  const active = phase === "progressing" || phase === "paused";
  const share = active ? rollout.share : 0;
  const line = service.rollouts.find((r) => r.rollout_id === rollout.rollout_id && r.service === service.service);
  const label = `${percent(1 - share)} on ${rollout.blue.name}` + (green && active ? `, ${percent(share)} on ${green}` : "");
  const shadow = active && rollout.shadow_share > 0 ? rollout.shadow_share : 0;
  show($("traffic"),
    h("div", { class: "split" },
      h("div", { class: "split-names" },
        h("span", { class: "arm control" }, `${rollout.blue.name} ${percent(1 - share)}`),
        active && green && h("span", { class: "arm candidate" }, shadow && !share ? `${green} shadows ${percent(shadow)}` : `${green} ${percent(share)}`)),
      shares(shadow && !share ? [[1 - shadow, "arm-control"], [shadow, "arm-shadow"]] : [[1 - share, "arm-control"], [share, "arm-candidate"]], label)),
    h("dl", { class: "facts" },
      fact("Phase", phase.replace("_", " ")),
      active && service.stage_seconds !== null && fact("In this stage", duration(service.stage_seconds * 1000)),
      active && rollout.green && fact("Blend", `${percent(rollout.green.semantic_weight, 0)} semantic`),
      line && line.steps.length > 0 && fact("Stages", h("span", { class: "steps" }, steps(line))),
      rollout.only_segments.length > 0 && fact("Only for", rollout.only_segments.join(", ")),
      fact("Revision", String(rollout.revision)),
      service.measured !== null && fact("Measured", count(service.measured)),
      service.status_at_ms !== null && fact("As of", ago(service.status_at_ms, nowMs))));
}

const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

export function steps(line) {
  const last = line.steps.length - 1;
  const over = line.phase === "rolled_back" || line.phase === "promoted";
  const reached = line.steps.map((step, i) => h("span", { class: `step${i === last && !over ? " now" : ""}`, title: `${clock(step.at_ms)} by ${step.actor}` },
    step.share === 0 && i === 0 ? "shadow" : percent(step.share, 0)));
  if (over) return reached.concat(h("span", { class: `step end ${line.phase}` }, icon(line.phase === "promoted" ? "ok" : "back"), line.phase === "promoted" ? "promoted" : "rolled back"));
  return reached.concat(line.shares.slice(line.steps.length).map((share) => h("span", { class: "step ahead", title: "not reached yet" }, percent(share, 0))));
}

export function showDecision(decision, nowMs) {
  if (!decision) {
    show($("decision"), h("span", { class: "muted" }, "Nothing was decided yet."));
    return;
  }
  show($("decision"),
    h("span", { class: "label" }, "Last decision"),
    h("strong", {}, title(decision)),
    h("span", { class: "why" }, visible(decision.reason)),
    h("span", { class: "muted meta" },
      icon("person"), decision.actor, " · ",
      h("time", { datetime: new Date(decision.at_ms).toISOString(), title: clock(decision.at_ms) }, ago(decision.at_ms, nowMs)),
      " · ", h("span", { class: "mono", title: "partition and offset of the log record that caused it" }, `log ${decision.cause.partition}/${decision.cause.offset}`)));
}

const TITLES = {
  "gate.breached": (d) => `Gate ${d.gate.gate} is broken`,
  "gate.recovered": (d) => `Gate ${d.gate.gate} holds again`,
  "rollout.started": (d) => `Started: ${d.green} over ${d.blue}`,
  "rollout.advanced": (d) => `Advanced to ${percent(d.share, 0)}`,
  "rollout.paused": (d) => `Paused at ${percent(d.share, 0)}`,
  "rollout.resumed": (d) => `Resumed at ${percent(d.share, 0)}`,
  "rollout.promoted": () => "Promoted to everybody",
  "rollout.rolled_back": () => "Rolled back to blue",
  "rollback.confirmed": (d) => `Rollback confirmed in ${duration(d.confirmed_ms)}`,
  "drift.detected": (d) => `Drift: ${d.feature} ${d.direction}`,
  "drift.cleared": (d) => `Drift is over: ${d.feature}`,
  "command.rejected": () => "Command refused",
};

export const title = (decision) => (TITLES[decision.type] ?? (() => decision.type))(decision);

/** What may be asked for now, as the monitor would take it. */
export function offers({ phase, rollout }) {
  switch (phase) {
    case "progressing": return ["pause", "promote", "abort"];
    case "paused": return ["resume", "promote", "abort"];
    case "promoted": return rollout?.rollout_id ? ["abort"] : [];
    case "rolled_back": return ["retry"];
    default: return [];
  }
}

const NAMES = { pause: "Pause", resume: "Resume", promote: "Promote", abort: "Abort", retry: "Retry" };

export function showActions(service, role, linked) {
  if (role !== "operator") {
    show($("actions"), h("span", { class: "muted small" }, "You may look; commands take an operator's token."));
    return;
  }
  // What is prominent is what somebody is likely to need.
  const forward = service.standing.level === "ok" ? "primary" : "";
  const back = service.standing.level === "bad" ? "danger filled" : "danger";
  show($("actions"), offers(service).map((name) => h("button", {
    type: "button", class: name === "abort" ? back : name === "promote" || name === "resume" ? forward : "",
    "data-action": name, "data-key": name, disabled: !linked,
  }, NAMES[name])));
}
