// The list by problem. Only the rows in view are in the document, however many items there are.

const ROW = 48; // px, as in the style sheet
const list = byId("list"), rowsBox = byId("rows");
const folded = new Set(); // problems whose items are hidden
let rows = []; // { problem, count } or { item }, top to bottom

const isGrouped = () => state.sort === "problem";

function layOut() {
  rows = [];
  if (!isGrouped()) rows = shown.map((item) => ({ item }));
  else {
    for (const [problem, among] of groupBy(shown, (item) => item.problem)) {
      rows.push({ problem, among });
      if (!folded.has(problem)) for (const item of among) rows.push({ item });
    }
  }
  rowsBox.style.height = `${rows.length * ROW}px`;
  paint();
}

function paint() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 8);
  const last = Math.min(rows.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 8);
  const drawn = [];
  for (let at = first; at < last; at += 1) {
    const row = rows[at].item ? itemRow(rows[at].item) : problemRow(rows[at]);
    row.style.top = `${at * ROW}px`;
    row.setAttribute("aria-posinset", at + 1);
    row.setAttribute("aria-setsize", rows.length);
    drawn.push(row);
  }
  rowsBox.replaceChildren(...drawn);
  const current = itemById.get(state.id);
  if (current && byId(`row-${current.at}`)) list.setAttribute("aria-activedescendant", `row-${current.at}`);
  else list.removeAttribute("aria-activedescendant");
}

function problemRow({ problem, among }) {
  const { problem_id, text, status, num_correct, num_rollouts } = problems[problem];
  const isOpen = !folded.has(problem);
  return el("div", { class: "row problem", role: "treeitem", "aria-level": 1, "aria-expanded": String(isOpen), onclick: () => foldGroup(problem) },
    el("span", { class: "fold", "aria-hidden": "true" }, isOpen ? "▾" : "▸"),
    el("span", { class: "first" }, el("b", null, problem_id), status ? el("span", { class: `tag ${status}` }, status) : null,
      num_rollouts ? el("span", { class: "dim" }, `${num_correct} of ${num_rollouts}`) : null,
      el("span", { class: "end dim" }, number(among.length))),
    el("span", { class: "second" }, gist(text)));
}

function itemRow(item) {
  const isCurrent = item.id === state.id;
  const level = isGrouped() ? 2 : 1;
  return el("div", {
    class: `row item ${isGrouped() ? "" : "flat"}`, id: `row-${item.at}`, role: "treeitem", "aria-level": level,
    "aria-selected": String(isCurrent), "data-id": item.id, onclick: () => open(item),
  }, markOf(item), el("span", { class: "first" }, item.title.trim() ? gist(item.title) : "(empty)"), el("span", { class: "second" }, rowFacts(item).join(" · ")));
}

function rowFacts(item) {
  const facts = [];
  if (item.kind === "proposal") facts.push(...proposalFacts(item));
  else if (item.kind === "rl") facts.push(`advantage ${signed(item.advantage)}`, `iteration ${item.iteration}`, `group ${item.group}`, item.arm);
  else facts.push(item.model, item.eval_set, item.condition === "problem" ? "" : words(item.condition));
  if (item.num_tokens) facts.push(plural(item.num_tokens, "token"));
  if (item.truncated) facts.push("truncated");
  if (!isGrouped()) facts.push(item.of.problem_id);
  return facts.filter(Boolean);
}

function proposalFacts(item) {
  const drawn = item.num_continuations ? `${item.num_correct} of ${item.num_continuations} correct` : "";
  return [item.location === null ? "" : `step ${item.location}`, item.outcome === "accepted" ? "" : words(item.outcome), drawn, item.trained ? "trained" : ""];
}

const signed = (value) => (value === null ? "–" : (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(2));

/** A mark that colour is not needed for: of a verdict, or of what became of a proposal. */
function markOf(item) {
  if (isSample(item)) return mark(item.outcome);
  if (item.outcome !== "accepted") return mark("refused", words(item.outcome));
  return item.verified === null ? mark("accepted") : mark(item.verified ? "correct" : "incorrect", item.verified ? "verified" : "not verified");
}

// Without a prototype: a verdict may be called "constructor".
const SIGNS = { __proto__: null, correct: "✓", incorrect: "✗", no_answer: "○", ungraded: "?", accepted: "●", refused: "⊘" };

function mark(name, said) {
  return el("span", { class: `mark ${SIGNS[name] ? name : "other"}`, role: "img", "aria-label": said ?? words(name), title: said ?? words(name) }, SIGNS[name] ?? "·");
}

function foldGroup(problem) {
  if (!folded.delete(problem)) folded.add(problem);
  layOut();
}

function foldAllGroups() {
  const all = new Set(shown.map((item) => item.problem));
  const isAnyOpen = [...all].some((problem) => !folded.has(problem));
  folded.clear();
  if (isAnyOpen) all.forEach((problem) => folded.add(problem));
  layOut();
}

/** Scrolls the list so that the current item is seen, and unfolds its problem. */
function reveal() {
  const current = itemById.get(state.id);
  if (!current) return paint();
  if (isGrouped() && folded.delete(current.problem)) layOut();
  const at = rows.findIndex((row) => row.item === current), top = at * ROW;
  const above = top - (isGrouped() ? ROW : 0) - list.scrollTop, below = top + ROW - list.scrollTop - list.clientHeight;
  if (at >= 0 && (above < -3 * ROW || below > 3 * ROW)) list.scrollTop = top - list.clientHeight / 2;
  else if (at >= 0) list.scrollTop += Math.min(0, above) + Math.max(0, below);
  paint();
}
