// Starts the page: the address says what is shown first.

function showAddress() {
  const wanted = readAddress(location.hash), isSearched = wanted.query.toLowerCase() === search.query;
  state = { ...wanted };
  if (!location.hash && items.some((item) => item.kind === "proposal")) state.kind = "proposal"; // what one comes for
  byId("query").value = state.query;
  if (state.id) document.body.dataset.pane = "trace";
  applyFilters();
  if (!state.id && shown.length) {
    state.id = shown[0].id;
    history.replaceState(null, "", address(state));
  }
  reveal();
  draw();
  if (!isSearched) runSearch(state.query, Boolean(wanted.id));
}

function listen() {
  byId("query").addEventListener("input", onType);
  byId("sort").addEventListener("change", (event) => reorder({ sort: event.target.value }));
  byId("direction").addEventListener("click", () => reorder({ descending: !state.descending }));
  byId("fold-groups").addEventListener("click", foldAllGroups);
  byId("raw").addEventListener("click", toggleRaw);
  byId("theme").addEventListener("click", nextTheme);
  byId("ask-help").addEventListener("click", () => byId("help").showModal());
  byId("skip").addEventListener("click", () => { document.body.dataset.pane = "trace"; trace.focus(); });
  document.addEventListener("keydown", onKey);
  list.addEventListener("scroll", () => requestAnimationFrame(paint));
  new ResizeObserver(paint).observe(list);
  window.addEventListener("popstate", showAddress);
  window.addEventListener("hashchange", () => { if (address(state) !== location.hash) showAddress(); });
  window.addEventListener("beforeprint", () => unfold([...trace.querySelectorAll("details")], true));
}

function start() {
  byId("sort").append(...SORTS.map(({ key, label }) => el("option", { value: key }, label)));
  byId("facts").append(...page.facts.map(([name, value]) => el("div", null, el("dt", null, name), el("dd", null, value))));
  byId("about").hidden = !page.facts.length;
  setTheme(THEMES.includes(remembered.get("theme")) ? remembered.get("theme") : "system");
  setRaw(show.raw);
  drawHelp();
  listen();
  if (matchMedia("(min-width: 60rem) and (min-height: 50rem)").matches) byId("filters").open = true;
  showAddress();
}

start();
