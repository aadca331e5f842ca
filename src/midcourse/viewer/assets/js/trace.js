// The trace that is looked at, and moving between traces.

const trace = byId("trace");
let drawing = 0; // counts, so that a slow answer for an earlier trace is dropped

function heading(item, title, tags) {
  const at = shown.indexOf(item);
  return el("div", { class: "heading" },
    el("div", { class: "bar moves" },
      button("← List", () => { document.body.dataset.pane = "list"; }, { class: "back" }),
      button("‹", () => step(-1), { "aria-label": "Previous trace", title: "Previous (k)" }), button("›", () => step(1), { "aria-label": "Next trace", title: "Next (j)" }),
      el("span", { class: "dim" }, at < 0 ? "not among those listed" : `${number(at + 1)} of ${number(shown.length)}`),
      el("span", { class: "gap" }), button("Copy link", copyLink, { class: "copy" }), modelsOf(item.problem).size || state.compare ? button(state.compare ? "Close comparison" : "Compare", startCompare, { title: "Two models on this problem (c)" }) : null),
    el("h2", null, title), el("p", { class: "tags" }, ...tags, problemTags(item)));
}

function problemTags(item) {
  const { problem_id, status, num_correct, num_rollouts } = item.of;
  const said = num_rollouts ? `, ${num_correct} of ${num_rollouts} rollouts correct` : "";
  return el("span", { class: "dim" }, `problem ${problem_id}${status ? `: ${status}` : ""}${said}`);
}

async function copyLink(event) {
  const said = event.target;
  try {
    await navigator.clipboard.writeText(location.href);
    said.textContent = "Copied";
  } catch {
    said.textContent = "Copy it from the address bar";
  }
}

async function draw() {
  const run = ++drawing, item = itemById.get(state.id);
  if (!item) return replaceTrace([el("p", { class: "said" }, nothingToShow())]);
  trace.setAttribute("aria-busy", "true");
  let parts;
  try {
    parts = await partsOf(item);
  } catch (error) {
    parts = [el("p", { class: "said" }, `The texts of ${item.id} could not be read: the file may be cut off (${error.message}).`)];
  }
  if (run !== drawing) return;
  replaceTrace(parts.filter(Boolean));
  highlight(trace);
}

/** The control that was used is drawn again: it keeps the focus. A screen reader is told the title. */
function replaceTrace(parts) {
  const used = trace.contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
  trace.replaceChildren(...parts);
  trace.removeAttribute("aria-busy");
  if (used) [...trace.querySelectorAll("[aria-label]")].find((node) => node.getAttribute("aria-label") === used)?.focus({ preventScroll: true });
  byId("said").textContent = trace.querySelector("h2")?.textContent ?? "";
}

function partsOf(item) {
  if (state.compare) return drawCompare(item);
  if (item.kind === "rl") return Promise.all(rlGroups.get(groupKey(item)).map(bodyOf)).then((bodies) => drawGroup(item, bodies));
  return bodyOf(item).then((body) => (item.kind === "proposal" ? drawProposal(item, body) : drawRollout(item, body)));
}

function nothingToShow() {
  if (!items.length) return "There are no traces in this run yet.";
  return state.id ? `There is no trace ${state.id} in this page.` : "Nothing passes the filters: press “Reset” to see everything.";
}

/** Looks at an item; a comparison goes on with its problem unless `changes` ends it. */
function open(item, changes) {
  document.body.dataset.pane = "trace";
  move({ id: item.id, left: "", right: "", ...changes });
}

/** Changes the state; the address gets a new entry, so that Back returns. */
function move(changes) {
  const before = state.id;
  state = { ...state, ...changes };
  if (address(state) !== location.hash) history.pushState(null, "", address(state));
  reveal();
  draw();
  if (before !== state.id) trace.scrollTop = 0;
  document.title = `${state.id ? visible(state.id) + " – " : ""}${visible(page.name)}: traces`;
}

function step(by) {
  const at = shown.findIndex((item) => item.id === state.id);
  const next = at < 0 ? shown[0] : shown[at + by];
  if (next) open(next);
}

/** Goes to the first item of the next problem, or of the one before. */
function stepProblem(by) {
  const current = itemById.get(state.id);
  let at = shown.findIndex((item) => item.id === state.id);
  while (shown[at] && shown[at].problem === current?.problem) at += by;
  if (!shown[at]) return;
  while (by < 0 && shown[at - 1]?.problem === shown[at].problem) at -= 1;
  open(shown[at]);
}

/** Opens all that is folded in the trace, or folds it all if nothing is. */
function foldTrace() {
  const boxes = [...trace.querySelectorAll("details")], isAnyFolded = boxes.some((box) => !box.open);
  unfold(boxes, isAnyFolded);
}

/** The event comes now, not later: a page that is printed has to be drawn at once. */
function unfold(boxes, isOpen) {
  boxes.forEach((box) => {
    box.open = isOpen;
    box.dispatchEvent(new Event("toggle"));
  });
}
