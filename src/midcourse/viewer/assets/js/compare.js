// Two models on one problem: their verdicts, and a rollout of each, next to each other.

/** Returns the sampled rollouts of a problem by model and set. */
function modelsOf(problem) {
  const among = (itemsOfProblem.get(problem) ?? []).filter((item) => item.kind === "rollout");
  return groupBy(among, modelName);
}

function modelName(item) {
  const condition = item.condition === "problem" ? "" : words(item.condition);
  return [item.model || "unknown model", item.eval_set, condition].filter(Boolean).join(" · ");
}

function startCompare() {
  const item = itemById.get(state.id);
  if (item) move({ compare: !state.compare, left: "", right: "" });
}

/** The two that are chosen, or else the current one and one of another model, a correct one if there is. */
function comparedItems(item, models) {
  const all = [...models.values()].flat();
  const chosen = (id) => { const one = itemById.get(id); return one && all.includes(one) ? one : null; };
  const left = chosen(state.left) ?? chosen(item.id) ?? all[0];
  const others = all.filter((one) => modelName(one) !== modelName(left));
  const right = chosen(state.right) ?? others.find((one) => one.outcome === "correct") ?? others[0] ?? all.find((one) => one !== left);
  return [left, right];
}

async function drawCompare(item) {
  const models = modelsOf(item.problem);
  const head = heading(item, `Problem ${item.of.problem_id}: models next to each other`, []);
  const [left, right] = comparedItems(item, models);
  if (!right) return [head, el("p", { class: "said" }, "There are no two rollouts of this problem to compare.", nextComparable(item))];
  const bodies = await Promise.all([left, right].map(bodyOf));
  return [
    head,
    el("div", { class: "columns" }, section("Problem", problemStrip(item)), section("Verdicts by model", ...[...models].map(modelBar))),
    el("div", { class: "pair" }, comparedSide("left", left, bodies[0], models), comparedSide("right", right, bodies[1], models)),
  ];
}

function modelBar([name, among]) {
  return el("div", { class: "model" }, el("h4", null, name), verdictBar(countVerdicts(among.map((one) => one.outcome)), among.length));
}

function comparedSide(side, item, body, models) {
  const name = modelName(item), among = models.get(name);
  const pick = (id) => move({ ...comparedIds(), [side]: id });
  const model = choice(`Model on the ${side}`, [...models].map(([one, group]) => [group[0].id, `${one} (${group.filter((r) => r.outcome === "correct").length} of ${group.length})`]), among[0].id, pick);
  const rollout = choice(`Rollout on the ${side}`, among.map((one, at) => [one.id, `${at + 1}: ${SIGNS[one.outcome] ?? ""} ${words(one.outcome)}, ${plural(one.num_tokens, "token")}`]), item.id, pick);
  return el("article", { class: "sample", "aria-label": `${side}: ${name}` }, el("div", { class: "bar" }, model, rollout),
    el("header", null, verdictTag(item.outcome), body.answer ? el("span", { class: "answer" }, answerText(body.answer)) : el("span", { class: "dim" }, "no answer")),
    ...rolloutText(body), el("p", { class: "ids" }, itemLink(item.id)));
}

function comparedIds() {
  const item = itemById.get(state.id), [left, right] = comparedItems(item, modelsOf(item.problem));
  return { left: left.id, right: right.id };
}

function choice(label, options, value, onpick) {
  const box = el("select", { "aria-label": label, onchange: (event) => onpick(event.target.value) }, ...options.map(([id, text]) => el("option", { value: id, selected: id === value }, text)));
  return el("label", null, label.split(" ")[0], box);
}

/** A way on, where this problem was sampled by one model alone. */
function nextComparable(item) {
  const other = [...itemsOfProblem.keys()].find((problem) => problem !== item.problem && modelsOf(problem).size > 1);
  if (other === undefined) return null;
  const first = [...modelsOf(other).values()][0][0];
  return button(`Compare on ${first.of.problem_id}`, () => move({ id: first.id, compare: true, left: "", right: "" }));
}
