// A rollout, and a group of RL: rollouts of one prompt at one iteration, next to each other.

function drawRollout(item, body) {
  return [
    heading(item, `Rollout ${item.id}`, rolloutTags(item)),
    el("div", { class: "columns" }, problemSide(item, body.answer, body.detail), section("Response", ...rolloutText(body))),
    siblings(item),
  ];
}

function rolloutTags(item) {
  return [
    verdictTag(item.outcome), item.model ? tag(item.model) : null, item.eval_set ? tag(item.eval_set) : null,
    item.condition && item.condition !== "problem" ? tag(words(item.condition), "", meaning(item.condition)) : null,
    item.truncated ? tag("truncated", "refused", "It ran out of tokens.") : null,
    item.num_tokens ? el("span", { class: "dim" }, plural(item.num_tokens, "token")) : null,
  ];
}

function rolloutText(body) {
  const given = body.context ? el("div", { class: "given" }, el("span", { class: "label" }, "given, not sampled"), prose(body.context)) : null;
  return [given, steps(body.steps)];
}

/** The other rollouts of the problem, by model: marks that lead to them. */
function siblings(item) {
  const models = modelsOf(item.problem);
  if (!models.size) return null;
  const drawn = [...models].map((model) => el("div", null, modelBar(model),
    el("p", { class: "marks" }, ...model[1].slice(0, 128).map((one) => markLink(one, item)))));
  const isComparable = [...models.values()].flat().length > 1;
  return section(["Rollouts of this problem ", isComparable ? button("Compare", startCompare) : null], el("div", { class: "conditions" }, ...drawn));
}

function markLink(item, current) {
  const link = itemLink(item.id, mark(item.outcome));
  if (item === current) link.setAttribute("aria-current", "true");
  return link;
}

const groupKey = (item) => JSON.stringify([item.arm, item.iteration, item.group, item.problem]);
const rlGroups = groupBy(items.filter((item) => item.kind === "rl"), groupKey);

function drawGroup(item, bodies) {
  const among = rlGroups.get(groupKey(item));
  const counts = countVerdicts(among.map((one) => one.outcome));
  const told = among.map((one, at) => ({ one, body: bodies[at] })).sort((a, b) => (b.one.advantage ?? 0) - (a.one.advantage ?? 0));
  const copies = [...groupBy(told, ({ one, body }) => JSON.stringify([one.outcome, one.advantage, body])).values()];
  return [
    heading(item, `${item.arm || "RL"}, iteration ${item.iteration}, group ${item.group}`, [item.trained ? tag("★ trained on", "trained") : tag("not trained on", "", "All its rewards are the same, or it was left out.")]),
    el("div", { class: "course" }, ...courseLinks(item)),
    verdictBar(counts, among.length),
    el("details", { class: "fold-problem", open: true }, el("summary", null, "Problem, gold answer, reference"), problemStrip(item)),
    el("div", { class: "group" }, ...copies.map((alike) => sample(alike, alike.some(({ one }) => one === item)))),
  ];
}

function problemStrip(item) {
  const { text, answer, reference } = item.of;
  return el("div", { class: "strip" }, prose(text, "card"), el("dl", { class: "answers" }, el("div", null, el("dt", null, "Gold answer"), el("dd", null, answerText(answer)))),
    reference ? fold("Reference solution", () => prose(reference, "card")) : null);
}

/** Identical texts are one card with all their ids. */
function sample(alike, isCurrent) {
  const [{ one: item, body }] = alike;
  return el("article", { class: `sample ${isCurrent ? "current" : ""}`, "aria-current": isCurrent ? "true" : null },
    el("header", null, verdictTag(item.outcome), alike.length > 1 ? el("b", { title: "Identical texts" }, `×${alike.length}`) : null, el("span", { title: "Advantage: what GRPO multiplied its tokens' gradient by" }, `advantage ${signed(item.advantage)}`),
      el("span", { class: "dim" }, plural(item.num_tokens, "token")), body.answer ? el("span", { class: "answer" }, answerText(body.answer)) : null),
    ...rolloutText(body), body.detail ? el("p", { class: "dim" }, body.detail) : null, el("p", { class: "ids" }, ...alike.map(({ one }) => [itemLink(one.id), " "])));
}

/** The same problem in the same arm: the iterations before and after. */
function courseLinks(item) {
  const course = [...rlGroups.values()].map(([first]) => first).filter((one) => one.arm === item.arm && one.problem === item.problem);
  course.sort((one, other) => one.iteration - other.iteration || one.group - other.group);
  const at = course.findIndex((one) => groupKey(one) === groupKey(item));
  const link = (other, text) => (other ? button(text, () => open(other)) : null);
  return [
    link(course[at - 1], `← iteration ${course[at - 1]?.iteration}`), link(course[at + 1], `iteration ${course[at + 1]?.iteration} →`),
    el("span", { class: "dim" }, `${at + 1} of ${plural(course.length, "group")} of this problem in ${item.arm || "this arm"}`),
  ];
}
