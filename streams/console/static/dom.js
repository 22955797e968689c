// Makes and changes elements. Data become text and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "line", "rect", "circle", "polyline", "polygon", "g", "title"]);

/** An element with attributes and children; strings become text nodes, false and null nothing. */
export function h(tag, attributes = {}, ...children) {
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((c) => c !== false && c !== null && c !== undefined));
  return element;
}

export const $ = (id) => document.getElementById(id);

/** Shows new children in place of the old ones, and touches only what differs: what is focused or
 * selected stays so. Elements with a `data-key` are recognised by it. */
export function show(parent, ...children) {
  const wanted = children.flat(Infinity).filter((c) => c !== false && c !== null && c !== undefined);
  morphChildren(parent, wanted.map((c) => (c instanceof Node ? c : document.createTextNode(String(c)))));
}

function morphChildren(parent, wanted) {
  const keyed = new Map();
  for (const child of parent.children) if (child.dataset?.key) keyed.set(child.dataset.key, child);
  let at = parent.firstChild;
  for (const next of wanted) {
    const key = next.dataset?.key;
    const known = key ? keyed.get(key) : at;
    if (known && known.nodeName === next.nodeName && (known.dataset?.key ?? undefined) === (key ?? undefined)) {
      if (known === at) at = at.nextSibling;
      else parent.insertBefore(known, at);
      morph(known, next);
    } else {
      parent.insertBefore(next, at);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function morph(known, next) {
  if (known.nodeType === Node.TEXT_NODE) {
    if (known.nodeValue !== next.nodeValue) known.nodeValue = next.nodeValue;
    return;
  }
  // What the user has opened or closed stays so.
  for (const { name } of [...known.attributes]) {
    if (!next.hasAttribute(name) && name !== "open") known.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (known.getAttribute(name) !== value && name !== "open") known.setAttribute(name, value);
  }
  morphChildren(known, [...next.childNodes]);
}

const PATHS = {
  ok: "M3.5 8.5l3 3 6-7",
  open: "M8 3.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0-9",
  warn: "M8 2.5l6 11H2zM8 6.5v3.2M8 11.4v.6",
  bad: "M4 4l8 8M12 4l-8 8",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  back: "M12.5 8h-9M7 4L3 8l4 4",
  up: "M8 12.5v-9M4 7l4-4 4 4",
  drift: "M2 9c2-5 4-5 6 0s4 3 6-3",
  person: "M8 8a2.6 2.6 0 1 0 0-5.2A2.6 2.6 0 0 0 8 8zM3 13.5c.6-3 2.6-4 5-4s4.4 1 5 4",
};

/** A small drawing that says by its shape what its colour says. */
export function icon(name) {
  return h("svg", { viewBox: "0 0 16 16", width: 14, height: 14, class: `icon icon-${name}`, "aria-hidden": "true" },
    h("path", { d: PATHS[name], fill: "none", stroke: "currentColor", "stroke-width": 1.8, "stroke-linecap": "round", "stroke-linejoin": "round" }));
}

export const code = (text) => h("code", {}, text);

export function empty(...children) {
  return h("p", { class: "empty" }, ...children);
}

export function toast(text, kind = "info") {
  const made = h("div", { class: `toast ${kind}` }, text);
  $("toasts").append(made);
  setTimeout(() => made.remove(), 8000);
}
