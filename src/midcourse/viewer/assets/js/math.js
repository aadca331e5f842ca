// LaTeX to elements, by KaTeX: drawn as HTML, and as MathML for screen readers. A formula that is
// too large, too deep, defines macros, links, or is not understood stays as it was written.

const MATH = { characters: 2000, depth: 120, nodes: 8000, braces: 40 };
const REFUSED = /\\(?:[gex]?def|let|futurelet|global|long|(?:re)?newcommand|providecommand|href|url|includegraphics|html[A-Za-z]*|char|verb|csname)(?![A-Za-z])/;
const KATEX = {
  output: "htmlAndMathml", trust: false, strict: "ignore", throwOnError: true, maxExpand: 200, maxSize: 12,
};
const ELEMENTS = new Set(("span math semantics annotation mtext mn mo mi mspace mover munder munderover msup msub "
  + "svg path line msubsup mfrac mroot msqrt mtable mtr mtd mlabeledtr mrow menclose mstyle mpadded mphantom").split(" "));
const ATTRIBUTES = new Set(("accent accentunder class columnalign columnlines columnspacing depth display displaystyle encoding "
  + "fence height largeop linebreak linethickness lspace mathbackground mathcolor mathsize mathvariant maxsize "
  + "aria-hidden d preserveAspectRatio stroke-width style viewBox x1 x2 y1 y2 minsize notation rowlines rowspacing rspace scriptlevel separator stretchy valign voffset width xmlns side").split(" "));

const typesetBefore = new Map();

/** Returns the formula as an element, or null where it has to stay as written. */
function typeset(tex, display) {
  const key = (display ? "d" : "i") + tex;
  if (!typesetBefore.has(key)) {
    if (typesetBefore.size > 5000) typesetBefore.clear();
    typesetBefore.set(key, render(tex, display));
  }
  return typesetBefore.get(key)?.cloneNode(true) ?? null;
}

function render(tex, display) {
  if (tex.length > MATH.characters || REFUSED.test(tex) || visible(tex) !== tex || braceDepth(tex) > MATH.braces) return null;
  const host = el("span", { class: display ? "math display" : "math" });
  try {
    host.append(nodesOf(katex.__renderToDomTree(tex, { ...KATEX, displayMode: display })));
  } catch {
    return null;
  }
  if (!isInert(host)) return null;
  host.querySelectorAll("annotation").forEach((node) => node.remove());
  host.querySelector("math")?.setAttribute("alttext", tex);
  return host;
}

/** Makes nodes of KaTeX's tree. Its style attributes the page's policy would refuse: they are set as properties. */
function nodesOf(tree) {
  const open = [tree];
  for (let node; (node = open.pop());) {
    if (node.attributes?.style) node.attributes["data-style"] = node.attributes.style;
    delete node.attributes?.style;
    open.push(...(node.children ?? []));
  }
  const made = tree.toNode();
  made.querySelectorAll("[data-style]").forEach((node) => {
    node.style.cssText = node.dataset.style;
    node.removeAttribute("data-style");
  });
  return made;
}

function braceDepth(tex) {
  let depth = 0, deepest = 0;
  for (const character of tex) {
    if (character === "{") deepest = Math.max(deepest, ++depth);
    else if (character === "}") depth -= 1;
  }
  return deepest;
}

/** Whether a tree that is not yet in the page holds only what formulas are drawn with, and not too much of it. */
function isInert(host) {
  const open = [[host, 0]];
  for (let seen = 0; open.length; seen += 1) {
    const [node, depth] = open.pop();
    if (seen > MATH.nodes || depth > MATH.depth || !ELEMENTS.has(node.localName)) return false;
    if (node.getAttributeNames().some((name) => !ATTRIBUTES.has(name))) return false;
    for (const child of node.children) open.push([child, depth + 1]);
  }
  return true;
}

const OPENER = /\\\\|\\\(|\\\[|\\begin\{((?:equation|align|aligned|alignat|gather|gathered|multline|cases|array|[pbvBV]?matrix)\*?)\}|\\boxed\s*\{|\\[^]|\$\$|\$/g;

/** Splits a text into `{ text }` and `{ text, tex, display }`: `$…$`, `$$…$$`, `\(…\)`, `\[…\]`, environments, `\boxed{}`. */
function segments(text) {
  const found = [], opener = new RegExp(OPENER);
  let done = 0;
  for (let match; (match = opener.exec(text));) {
    const formula = formulaAt(text, match);
    if (!formula) continue;
    if (match.index > done) found.push({ text: text.slice(done, match.index) });
    found.push({ ...formula, text: text.slice(match.index, formula.end) });
    opener.lastIndex = done = formula.end;
  }
  if (done < text.length) found.push({ text: text.slice(done) });
  return found;
}

function formulaAt(text, match) {
  const [opener, environment] = match, start = match.index + opener.length;
  if (opener === "\\(") return until(text, start, "\\)", false);
  if (opener === "\\[") return until(text, start, "\\]", true);
  if (opener === "$$") return until(text, start, "$$", true);
  if (opener === "$") return dollars(text, start);
  if (environment) return environmentAt(text, match.index, start, `\\end{${environment}}`);
  return opener.startsWith("\\boxed") ? boxAt(text, match.index, start) : null;
}

function until(text, start, closer, display) {
  const at = text.slice(start, start + MATH.characters).indexOf(closer);
  return at <= 0 ? null : { tex: text.slice(start, start + at), display, end: start + at + closer.length };
}

/** `$5 and $6` are prices: a formula touches both of its dollars, and no digit follows the second. */
function dollars(text, start) {
  const near = text.slice(start, start + MATH.characters);
  const inside = /^(?![\s$])(?:[^$\\\n]|\\[^]|\n(?!\s*\n))*?(?<!\s)\$(?!\d)/.exec(near);
  if (!inside) return null;
  const tex = inside[0].slice(0, -1);
  const isPrice = /^\d[\d.,]*\s+(?:[a-z]{2,}\s|[a-z]{3,}$)/i.test(tex);
  return isPrice ? null : { tex, display: false, end: start + inside[0].length };
}

function environmentAt(text, from, start, closer) {
  const found = until(text, start, closer, true);
  return found && { ...found, tex: text.slice(from, found.end) };
}

function boxAt(text, from, start) {
  const last = Math.min(text.length, start + MATH.characters);
  for (let at = start, depth = 1; at < last; at += 1) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === "{") depth += 1;
    else if (text[at] === "}" && --depth === 0) return box(text.slice(start, at), at + 1);
  }
  return null;
}

/** An answer in words keeps its spaces; dollars inside a box only repeat that it is mathematics. */
function box(inside, end) {
  const tex = inside.replace(/^\s*\$+|\$+\s*$/g, "");
  const isWords = /^[A-Za-z][a-z]+(?: [A-Za-z]+)*$/.test(tex.trim());
  return { tex: `\\boxed{${isWords ? `\\text{${tex}}` : tex}}`, display: false, end };
}
