// A proposal: the failed rollout, the step that is replaced, the intervention, and what it was worth.

function drawProposal(item, body) {
  return [
    heading(item, `Proposal ${item.id}`, proposalTags(item)),
    el("p", { class: "said" }, meaning(item.outcome), body.detail ? ` (${body.detail})` : "", verifiedWords(item)),
    el("div", { class: "columns" }, problemSide(item, body.answer),
      section(["Failed rollout ", itemLink(body.rollout_id), item.model ? el("span", { class: "dim" }, ` reviewed by ${item.model}`) : null],
        proposalSteps(item, body))),
    body.continuations.length ? continuations(body.continuations) : null,
    body.tokens.length ? section("Training row, its end", ...tokenStrip(body.tokens)) : null,
    body.turns.length ? turns(body.turns) : null,
  ];
}

function proposalTags(item) {
  const name = item.outcome === "accepted" ? "accepted" : "refused";
  return [
    tag(`${SIGNS[name]} ${words(item.outcome)}`, name, meaning(item.outcome)),
    item.verified === null ? null : tag(item.verified ? "✓ verified" : "✗ not verified", item.verified ? "correct" : "incorrect"),
    item.trained ? tag("★ trained on", "trained") : null,
  ];
}

function verifiedWords(item) {
  if (item.verified === null) return "";
  return ` ${item.num_correct} of ${plural(item.num_continuations, "continuation")} after the intervention ${item.num_correct === 1 ? "is" : "are"} correct.`;
}

function proposalSteps(item, body) {
  const at = item.location === null ? body.steps.length : item.location - 1;
  const stepsBefore = body.steps.slice(0, at).map((text, index) => stepItem(index + 1, null, prose(text)));
  if (at >= body.steps.length) return el("ol", { class: "steps" }, ...stepsBefore, ...interventionItem(item, body));
  const wrong = stepItem(at + 1, `✗ first error, step ${at + 1}`, el("del", null, prose(body.steps[at])), "error");
  const after = body.steps.slice(at + 1).map((text, index) => stepItem(at + 2 + index, index ? null : "after the error", prose(text), "after"));
  return el("ol", { class: "steps" }, ...stepsBefore, wrong, ...interventionItem(item, body), ...after);
}

function interventionItem(item, body) {
  if (!body.intervention) return [];
  const place = item.location === null ? "" : `, in place of step ${item.location}`;
  const refused = item.outcome === "accepted" ? "" : `, refused: ${words(item.outcome)}`;
  return [stepItem(item.location, `✎ intervention${place}${refused}`, prose(body.intervention), "intervention")];
}

function continuations(all) {
  const byCondition = [...groupBy(all, (one) => one.condition)];
  byCondition.sort(([one], [other]) => conditionRank(one) - conditionRank(other));
  const drawn = byCondition.map(([condition, among], at) => conditionBox(condition, among, at === 0));
  return section(`Continuations (${number(all.length)})`, el("div", { class: "conditions" }, ...drawn));
}

function conditionBox(condition, among, isFirst) {
  const texts = identical(among);
  return el("article", { class: "condition" },
    el("h4", { title: meaning(condition) }, CONDITIONS[condition] ?? words(condition)),
    verdictBar(countVerdicts(among.map((one) => one.verdict)), among.length),
    ...texts.map((copies, at) => continuation(copies, isFirst && at === 0)));
}

const CONDITIONS = {
  __proto__: null,
  prefix_intervention: "After the intervention", prefix_error: "After the original step", prefix: "After the steps before the error",
  problem: "From the problem alone", hint: "With a hint", hint_prefix: "With a hint, after the steps before the error",
  hint_prefix_intervention: "With a hint, after the intervention",
};

/** The intervention next to what it has to beat; then whatever else was drawn. */
function conditionRank(condition) {
  const at = Object.keys(CONDITIONS).indexOf(condition);
  return at < 0 ? 99 : at;
}

/** Groups of one text and verdict, correct ones first, then the most frequent. */
function identical(all) {
  const rank = (copies) => (VERDICTS.indexOf(copies[0].verdict) + VERDICTS.length + 1) % (VERDICTS.length + 1);
  const groups = [...groupBy(all, (one) => JSON.stringify([one.verdict, one.answer, one.text])).values()];
  return groups.sort((one, other) => rank(one) - rank(other) || other.length - one.length);
}

function continuation(copies, isOpen) {
  const [{ verdict, answer, text, detail }] = copies;
  const summary = el("span", { class: "line" }, verdictTag(verdict), answer ? el("span", { class: "answer" }, answerText(answer)) : null,
    copies.length > 1 ? el("b", { title: `${copies.length} identical texts` }, `×${copies.length}`) : null,
    el("span", { class: "dim start" }, gist(text)));
  return fold(summary, () => el("div", null, prose(text), detail ? el("p", { class: "dim" }, detail) : null, el("p", { class: "ids" }, someIds(copies))), isOpen);
}

function someIds(copies) {
  const ids = copies.slice(0, 3).map((one) => one.rollout_id).join(" ");
  return copies.length > 3 ? `${ids} and ${copies.length - 3} more` : ids;
}

function turns(all) {
  const drawn = all.flatMap(([prompt, reply], at) => [
    fold(`Turn ${at + 1}, prompt (${plural(prompt.length, "character")})`, () => prose(prompt, "card")),
    fold(`Turn ${at + 1}, reply (${plural(reply.length, "character")})`, () => prose(reply, "card")),
  ]);
  return section("The proposer's chat", ...drawn);
}
