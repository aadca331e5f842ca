// The end of a training row, token by token: which carry loss, and how likely each was to a model.

const SHADES = [["base", "Base"], ["patched", "Patched"], ["difference", "Difference"]];
const percent = (value) => (value === null ? "not scored" : `${(100 * value).toFixed(value < 0.0995 ? 2 : 1)} %`);

function tokenStrip(tokens) {
  const strip = el("div", { class: "tokens", role: "listbox", "aria-label": "Tokens: arrow keys move", tabindex: 0 });
  const readout = el("p", { class: "readout", role: "status" }, "Point at a token, or move with the arrow keys.");
  const isScored = tokens.some((token) => token.base !== null || token.patched !== null);
  let at = -1;
  const tell = (next) => {
    if (next < 0 || next >= tokens.length) return;
    strip.children[at]?.classList.remove("at");
    at = next;
    strip.children[at].classList.add("at");
    strip.setAttribute("aria-activedescendant", strip.children[at].id);
    readout.replaceChildren(...tokenFacts(tokens[at], at));
  };
  tokens.forEach((token, index) => strip.append(el("span", {
    id: `token-${index}`, role: "option", class: token.trained ? "trained" : "masked", title: tokenTitle(token),
    onmouseenter: () => tell(index), onclick: () => tell(index),
  }, shownToken(token.text))));
  strip.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    tell(Math.max(0, at + step));
  });
  return [isScored ? shadeSwitch(strip, tokens) : null, legend(isScored), strip, readout];
}

const shownToken = (text) => text.replaceAll("\n", "⏎\n");
const tokenTitle = ({ base, patched, trained }) =>
  `${trained ? "loss" : "no loss"}${base === null && patched === null ? "" : `; base ${percent(base)}, patched ${percent(patched)}`}`;

function tokenFacts({ text, trained, base, patched }, at) {
  const change = base === null || patched === null ? "" : `, ${signed(100 * (patched - base))} points`;
  return [el("code", null, JSON.stringify(visible(text))), visible(` token ${at + 1}, ${trained ? "carries loss" : "no loss"}. `),
    el("span", null, `Probability: base ${percent(base)}, patched ${percent(patched)}${change}`)];
}

function shadeSwitch(strip, tokens) {
  const buttons = SHADES.map(([name, label]) => button(label, () => shade(name), { "aria-pressed": "false" }));
  const shade = (name) => {
    buttons.forEach((one, at) => one.setAttribute("aria-pressed", String(SHADES[at][0] === name)));
    tokens.forEach((token, at) => { strip.children[at].dataset.shade = shadeOf(token, name); });
  };
  const isPatched = tokens.some((token) => token.patched !== null);
  shade(isPatched ? "patched" : "base");
  return el("div", { class: "chips", role: "group", "aria-label": "Shade by the probability under" }, ...buttons);
}

/** Returns the class of a probability: 0 to 9, of a difference `+1` to `+4` or `-1` to `-4`. */
function shadeOf({ base, patched }, name) {
  if (name === "difference") {
    if (base === null || patched === null) return "none";
    const size = Math.min(4, Math.ceil(Math.abs(patched - base) * 8));
    return Math.abs(patched - base) < 0.01 ? "0" : (patched > base ? "+" : "-") + size;
  }
  const value = name === "base" ? base : patched;
  return value === null ? "none" : `p${Math.min(9, Math.floor(value * 10))}`;
}

function legend(isScored) {
  const scale = (shades) => shades.map((name) => el("i", { "data-shade": name, "aria-hidden": "true" }));
  return el("p", { class: "legend" },
    el("span", { class: "trained" }, "underlined"), " carries loss; ", el("span", { class: "masked" }, "grey"), " does not. Nothing closes the turn.",
    isScored ? el("span", { class: "scale" }, " unlikely ", ...scale(["p0", "p2", "p4", "p6", "p8", "p9"]), " likely; difference: less ",
      ...scale(["-4", "-2", "0", "+2", "+4"]), " more likely after the patch") : null);
}
