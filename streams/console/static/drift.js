// The drift detectors: how far each is from its alarm.

import { $, h, icon, show } from "./dom.js";
import { number } from "./format.js";
import { shares } from "./spark.js";

const words = (text) => text.replaceAll("_", " ");

export function showDrift(section) {
  const readings = section?.drift ?? [];
  if (!readings.length) {
    show($("drift"));
    return;
  }
  const features = new Set(readings.filter((r) => r.drifting).map((r) => words(r.feature)));
  const near = (r) => (r.statistic === null || !r.threshold ? 0 : Math.max(0, Math.min(1, r.statistic / r.threshold)));
  const sorted = [...readings].sort((a, b) => Number(b.drifting) - Number(a.drifting) || near(b) - near(a));
  show($("drift"), h("details", { class: "detectors", "data-key": "detectors" },
    h("summary", {}, features.size
      ? h("span", { class: "chip warn" }, icon("drift"), `drifting: ${[...features].join(", ")}`)
      : h("span", { class: "muted" }, `no drift, by ${readings.length} detectors`)),
    h("ul", { class: "list" }, sorted.map((r) => h("li", { "data-key": `${r.feature}/${r.detector}` },
      h("span", {}, words(r.feature), " ", h("span", { class: "muted" }, words(r.detector), r.learned && ", against the first rows")),
      h("span", { class: "meter" }, shares([[near(r), r.drifting ? "meter-high" : "meter-fill"]], "")),
      h("span", { class: "muted" }, r.statistic === null ? "not enough rows" : `${number(r.statistic)} of ${number(r.threshold)}`))))));
}
