// Elements from our own names and foreign texts. Nothing in this page is ever parsed as markup:
// texts become text nodes, and what a reader could not see becomes an escape.

const UNSEEN = /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\u2028\u2029]/gu;

/** Returns a text in which controls, invisible and direction-changing characters are written out. */
function visible(text) {
  return text.replace(UNSEEN, (character) => {
    const code = character.codePointAt(0).toString(16);
    if (code.length <= 2) return "\\x" + code.padStart(2, "0");
    return code.length <= 4 ? "\\u" + code.padStart(4, "0") : "\\U" + code.padStart(8, "0");
  });
}

/** Makes an element; `on…` are listeners, other settings attributes, strings among the children text. */
function el(tag, settings, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(settings ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : visible(String(value)));
  }
  add(node, children);
  return node;
}

/** Appends nodes and texts; nothing is appended for null. */
function add(node, children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined) continue;
    node.append(child instanceof Node ? child : visible(String(child)));
  }
}

const byId = (id) => document.getElementById(id);
const button = (text, onclick, settings) => el("button", { type: "button", onclick, ...settings }, text);
const number = (value) => value.toLocaleString("en");
const plural = (count, one, many) => `${number(count)} ${count === 1 ? one : many ?? one + "s"}`;
const words = (name) => name.replaceAll("_", " ");

/** Groups values by a key, in order of appearance. */
function groupBy(values, key) {
  const groups = new Map();
  for (const value of values) {
    const name = key(value);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(value);
  }
  return groups;
}

/** What a browser may refuse a page from disk: then the setting lasts as long as the page. */
const remembered = {
  get(name) {
    try { return localStorage.getItem("midcourse-" + name); } catch { return null; }
  },
  set(name, value) {
    try { localStorage.setItem("midcourse-" + name, value); } catch { /* not remembered */ }
  },
};
