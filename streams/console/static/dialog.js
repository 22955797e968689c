// Asks before it acts: what will happen, why it is done, and what the monitor answers.

import { post } from "./api.js";
import { $, h, show, toast } from "./dom.js";
import { percent, visible } from "./format.js";
import { title } from "./verdict.js";

const of = (service) => ({
  blue: service.rollout?.blue?.name ?? "blue",
  green: service.rollout?.green?.name ?? "green",
  share: percent(service.rollout?.share ?? 0, 0),
});

const ASKED = {
  pause: (s) => ["Pause the rollout", [`The share of ${s.green} stays at ${s.share}, and the rollout does not advance by itself.`, "Guardrails still roll back. Somebody must resume, promote or abort it."], "Pause"],
  resume: (s) => ["Resume the rollout", [`The stage at ${s.share} begins anew: its gates start without evidence, and it advances when all of them hold.`], "Resume"],
  promote: (s) => ["Promote without waiting for the gates", [`${s.green} goes to its next stage now (it serves ${s.share} of the users), whatever its gates say.`, "At the last stage this makes it what serves everybody."], "Promote"],
  abort: (s, service) => ["Abort and roll back", service.phase === "promoted"
    ? [`Everybody goes back from ${s.blue} to what served before it, at once.`]
    : [`Everybody goes back to ${s.blue} at once; ${s.green} serves ${s.share} of the users now.`, "The rollback is confirmed when every live worker has applied it."], "Roll back now"],
  retry: (s) => ["Start it again", ["What was rolled back starts again in its first stage, under the same policy, with other users first.", `Until then everybody stays on ${s.blue}.`], "Start again"],
  acknowledge: () => ["Acknowledge the alert", ["It is recorded that you look after it, and it is not escalated any more. It stays open until its cause is gone."], "Acknowledge"],
};

let running = false;

export function confirm(command, service, { alertKey = null, actor = "" } = {}) {
  const dialog = $("dialog");
  if (dialog.open) return;
  const [heading, sentences, verb] = ASKED[command](of(service), service);
  const revision = service.revision;
  const reason = h("input", { id: "reason", name: "reason", maxlength: 2000, autocomplete: "off", placeholder: "incident 812" });
  const full = h("input", { type: "checkbox", name: "full", id: "full" });
  const problem = h("p", { class: "problem", role: "alert" });
  const send = h("button", { type: "submit", class: command === "abort" ? "danger" : "primary" }, verb);
  const cancel = h("button", { type: "button", class: "quiet" }, "Cancel");
  const form = h("form", { method: "dialog" },
    h("h2", { id: "dialog-title" }, heading),
    h("p", { class: "muted" }, "Service ", h("strong", {}, service.service), alertKey && [" · ", h("span", { class: "mono" }, visible(alertKey))]),
    sentences.map((text) => h("p", {}, text)),
    command === "promote" && h("label", { class: "check", for: "full" }, full, ` To the end at once: ${of(service).green} serves everybody.`),
    h("label", { class: "field", for: "reason" }, "Why (recorded with your name)", reason),
    problem,
    h("div", { class: "dialog-foot" }, h("span", { class: "muted small" }, `as ${actor}`), cancel, send));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return;
    running = true;
    send.disabled = cancel.disabled = true;
    problem.textContent = "";
    send.textContent = "Waiting for the monitor…";
    try {
      const answer = await post("/api/commands", { service: service.service, command, reason: reason.value, full: full.checked, alert_key: alertKey, revision });
      dialog.close();
      toast(answer.decision ? title(answer.decision) : "Acknowledged", "good");
    } catch (error) {
      problem.textContent = error.message;
      problem.classList.add("shown");
    } finally {
      running = false;
      send.disabled = cancel.disabled = false;
      send.textContent = verb;
    }
  });
  cancel.addEventListener("click", () => dialog.close());
  // Enter in the field sends nothing, and the field has the focus: a key pressed twice does not act.
  reason.addEventListener("keydown", (event) => {
    if (event.key === "Enter") event.preventDefault();
  });
  show(dialog);
  dialog.append(form);
  dialog.showModal();
  reason.focus();
}

const KEYS = [["1 … 5", "time range"], ["g", "gates"], ["a", "alerts"], ["d", "decisions"], ["w", "workers"], ["t", "theme"], ["?", "this list"]];

export function help() {
  const dialog = $("dialog");
  if (dialog.open) return;
  const close = h("button", { type: "button", class: "primary" }, "Close");
  close.addEventListener("click", () => dialog.close());
  show(dialog);
  dialog.append(h("div", {}, h("h2", { id: "dialog-title" }, "Keys"),
    h("dl", { class: "keys" }, KEYS.map(([key, what]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)))),
    h("p", { class: "muted small" }, "Drag over a chart to look at a part of its time. Nothing that acts has a key."),
    h("div", { class: "dialog-foot" }, close)));
  dialog.showModal();
  close.focus();
}
