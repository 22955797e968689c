// The sign-in: a token in, a session out.

import { post, session } from "./api.js";
import { $, code, h, show } from "./dom.js";

/** Shows the form; calls back when somebody is in. */
export function askForToken(found, entered) {
  $("board").hidden = true;
  $("sign-in").hidden = false;
  if (found.insecure) {
    show($("sign-in"), h("h1", { id: "sign-in-title" }, "Not over plain HTTP"),
      h("p", {}, "This page was reached by plain HTTP from another machine, so a token would travel in the clear."),
      h("p", {}, "Use an SSH tunnel (", code("ssh -L 8765:127.0.0.1:8765 HOST"), ", then ", code("http://localhost:8765"), ") or a proxy that ends TLS."));
    return;
  }
  const token = h("input", { id: "token", type: "password", name: "token", autocomplete: "off", spellcheck: "false", autocapitalize: "off", required: true, "aria-describedby": "sign-in-problem" });
  const problem = h("p", { class: "problem", id: "sign-in-problem", role: "alert" });
  const button = h("button", { type: "submit", class: "primary" }, "Sign in");
  const form = h("form", { autocomplete: "off" },
    h("label", { class: "field", for: "token" }, "Token", token), problem, button);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    problem.textContent = "";
    try {
      await post("/api/sign-in", { token: token.value });
      token.value = "";
      const signed = await session();
      $("sign-in").hidden = true;
      $("board").hidden = false;
      entered(signed);
    } catch (error) {
      // The page may have been open for longer than its CSRF token lives.
      if (error.status === 403) await session().catch(() => {});
      problem.textContent = error.message;
      problem.classList.add("shown");
      token.focus();
    } finally {
      button.disabled = false;
    }
  });
  show($("sign-in"));
  $("sign-in").append(h("h1", { id: "sign-in-title" }, "Sign in"), form,
    h("div", { class: "muted small" }, h("p", {}, "Whoever runs this console makes a token:"), h("pre", {}, "driftgate token create --role viewer --name YOU\ndriftgate token create --role operator --name YOU")));
  token.focus();
}
