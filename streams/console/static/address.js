// What is shown stands in the address: the service, and the one time range for everything.

export const RANGES = [
  ["15m", 15 * 60e3, "15 min"],
  ["1h", 3600e3, "1 h"],
  ["6h", 6 * 3600e3, "6 h"],
  ["24h", 86400e3, "24 h"],
  ["7d", 7 * 86400e3, "7 d"],
];

const DEFAULT = "1h";

export function read() {
  const query = new URLSearchParams(location.search);
  const from = Number(query.get("from"));
  const to = Number(query.get("to"));
  const fixed = Number.isSafeInteger(from) && Number.isSafeInteger(to) && 0 < from && from < to;
  const name = RANGES.some(([key]) => key === query.get("range")) ? query.get("range") : DEFAULT;
  return { service: query.get("service"), range: fixed ? null : name, from: fixed ? from : null, to: fixed ? to : null };
}

/** Changes the address; `replace` where going back to what it was makes no sense. */
export function write(changes, { replace = false } = {}) {
  const now = { ...read(), ...changes };
  const query = new URLSearchParams();
  if (now.service) query.set("service", now.service);
  if (now.range) query.set("range", now.range);
  else {
    query.set("from", String(Math.round(now.from)));
    query.set("to", String(Math.round(now.to)));
  }
  const address = `${location.pathname}?${query}`;
  if (replace) window.history.replaceState(null, "", address);
  else window.history.pushState(null, "", address);
}

/** From and to, in ms; a range without fixed ends ends now. */
export function span(nowMs) {
  const { range, from, to } = read();
  if (!range) return { from, to, live: false };
  const length = RANGES.find(([key]) => key === range)[1];
  return { from: nowMs - length, to: nowMs, live: true };
}
