// What is looked at and how: it stands in the address, so that a link or Back shows the same.

const isSample = (item) => item.kind !== "proposal";
const yesNo = (value) => (value === null ? null : value ? "yes" : "no");

/** What can be filtered by; an item without a value is in none of its groups. */
const FIELDS = [
  { key: "status", label: "Problem", of: (item) => item.of.status || null, text: words },
  { key: "source", label: "Source", of: (item) => item.of.source || null },
  { key: "outcome", label: "Outcome", of: (item) => (isSample(item) ? null : item.outcome), text: words },
  { key: "verified", label: "Verified", of: (item) => (isSample(item) ? null : yesNo(item.verified) ?? "not drawn") },
  { key: "verdict", label: "Verdict", of: (item) => (isSample(item) ? item.outcome : null), text: words },
  { key: "trained", label: "Trained on", of: (item) => (item.kind === "rollout" ? null : yesNo(item.trained)) },
  { key: "location", label: "First error", of: (item) => item.location, text: (value) => `step ${value}` },
  { key: "model", label: "Model", of: (item) => item.model || null },
  { key: "set", label: "Evaluation set", of: (item) => item.eval_set || null },
  { key: "condition", label: "Condition", of: (item) => item.condition || null, text: words },
  { key: "truncated", label: "Truncated", of: (item) => (isSample(item) ? yesNo(item.truncated) : null) },
  { key: "arm", label: "RL arm", of: (item) => item.arm || null },
  { key: "iteration", label: "RL iteration", of: (item) => item.iteration },
];
const KINDS = [["", "All"], ["proposal", "Proposals"], ["rollout", "Rollouts"], ["rl", "RL"]];

const kindRank = (item) => KINDS.findIndex(([kind]) => kind === item.kind);
const rate = (item) => (item.num_continuations ? item.num_correct / item.num_continuations : null);
const SORTS = [
  { key: "problem", label: "problem", of: (item) => item.problem },
  { key: "rate", label: "success rate", of: rate },
  { key: "location", label: "first error", of: (item) => item.location },
  { key: "length", label: "length", of: (item) => item.num_tokens },
  { key: "advantage", label: "advantage", of: (item) => item.advantage },
  { key: "iteration", label: "iteration", of: (item) => item.iteration },
];

const initial = () => ({ id: "", kind: "", filters: {}, query: "", sort: "problem", descending: false, compare: false, left: "", right: "" });
let state = initial();
let searched = items; // the items that the search finds
let shown = []; // those that pass the filters too, in order

const fieldText = (field, value) => (field.text ?? String)(value);
const passesField = (item, field) => !(field.key in state.filters) || String(field.of(item)) === state.filters[field.key];
const passesKind = (item) => !state.kind || item.kind === state.kind;

function select() {
  const used = FIELDS.filter((field) => field.key in state.filters);
  searched = items.filter(isFound);
  shown = searched.filter((item) => passesKind(item) && used.every((field) => passesField(item, field)));
  const { of } = SORTS.find((sort) => sort.key === state.sort), sign = state.descending ? -1 : 1;
  shown.sort((one, other) => order(of(one), of(other), sign) || one.problem - other.problem || kindRank(one) - kindRank(other) || one.at - other.at);
}

/** Items without a value come last in either direction. */
function order(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);
  return sign * (one - other);
}

/** Returns the values of a field with how many items each would leave, given the other filters. */
function choices(field) {
  const others = FIELDS.filter((other) => other !== field && other.key in state.filters);
  const counts = new Map();
  for (const item of searched) {
    const value = field.of(item);
    if (value === null || !passesKind(item) || !others.every((other) => passesField(item, other))) continue;
    counts.set(value, (counts.get(value) ?? 0) + 1);
  }
  return [...counts].sort(([one], [other]) => (typeof one === "number" ? one - other : one < other ? -1 : 1));
}

/** Returns the address of a state: `#ID`, then the filters, those in use alone. */
function address(at) {
  const said = new URLSearchParams();
  if (at.kind) said.set("kind", at.kind);
  for (const [key, value] of Object.entries(at.filters)) said.set(key, value);
  if (at.query) said.set("q", at.query);
  if (at.sort !== "problem") said.set("sort", at.sort);
  if (at.descending) said.set("order", "descending");
  if (at.compare) said.set("compare", `${encodeURIComponent(at.left)},${encodeURIComponent(at.right)}`);
  return `#${encodeURIComponent(at.id)}${said.size ? "?" + said : ""}`;
}

function readAddress(hash) {
  const [id, query] = hash.replace(/^#/, "").split("?", 2), said = new URLSearchParams(query ?? "");
  const known = FIELDS.filter((field) => said.has(field.key)).map((field) => [field.key, said.get(field.key)]);
  const sort = SORTS.some((one) => one.key === said.get("sort")) ? said.get("sort") : "problem";
  const [left, right] = (said.get("compare") ?? "").split(",").map(decoded);
  return {
    id: decoded(id), kind: said.get("kind") ?? "", filters: Object.fromEntries(known), query: said.get("q") ?? "", sort,
    descending: said.get("order") === "descending", compare: said.has("compare"), left: left ?? "", right: right ?? "",
  };
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}
