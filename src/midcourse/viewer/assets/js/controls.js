// Search, filters, sorting and the look of the page.

function drawKinds() {
  const counts = groupBy(items, (item) => item.kind);
  const chips = KINDS.filter(([kind]) => !kind || counts.has(kind)).map(([kind, label]) => button(
    kind ? `${label} ${number(counts.get(kind).length)}` : label, () => refine({ kind, filters: {} }), { "aria-pressed": String(state.kind === kind) }));
  byId("kinds").replaceChildren(...(chips.length > 2 ? chips : []));
}

function drawFields() {
  const focused = document.activeElement?.id;
  const boxes = FIELDS.map(fieldChoice).filter(Boolean);
  byId("fields").replaceChildren(...boxes);
  byId("filters").hidden = !boxes.length;
  if (focused?.startsWith("by-")) byId(focused)?.focus();
}

function fieldChoice(field) {
  const found = choices(field), chosen = state.filters[field.key];
  if (found.length < 2 && chosen === undefined) return null;
  if (chosen !== undefined && !found.some(([value]) => String(value) === chosen)) found.push([chosen, 0]);
  const options = found.map(([value, count]) => el("option", { value, selected: String(value) === chosen }, `${fieldText(field, value)} (${number(count)})`));
  const pick = (event) => {
    const { [field.key]: _, ...others } = state.filters;
    refine({ filters: event.target.value === "" ? others : { ...others, [field.key]: event.target.value } });
  };
  return el("select", { id: `by-${field.key}`, "aria-label": field.label, class: chosen === undefined ? null : "used", onchange: pick },
    el("option", { value: "" }, `${field.label}: any`), ...options);
}

function drawActive() {
  const used = FIELDS.filter((field) => field.key in state.filters);
  const chips = used.map((field) => button(`${field.label}: ${fieldText(field, state.filters[field.key])} ✕`, () => {
    const { [field.key]: _, ...others } = state.filters;
    refine({ filters: others });
  }, { class: "chip", "aria-label": `Remove the filter ${field.label}: ${state.filters[field.key]}` }));
  byId("active").replaceChildren(...chips);
}

function drawCount() {
  const isNarrowed = state.kind || state.query || Object.keys(state.filters).length;
  const among = new Set(shown.map((item) => item.problem)).size;
  byId("count").replaceChildren(el("b", null, number(shown.length)), visible(` of ${number(items.length)}, ${plural(among, "problem")}`),
    ...(isNarrowed ? [" ", button("Reset", reset, { class: "link" })] : []));
}

/** Changes filters or order. The address is replaced: Back leads to the trace before, not to each letter. */
function refine(changes) {
  state = { ...state, ...changes };
  applyFilters();
  const isListed = shown.some((item) => item.id === state.id);
  if (!isListed) state = { ...state, id: shown[0]?.id ?? "", left: "", right: "" };
  history.replaceState(null, "", address(state));
  list.scrollTop = 0;
  reveal();
  if (!isListed) draw();
}

/** Changes the order, of which the top is looked at first. */
function reorder(changes) {
  refine(changes);
  list.scrollTop = 0;
  paint();
}

function applyFilters() {
  select();
  layOut();
  drawKinds();
  drawFields();
  drawActive();
  drawCount();
  drawOrder();
}

function drawOrder() {
  byId("sort").value = state.sort;
  const said = state.descending ? "descending" : "ascending";
  byId("direction").textContent = state.descending ? "↓" : "↑";
  byId("direction").setAttribute("aria-label", `Direction: ${said}`);
  byId("fold-groups").hidden = !isGrouped();
}

function reset() {
  byId("query").value = "";
  state = { ...initial(), id: state.id, sort: state.sort, descending: state.descending };
  runSearch("");
}

let typing = 0;

function onType(event) {
  clearTimeout(typing);
  typing = setTimeout(runSearch, 180, event.target.value);
}

/** Searches; what is found so far is listed while the rest is read. A linked trace stays where it is. */
function runSearch(query, isLinked) {
  const bar = byId("progress");
  const update = (done) => {
    bar.hidden = done === 1;
    bar.value = done;
    if (done < 1 || isLinked) applyFilters();
    else refine({});
    if (done === 1) highlight(trace);
  };
  state = { ...state, query };
  searchTexts(query, update);
  if (query) update(0);
}

const THEMES = ["system", "light", "dark"];

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Theme: ${theme}`;
  remembered.set("theme", theme);
}

function nextTheme() {
  setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
}

function setRaw(raw) {
  show.raw = raw;
  remembered.set("raw", String(raw));
  byId("raw").setAttribute("aria-pressed", String(raw));
}

function toggleRaw() {
  setRaw(!show.raw);
  const { scrollTop } = trace;
  draw().then(() => { trace.scrollTop = scrollTop; });
}
