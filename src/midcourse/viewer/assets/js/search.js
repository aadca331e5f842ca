// Full-text search: index fields at once, the texts chunk by chunk in the background.

const LOWERED = 150e6; // characters of lower-case text kept for the next search
const lowered = new Map();
let kept = 0;

const search = { query: "", hits: new Set(), run: 0 };

/** What the index knows of an item, in lower case. */
function indexed(item) {
  const { problem_id, text, answer, reference } = item.of;
  item.of.lower ??= [problem_id, text, answer, reference].join("\n").toLowerCase();
  item.lower ??= [item.id, item.title, item.model].join("\n").toLowerCase();
  return item;
}

function isFound(item) {
  if (!search.query) return true;
  const { lower, of } = indexed(item);
  return lower.includes(search.query) || of.lower.includes(search.query) || search.hits.has(item.at);
}

function textsOf(body) {
  const continuations = (body.continuations ?? []).flatMap((one) => [one.rollout_id, one.text, one.answer, one.detail]);
  const own = [body.rollout_id, body.answer, body.intervention, body.detail, body.context];
  return [...own, ...body.steps, ...(body.turns ?? []).flat(), ...continuations].join("\n").toLowerCase();
}

async function loweredText(number) {
  if (lowered.has(number)) return lowered.get(number);
  const text = (await chunkText(number)).toLowerCase();
  if (kept + text.length <= LOWERED) {
    kept += text.length;
    lowered.set(number, text);
  }
  return text;
}

/** Searches the texts; `onprogress` is called with the share done, last with 1. A later search ends this one. */
async function searchTexts(query, onprogress) {
  const run = ++search.run;
  search.query = query.toLowerCase();
  search.hits = new Set();
  if (!search.query) return onprogress(1);
  let told = performance.now(), cost = 0, done = 0;
  for (const waiting = [...itemsOfChunk]; waiting.length;) {
    if (run !== search.run) return;
    const batch = waiting.splice(0, 4); // while one is searched, the browser decompresses the others
    await Promise.all(batch.map(([number, among]) => searchChunk(number, among, run)));
    done += batch.length;
    if (performance.now() - told < Math.max(60, 5 * cost)) continue; // to list much is work too
    cost = -performance.now();
    onprogress(done / itemsOfChunk.size);
    await new Promise((resume) => { setTimeout(resume); });
    told = performance.now();
    cost += told;
  }
  if (run === search.run) onprogress(1);
}

/** The JSON of a chunk tells at once whether any of its texts can match. */
async function searchChunk(number, among, run) {
  const written = JSON.stringify(search.query).slice(1, -1).toLowerCase();
  if (!(await loweredText(number)).includes(written)) return;
  const bodies = bodiesIn(await chunkText(number));
  if (run !== search.run) return;
  for (const item of among) {
    if (textsOf(bodies[item.position]).includes(search.query)) search.hits.add(item.at);
  }
}

/** Marks what was searched for in the trace, without touching its nodes. */
function highlight(root) {
  if (!window.Highlight || !CSS.highlights) return;
  CSS.highlights.clear();
  if (!search.query) return;
  const marks = new Highlight(), walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode()) && marks.size < 2000;) {
    const text = node.data.toLowerCase();
    for (let at = text.indexOf(search.query); at >= 0 && at + search.query.length <= node.length; at = text.indexOf(search.query, at + search.query.length)) {
      const range = new Range();
      range.setStart(node, at);
      range.setEnd(node, at + search.query.length);
      marks.add(range);
    }
  }
  CSS.highlights.set("found", marks);
}
