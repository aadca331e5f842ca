// The index of the page, and the texts: compressed islands that are opened when they are needed.

const page = JSON.parse(byId("index").textContent);

/** Rows of values become objects; the names stand once. */
function records({ fields, rows }) {
  return rows.map((row) => Object.fromEntries(fields.map((name, at) => [name, row[at]])));
}

const problems = records(page.problems);
const items = records(page.items);
items.forEach((item, at) => { item.at = at; item.of = problems[item.problem]; });
const itemById = new Map(items.map((item) => [item.id, item]));
const itemsOfChunk = groupBy(items, (item) => item.chunk);
const itemsOfProblem = groupBy(items, (item) => item.problem);

const parsed = new Promise((resolve) => {
  if (document.readyState !== "loading") resolve();
  else document.addEventListener("DOMContentLoaded", resolve);
});

/** Returns the JSON of a chunk. The browser decompresses beside the page's own thread. */
async function chunkText(number) {
  await parsed;
  const letters = atob(byId(`chunk-${number}`).textContent), bytes = new Uint8Array(letters.length);
  for (let at = 0; at < letters.length; at += 1) bytes[at] = letters.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

/** Returns the bodies of a chunk's JSON, in which a number stands for a text of several places. */
function bodiesIn(json) {
  const { texts, bodies } = JSON.parse(json);
  const told = (text) => (typeof text === "number" ? texts[text] : text);
  for (const body of bodies) {
    body.steps = body.steps.map(told);
    body.turns &&= body.turns.map((turn) => turn.map(told));
    for (const one of body.continuations ?? []) one.text = told(one.text);
  }
  return bodies;
}

const opened = new Map(); // the chunks looked at last, oldest first

function chunk(number) {
  const known = opened.get(number) ?? chunkText(number).then(bodiesIn);
  opened.delete(number);
  opened.set(number, known);
  if (opened.size > 24) opened.delete(opened.keys().next().value);
  return known;
}

/** Returns the texts of an item. */
async function bodyOf(item) {
  return (await chunk(item.chunk))[item.position];
}

const meaning = (name) => (Object.hasOwn(page.meanings, name) ? page.meanings[name] : "");
