// The keyboard, and the sheet that says what it does.

const KEYS = [
  ["j ↓", "next trace", () => step(1)],
  ["k ↑", "previous trace", () => step(-1)],
  ["n", "next problem", () => stepProblem(1)],
  ["p", "previous problem", () => stepProblem(-1)],
  ["/", "search all texts and ids", () => { document.body.dataset.pane = "list"; byId("query").focus(); byId("query").select(); }],
  ["o", "open or fold all parts of the trace", foldTrace],
  ["r", "texts as they were written, or typeset", toggleRaw],
  ["c", "compare two models on this problem", startCompare],
  ["?", "this sheet", () => byId("help").showModal()],
];
const NAMES = { ArrowDown: "↓", ArrowUp: "↑" };
const TYPED_IN = new Set(["INPUT", "SELECT", "TEXTAREA"]);

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  if (event.key === "Escape") return leave(event);
  if (TYPED_IN.has(event.target.tagName)) return;
  if (event.target === list && foldByKey(event)) return;
  const name = NAMES[event.key] ?? event.key;
  if (event.key.startsWith("Arrow") && trace.contains(event.target)) return; // there they scroll
  const action = KEYS.find(([keys]) => keys.split(" ").includes(name))?.[2];
  if (!action) return;
  event.preventDefault();
  action();
}

/** In the list, ← folds the current problem and → unfolds it. */
function foldByKey(event) {
  const current = itemById.get(state.id);
  if (!current || !isGrouped() || !["ArrowLeft", "ArrowRight"].includes(event.key)) return false;
  if (folded.has(current.problem) === (event.key === "ArrowRight")) foldGroup(current.problem);
  return true;
}

/** Escape leaves the search box, then the comparison. */
function leave(event) {
  if (TYPED_IN.has(event.target.tagName)) {
    event.preventDefault(); // a search box would be emptied
    event.target.blur();
    list.focus();
  } else if (state.compare) startCompare();
}

function drawHelp() {
  const rows = KEYS.map(([keys, said]) => el("div", null, el("dt", null, ...keys.split(" ").map((key) => el("kbd", null, key))), el("dd", null, said)));
  const more = [["← →", "in the list: fold, unfold a problem; in the tokens: previous, next"], ["Esc", "leave the search box, the comparison, or this sheet"]]
    .map(([keys, said]) => el("div", null, el("dt", null, ...keys.split(" ").map((key) => el("kbd", null, key))), el("dd", null, said)));
  const signs = Object.keys(SIGNS).map((name) => el("div", null, el("dt", null, mark(name)), el("dd", null, `${words(name)}: ${SIGNS_SAID[name]}`)));
  byId("help").replaceChildren(el("div", { class: "bar" }, el("h2", { id: "help-title" }, "Keys and signs"), el("span", { class: "gap" }), button("✕", () => byId("help").close(), { "aria-label": "Close" })),
    el("div", { class: "columns" }, el("dl", null, ...rows, ...more), el("dl", null, ...signs)),
    el("p", { class: "dim" }, "The address names the trace, the filters and the search: copy it to link to what you see. Formulas are typeset by KaTeX; ", "texts are never run as code, and the page makes no request."));
}

const SIGNS_SAID = {
  correct: "the answer is right; of a proposal, a continuation is", incorrect: "the answer is wrong; of a proposal, of every continuation",
  no_answer: "no final answer, counts as incorrect", ungraded: "the grader could not tell, counts as nothing",
  accepted: "a kept proposal for which no continuation was drawn", refused: "a proposal that was not kept",
};
