// A text of a model, problem or proposer: as it was written, or with its formulas typeset.

const LONG = 20000; // characters shown at first
const HUGE = 200000; // more is never typeset: a browser would think for minutes

const show = { raw: remembered.get("raw") === "true" };

/** Returns a block with the text; a long one is cut, with a button for all of it. */
function prose(text, name) {
  const block = el("div", { class: `prose ${name ?? ""} ${show.raw ? "raw" : ""}` });
  write(block, text.slice(0, LONG));
  if (text.length > LONG) {
    const more = button(`Show all ${number(text.length)} characters`, () => {
      block.replaceChildren();
      write(block, text);
    }, { class: "more" });
    block.append(more);
  }
  return block;
}

/** The beginning of a text in one line, its formulas typeset if they are whole. */
function gist(text) {
  const line = text.slice(0, 160).replace(/[ \t\n]+/g, " ");
  if (show.raw) return [line];
  return segments(line).map((part) => (part.tex === undefined ? null : typeset(part.tex, false)) ?? part.text);
}

/** As `prose`, in a line. */
function phrase(text) {
  const line = el("span", { class: show.raw ? "raw" : null });
  write(line, text.slice(0, LONG));
  return line;
}

function write(block, text) {
  if (show.raw || text.length > HUGE) block.append(visible(text));
  else segments(trimmed(text.replaceAll("\r\n", "\n"), true, true)).forEach((part, at, all) => writePart(block, part, all[at - 1], all[at + 1]));
}

function writePart(block, part, before, after) {
  const formula = part.tex === undefined ? null : typeset(part.tex, part.display);
  if (formula) block.append(formula);
  else writeWords(block, trimAround(part, before, after));
}

/** A display formula is a block of its own: the line breaks that set it off are not needed twice. */
function trimAround(part, before, after) {
  return trimmed(part.text, before?.display, after?.display);
}

/** Blanks and empty lines go at either end; what `trim` takes besides is shown. */
function trimmed(text, atStart, atEnd) {
  let from = 0, to = text.length;
  while (atStart && from < to && " \t\n".includes(text[from])) from += 1;
  while (atEnd && to > from && " \t\n".includes(text[to - 1])) to -= 1;
  return text.slice(from, to);
}

const EMPHASIS = /(^|\n)(#{1,5}) +([^\n]+)|(?<![\w*])\*\*(?=\S)([^*\n]{1,300}?)(?<=\S)\*\*(?![\w*])/g;

/** Headings and bold words, which models write by habit; all else stays as it is. */
function writeWords(block, text) {
  let done = 0;
  for (const match of text.matchAll(EMPHASIS)) {
    writeParagraphs(block, text.slice(done, match.index) + (match[1] ?? ""));
    block.append(el("strong", null, (match[3] ?? match[4]).replaceAll("**", "")));
    done = match.index + match[0].length;
  }
  writeParagraphs(block, text.slice(done));
}

/** Half a line sets paragraphs off, however many empty ones were written. */
function writeParagraphs(block, text) {
  text.split(/\n[ \t]*\n[ \t\n]*/).forEach((paragraph, at) => {
    if (at) block.append(el("span", { class: "gap-line" }));
    block.append(visible(paragraph));
  });
}
