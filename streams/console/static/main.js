// Ties the page together: who looks at what, over which time, and what has changed.

import { RANGES, read, span, write } from "./address.js";
import { follow, history, post, session } from "./api.js";
import { recolour, showCharts, zoomed } from "./charts.js";
import { confirm, help } from "./dialog.js";
import { $, h, show, toast } from "./dom.js";
import { showDrift } from "./drift.js";
import { clock, count } from "./format.js";
import { showGates, showImpact, toggleReason } from "./gates.js";
import { redrawHeat, showHeat } from "./heat.js";
import { showAlerts, showCases, showDecisions, showRollouts } from "./lists.js";
import { askForToken } from "./sign-in.js";
import { nextTheme } from "./theme.js";
import { showTiles } from "./tiles.js";
import { showActions, showDecision, showStanding, showTraffic } from "./verdict.js";
import { showCapacity, showWorkers } from "./workers.js";

const state = {
  who: null, name: null, sections: {}, history: null, linked: true, lostAt: null, heardAt: 0,
  skewMs: 0, feed: null, leave: () => {}, timer: 0, asked: 0,
};
const dirty = new Set();
const ALL = ["standing", "tiles", "gates", "alerts", "charts", "heat", "rollouts", "decisions", "workers", "cases", "link"];

/** The console's clock: a browser whose clock is wrong shows the same. */
const now = () => Date.now() + state.skewMs;

const PAINT = {
  standing() {
    const { service } = state.sections;
    if (!service) return;
    showStanding(service);
    showActions(service, state.who.role, state.linked);
    showTraffic(service, now());
    showDecision(service.last_decision, now());
    document.title = `${service.standing.title} · ${state.name} · driftgate`;
    services(service.services);
  },
  tiles: () => showTiles({ ...state.sections, history: state.history }, span(now())),
  gates() {
    if (!state.sections.gates) return;
    showGates(state.sections.gates, state.history, span(now()), now());
    showImpact(state.sections.gates);
    showDrift(state.sections.gates);
  },
  alerts: () => state.sections.alerts && showAlerts(state.sections.alerts, state.who.role, now(), state.linked),
  charts: () => showCharts({ history: state.history, windows: state.sections.windows }, span(now())),
  heat: () => showHeat(state.history, span(now())),
  rollouts: () => state.sections.service && showRollouts(state.sections.service, state.history, now()),
  decisions: () => showDecisions(state.sections.decisions, state.history, span(now()), now()),
  workers() {
    if (!state.sections.workers) return;
    showWorkers(state.sections.workers, state.history, span(now()), now());
    showCapacity(state.sections.workers, state.history);
  },
  cases: () => state.sections.cases && showCases(state.sections.cases, span(now()), now()),
  link: banner,
};

const OF_SECTION = {
  alerts: ["alerts"], cases: ["cases"], decisions: ["decisions"], gates: ["gates"],
  service: ["standing", "rollouts"], windows: ["tiles", "charts"], workers: ["workers", "tiles"],
};

function paint(...names) {
  const wasIdle = dirty.size === 0;
  names.forEach((name) => dirty.add(name));
  if (!wasIdle || !dirty.size) return;
  const run = () => {
    const some = [...dirty];
    dirty.clear();
    for (const name of some) {
      try {
        PAINT[name]();
      } catch (error) {
        // One panel that cannot be drawn must not take the others with it.
        console.error(name, error);
      }
    }
  };
  // A page in the background has no frames, and must be right when somebody looks at it.
  if (document.hidden) setTimeout(run, 0);
  else requestAnimationFrame(run);
}

function banner() {
  const feed = state.feed;
  const link = $("link");
  const texts = [];
  let level = "ok";
  let word = "live";
  if (!state.linked) {
    [level, word] = ["bad", "disconnected"];
    texts.push(`Disconnected from the console since ${clock(state.lostAt)}. Trying again; what you see is of then.`);
  } else if (feed?.link === "away") {
    [level, word] = ["bad", "broker away"];
    texts.push(`The broker is away since ${clock(feed.since_ms, now())}; trying again. ${feed.problem}`);
  } else if (feed?.link === "catching_up") {
    [level, word] = ["warn", "catching up"];
    texts.push(feed.lag > 2 ? `Catching up with the topics: ${count(feed.lag)} records to read.` : "Catching up with the topics.");
  } else if (!feed) {
    [level, word] = ["unknown", "connecting"];
  }
  if (state.linked && feed?.history_problem) {
    level = level === "ok" ? "warn" : level;
    texts.push(`History is not being kept: ${feed.history_problem}`);
  }
  link.hidden = false;
  link.className = `link ${level}`;
  show(link, h("span", { class: "dot", "aria-hidden": "true" }), word);
  const bar = $("banner");
  bar.hidden = !texts.length;
  bar.className = `banner ${level}`;
  show(bar, texts.join(" "));
  document.body.classList.toggle("stale", !state.linked);
}

function services(list) {
  const choice = $("service");
  choice.parentElement.hidden = false;
  const names = list.map((s) => s.service);
  if (!names.includes(state.name)) names.unshift(state.name);
  show(choice, names.map((name) => {
    const found = list.find((s) => s.service === name);
    const text = found && found.level !== "ok" ? `${name} (${found.title.toLowerCase()})` : name;
    return h("option", { value: name, "data-key": name }, text);
  }));
  choice.value = state.name;
}

