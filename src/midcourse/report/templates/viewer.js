"use strict";
const traces = JSON.parse(document.getElementById("traces").textContent);
const list = document.getElementById("list"), detail = document.getElementById("detail");
const query = document.getElementById("query"), outcome = document.getElementById("outcome");
let shown = [], current = -1;
const visible = (text) => text.replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, (c) => "\\x" + c.charCodeAt(0).toString(16).padStart(2, "0"));
function add(parent, tag, text, name) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = visible(text);
  if (name) node.className = name;
  parent.append(node);
  return node;
}
function open(position) {
  if (position < 0 || position >= shown.length) return;
  current = position;
  [...list.children].forEach((button, i) => button.setAttribute("aria-current", i === position));
  list.children[position]?.scrollIntoView({ block: "nearest" });
  draw(shown[position]);
}
function draw(trace) {
  detail.replaceChildren();
  add(detail, "h3", `Problem ${trace.problem_id}`); add(detail, "pre", trace.problem);
  add(detail, "h3", `Reference solution (answer ${trace.answer})`); add(detail, "pre", trace.reference);
  if (trace.samples) drawGroup(trace);
  else drawProposal(trace);
}
function counted(verdicts) {
  return Object.entries(verdicts).map(([name, count]) => `${count} ${name}`).join(", ");
}
function drawGroup(trace) {
  add(detail, "h3", `${trace.group}: ${counted(trace.verdicts)}`);
  trace.samples.forEach((sample) => {
    add(detail, "h3", `[${sample.verdict}] advantage ${sample.advantage}, rollout ${sample.rollout_id}`);
    add(detail, "div", sample.text, "step");
  });
}
function drawProposal(trace) {
  add(detail, "h3", `Incorrect rollout ${trace.rollout_id}`);
  trace.steps.forEach((step, i) => {
    const at = trace.location === null ? -1 : trace.location - 1;
    if (i === at && trace.intervention) add(detail, "div", trace.intervention, "step new");
    add(detail, "div", step, "step" + (at < 0 || i < at ? "" : i === at ? " error" : " after"));
  });
  add(detail, "h3", `Proposal ${trace.proposal_id}: ${trace.outcome} ${trace.detail}`);
  const verdicts = counted(trace.verdicts);
  if (verdicts) {
    add(detail, "h3", `Continuations: ${verdicts} (first ${trace.continuations.length} shown)`);
    trace.continuations.forEach(([text, verdict]) => { add(detail, "div", `[${verdict}] ${text}`, "step"); });
  }
  if (trace.tokens.length) {
    add(detail, "h3", "Training row: marked tokens carry loss; nothing closes the turn");
    const strip = add(detail, "div", undefined, "tokens");
    trace.tokens.forEach(([text, trained]) => add(strip, "span", text, trained ? "trained" : ""));
  }
  trace.turns.forEach(([prompt, reply], i) => {
    add(detail, "h3", `Proposer, turn ${i + 1}`);
    add(add(detail, "details"), "summary", "prompt").after(Object.assign(document.createElement("pre"), { textContent: visible(prompt) }));
    add(detail, "pre", reply);
  });
}
function words(trace) {
  const samples = (trace.samples ?? []).flatMap((sample) => [sample.rollout_id, sample.text]);
  return [trace.problem_id, trace.proposal_id, trace.rollout_id, trace.group, trace.problem, ...samples].join("\n").toLowerCase();
}
function refresh() {
  const wanted = query.value.toLowerCase();
  shown = traces.filter((t) => (!outcome.value || t.outcome === outcome.value) && (!wanted || words(t).includes(wanted)));
  list.replaceChildren();
  shown.slice(0, 500).forEach((trace, i) => {
    const correct = trace.verdicts.correct ?? 0;
    const button = add(list, "button", `${trace.outcome}${correct ? ` · ${correct} correct` : ""} — ${trace.problem.slice(0, 60)}`);
    button.addEventListener("click", () => open(i));
  });
  if (shown.length > 500) add(list, "p", `${shown.length - 500} more: narrow the filter`);
  open(0);
}
[...new Set(traces.map((t) => t.outcome))].sort().forEach((name) => { const o = add(outcome, "option", name); o.value = name; });
query.addEventListener("input", refresh);
outcome.addEventListener("change", refresh);
document.addEventListener("keydown", (event) => {
  if (event.target === query) return;
  if (event.key === "j") open(current + 1);
  else if (event.key === "k") open(current - 1);
  else if (event.key === "/") { event.preventDefault(); query.focus(); }
});
refresh();
