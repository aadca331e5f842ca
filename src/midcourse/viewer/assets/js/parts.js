// What proposals, rollouts and groups have in common when they are drawn.

const VERDICTS = ["correct", "incorrect", "no_answer", "ungraded"];

function section(title, ...children) {
  return el("section", null, el("h3", null, title), ...children);
}

function tag(text, name, said) {
  return el("span", { class: `tag ${name ?? ""}`, title: said }, text);
}

const verdictTag = (verdict) => el("span", { class: `tag ${verdict}`, title: meaning(verdict) }, `${SIGNS[verdict] ?? "·"} ${words(verdict)}`);

/** A text behind a line; it is drawn when it is first opened, so that hundreds cost nothing. */
function fold(summary, draw, isOpen) {
  const box = el("details", null, el("summary", null, summary));
  const fill = () => { if (box.open && box.childElementCount === 1) { box.append(draw()); highlight(trace); } };
  box.addEventListener("toggle", fill);
  if (isOpen) { box.open = true; box.append(draw()); }
  return box;
}

function problemSide(item, answer, detail) {
  const { text, answer: gold, reference, source, split } = item.of;
  const about = [source, split].filter(Boolean).join(", ");
  return el("div", { class: "side" },
    section(["Problem ", el("span", { class: "dim" }, about)], prose(text, "card")),
    answers(gold, answer, item, detail),
    reference ? el("section", null, fold("Reference solution", () => prose(reference, "card"), reference.length < 4000)) : null);
}

function answers(gold, answer, item, detail) {
  const verdict = item.kind === "proposal" ? "incorrect" : item.outcome;
  return el("dl", { class: "answers" },
    el("div", null, el("dt", null, "Gold answer"), el("dd", null, answerText(gold))),
    el("div", null, el("dt", null, item.kind === "proposal" ? "The rollout's answer" : "Its answer"),
      el("dd", { class: verdict }, answer ? [mark(verdict), " ", answerText(answer)] : el("span", { class: "dim" }, "none"))),
    detail ? el("div", null, el("dt", null, "Its tests"), el("dd", { class: verdict }, detail)) : null);
}

/** An answer is often LaTeX without dollars. */
function answerText(answer) {
  const looksLikeMath = /[\\^_]/.test(answer) && !answer.includes("$");
  const formula = show.raw || !looksLikeMath ? null : typeset(answer, false);
  return formula ?? phrase(answer);
}

function stepItem(number, label, text, name) {
  return el("li", { class: `step ${name ?? ""}`, value: number },
    el("span", { class: "number", "aria-hidden": "true" }, number ?? ""), el("div", { class: "words" }, label ? el("span", { class: "label" }, label) : null, text));
}

const steps = (texts, first) => el("ol", { class: "steps" }, ...texts.map((text, at) => stepItem((first ?? 1) + at, null, prose(text))));

/** A bar of verdicts with its words: colour and length only repeat them. */
function verdictBar(counts, total) {
  const named = VERDICTS.filter((verdict) => counts[verdict]);
  const bar = el("span", { class: "shares", "aria-hidden": "true" });
  for (const verdict of named) {
    const share = el("span", { class: verdict });
    share.style.flexGrow = counts[verdict];
    bar.append(share);
  }
  const said = named.map((verdict) => `${SIGNS[verdict]} ${counts[verdict]} ${words(verdict)}`).join(", ");
  return el("div", { class: "verdicts" }, bar, el("span", null, el("b", null, `${counts.correct ?? 0} of ${total} correct`), el("span", { class: "dim" }, ` ${said}`)));
}

function countVerdicts(verdicts) {
  const counts = {};
  for (const verdict of verdicts) counts[verdict] = (counts[verdict] ?? 0) + 1;
  return counts;
}

/** A link within the page to an item, if it is in the page; else its id as text. */
function itemLink(id, text) {
  const item = itemById.get(id);
  if (!item) return el("code", null, id);
  return el("a", { href: address({ ...state, id, compare: false }), onclick: (event) => { event.preventDefault(); open(item, { compare: false }); } }, text ?? id);
}