function ranges() {
  const bar = document.querySelector(".ranges");
  const { range, from, to } = read();
  bar.hidden = false;
  show(bar, RANGES.map(([key, , label]) => h("button", { type: "button", class: "range", "data-action": "range", "data-range": key, "data-key": key, "aria-pressed": String(key === range) }, label)),
    !range && h("button", { type: "button", class: "range", "data-key": "fixed", "aria-pressed": "true", "data-action": "range", "data-range": "1h", title: "Back to the last hour" }, `${clock(from)} – ${clock(to)}  ×`));
}

function who() {
  const box = $("who");
  box.hidden = false;
  show(box, h("span", { class: "who-name" }, state.who.name), h("span", { class: "muted" }, state.who.role), h("button", { type: "button", class: "quiet", "data-action": "sign-out" }, "Sign out"));
}

async function load() {
  const asked = (state.asked += 1);
  const over = span(now());
  try {
    const found = await history(state.name, over.from, over.to);
    if (asked !== state.asked) return;
    state.history = found;
    paint("tiles", "gates", "charts", "heat", "rollouts", "decisions", "workers");
  } catch (error) {
    if (error.status && error.status !== 401) toast(error.message, "bad");
  }
  clearTimeout(state.timer);
  // About as often as a chart gets a new point.
  if (over.live) state.timer = setTimeout(load, Math.min(60e3, Math.max(10e3, (over.to - over.from) / 240)));
}

function look(name) {
  state.leave();
  state.name = name;
  state.sections = {};
  state.history = null;
  const on = Object.fromEntries(Object.entries(OF_SECTION).map(([section, parts]) => [section, (data) => {
    state.sections[section] = data;
    paint(...parts);
  }]));
  on.pulse = (data) => {
    state.skewMs = data.now_ms - Date.now();
    const before = JSON.stringify([state.feed?.link, state.feed?.history_problem]);
    state.feed = data.feed;
    paint("link");
    // What was missed while the broker was away stands in the history.
    if (state.feed.link === "live" && !before.includes("live")) load();
  };
  on.link = (linked) => {
    if (linked === state.linked) return;
    state.linked = linked;
    state.lostAt = linked ? null : Date.now();
    paint("link", "standing", "alerts");
    if (linked) load();
  };
  on.signedOut = () => enter();
  state.leave = follow(name, on);
  ranges();
  load();
}

function begin(found) {
  state.who = found;
  who();
  paint("link");
  const name = read().service ?? found.default_service;
  if (!read().service) write({ service: name }, { replace: true });
  look(name);
}

async function enter() {
  state.leave();
  clearTimeout(state.timer);
  $("who").hidden = $("link").hidden = $("banner").hidden = true;
  document.querySelector(".ranges").hidden = true;
  $("service").parentElement.hidden = true;
  if ($("dialog").open) $("dialog").close();
  try {
    const found = await session();
    if (found.signed_in) {
      $("board").hidden = false;
      begin(found);
    } else askForToken(found, begin);
  } catch {
    setTimeout(enter, 2000);
  }
}

const ACTIONS = {
  range: (button) => {
    write({ range: button.dataset.range, from: null, to: null });
    ranges();
    load();
    paint(...ALL);
  },
  service: (button) => {
    write({ service: button.dataset.service });
    look(button.dataset.service);
  },
  "sign-out": async () => {
    await post("/api/sign-out", {}).catch((error) => toast(error.message, "bad"));
    enter();
  },
  why: (button) => {
    toggleReason(button);
    paint("gates");
  },
  acknowledge: (button) => confirm("acknowledge", state.sections.service, { alertKey: button.dataset.alert, actor: state.who.name }),
};
for (const command of ["pause", "resume", "promote", "abort", "retry"]) {
  ACTIONS[command] = () => confirm(command, state.sections.service, { actor: state.who.name });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (button && !button.disabled) ACTIONS[button.dataset.action]?.(button);
});
$("service").addEventListener("change", (event) => ACTIONS.service({ dataset: { service: event.target.value } }));
$("help").addEventListener("click", help);

function changeTheme() {
  const theme = nextTheme();
  toast(theme === "auto" ? "Theme of the system" : `${theme[0].toUpperCase()}${theme.slice(1)} theme`);
  redraw();
}
function redraw() {
  recolour();
  redrawHeat();
  if (state.who?.signed_in) paint("charts");
}
$("theme").addEventListener("click", changeTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

const PLACES = { g: "gates-title", a: "alerts-title", d: "decisions-title", w: "workers-title" };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("dialog").open || event.target.closest("input, select, textarea")) return;
  if (event.key === "?") help();
  else if (event.key === "t") changeTheme();
  else if (!state.who?.signed_in) return;
  else if (PLACES[event.key]) {
    const heading = $(PLACES[event.key]);
    heading.setAttribute("tabindex", "-1");
    heading.focus();
    heading.scrollIntoView({ block: "start" });
  } else if (RANGES[Number(event.key) - 1]) ACTIONS.range({ dataset: { range: RANGES[Number(event.key) - 1][0] } });
});

zoomed((from, to) => {
  write({ range: null, from, to });
  ranges();
  load();
  paint(...ALL);
});
window.addEventListener("popstate", () => {
  const { service } = read();
  if (service && service !== state.name) look(service);
  else {
    ranges();
    load();
    paint(...ALL);
  }
});
// Ages and open ends move on, also when nothing happens.
setInterval(() => {
  if (!state.who?.signed_in || document.hidden) return;
  paint("standing", "alerts", "workers", "cases");
  if (span(now()).live) paint("charts");
}, 5000);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && state.who?.signed_in) paint(...ALL);
});

enter();
