// Talks to the console: requests with their CSRF token, and the stream that comes back by itself.

let csrf = "";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new ApiError(0, "the console does not answer");
  }
  let body = {};
  try {
    body = await answer.json();
  } catch {
    body = {};
  }
  if (!answer.ok) throw new ApiError(answer.status, body.error ?? `HTTP ${answer.status}`);
  return body;
}

export async function session() {
  const found = await ask("/api/session");
  csrf = found.csrf;
  return found;
}

export const post = (path, body) =>
  ask(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-csrf-token": csrf },
    body: JSON.stringify(body),
  });

export const history = (service, from, to) =>
  ask(`/api/history?${new URLSearchParams({ service, from: Math.floor(from), to: Math.ceil(to) })}`);

const SECTIONS = ["alerts", "cases", "decisions", "gates", "service", "windows", "workers", "pulse"];
const SILENCE_MS = 8000; // The console sends a pulse every two seconds.
const PAUSES_MS = [500, 1000, 2000, 5000];

/** Follows a service until it is closed. `on` has a function for each section, and `link`, which is
 * told true or false, and `signedOut`. */
export function follow(service, on) {
  let source = null;
  let closed = false;
  let attempt = 0;
  let silence = 0;

  const lost = () => {
    source?.close();
    source = null;
    clearTimeout(silence);
    if (closed) return;
    on.link(false);
    setTimeout(reconnect, PAUSES_MS[Math.min(attempt, PAUSES_MS.length - 1)]);
    attempt += 1;
  };
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(lost, SILENCE_MS);
  };
  const reconnect = async () => {
    if (closed) return;
    try {
      // A stream that is refused does not say why.
      const found = await session();
      if (closed) return;
      if (!found.signed_in) {
        on.signedOut();
        return;
      }
    } catch {
      lost();
      return;
    }
    open();
  };
  const open = () => {
    source = new EventSource(`/api/live?${new URLSearchParams({ service })}`);
    heard();
    source.onerror = lost;
    source.addEventListener("signed_out", () => {
      closed = true;
      source?.close();
      clearTimeout(silence);
      on.signedOut();
    });
    for (const name of SECTIONS) {
      source.addEventListener(name, (event) => {
        heard();
        attempt = 0;
        on.link(true);
        on[name](JSON.parse(event.data));
      });
    }
  };
  open();
  return () => {
    closed = true;
    clearTimeout(silence);
    source?.close();
  };
}
