// Numbers and times as people read them. A thin space stands before units.

const SPACE = "\u2009";
const MINUS = "\u2212";

export const dash = "–";

/** Three significant digits, or a dash. */
export function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return dash;
  const size = Math.abs(value);
  const fraction = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : digits;
  return value.toLocaleString("en-US", { maximumFractionDigits: fraction }).replace("-", MINUS);
}

export function count(value) {
  if (value === null || value === undefined) return dash;
  if (value >= 1e6) return `${number(value / 1e6)}${SPACE}M`;
  return Math.round(value).toLocaleString("en-US");
}

export function percent(value, digits) {
  if (value === null || value === undefined || !Number.isFinite(value)) return dash;
  const scaled = value * 100;
  const fraction = digits ?? (Math.abs(scaled) >= 99.5 && scaled < 100 ? 2 : Math.abs(scaled) >= 10 ? 1 : 2);
  const text = scaled.toLocaleString("en-US", { maximumFractionDigits: fraction });
  return `${text.replace("-", MINUS)}${SPACE}%`;
}

export function signedPercent(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return dash;
  return (value > 0 ? "+" : "") + percent(value);
}

export function seconds(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return dash;
  if (value === 0) return `0${SPACE}s`;
  if (Math.abs(value) < 0.00095) return `${number(value * 1e6)}${SPACE}µs`;
  if (Math.abs(value) < 0.9995) return `${number(value * 1000)}${SPACE}ms`;
  return `${number(value)}${SPACE}s`;
}

export function bytes(value) {
  if (value === null || value === undefined) return dash;
  return value < 1024 ** 3 ? `${Math.round(value / 1024 ** 2)}${SPACE}MiB` : `${number(value / 1024 ** 3)}${SPACE}GiB`;
}

/** How long, in the two largest units. */
export function duration(ms) {
  if (ms === null || ms === undefined) return dash;
  const s = Math.max(0, Math.round(ms / 1000));
  const [d, hh, m] = [Math.floor(s / 86400), Math.floor((s % 86400) / 3600), Math.floor((s % 3600) / 60)];
  if (d) return `${d}${SPACE}d ${hh}${SPACE}h`;
  if (hh) return `${hh}${SPACE}h ${m}${SPACE}min`;
  if (m) return s < 600 ? `${m}${SPACE}min ${s % 60}${SPACE}s` : `${m}${SPACE}min`;
  return `${s}${SPACE}s`;
}

/** How long ago, coarsely, so that the text does not change every second. */
export function ago(ms, nowMs) {
  const s = Math.max(0, (nowMs - ms) / 1000);
  if (s < 10) return "just now";
  if (s < 60) return `${Math.floor(s / 10) * 10}${SPACE}s ago`;
  if (s < 3600) return `${Math.floor(s / 60)}${SPACE}min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)}${SPACE}h ago`;
  return `${Math.floor(s / 86400)}${SPACE}d ago`;
}

const pad = (n) => String(n).padStart(2, "0");

/** The time of day, with the date when it is another day. */
export function clock(ms, nowMs = Date.now()) {
  const at = new Date(ms);
  const time = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  const today = new Date(nowMs).toDateString() === at.toDateString();
  return today ? time : `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${time}`;
}

/** Characters that turn the direction of the text around them are shown by their code: a prompt
 * must not be able to look like something else. */
export function visible(text) {
  return text.replace(/[\u061C\u200E\u200F\u202A-\u202E\u2066-\u2069]/g,
    (c) => `⟦U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟧`);
}

/** A value of a gate in its unit. */
export function inUnit(value, unit) {
  if (unit === "seconds") return seconds(value);
  if (unit === "rate" || unit === "share above") return percent(value);
  if (unit === "MB") return value === null ? dash : `${number(value)}${SPACE}MB`;
  if (unit === "count") return count(value);
  return number(value);
}
