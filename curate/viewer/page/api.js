// What the page knows, where it asks, and the address that leads back to what is shown.
"use strict";

const PAGE = 48;
const DEFAULTS = { filters: [], search: "", sort: "", descending: false, selection: "" };

/** `ask` is the question, `clips` the answer so far, `chosen` the clip under the keys, `open` the one shown large. */
const state = { facts: null, columns: new Map(), ask: { ...DEFAULTS }, clips: [], n: 0, hours: 0, chosen: "", open: "" };

/** The answer to a question, or an error in the server's words. */
async function request(path, params = {}, options = {}) {
  const query = new URLSearchParams(params).toString();
  let response;
  try {
    response = await fetch(query ? `${path}?${query}` : path, options);
  } catch {
    throw new Error("The server does not answer: is `curate view` still running?");
  }
  const kind = response.headers.get("content-type") ?? "";
  const body = kind.startsWith("application/json") ? await response.json() : { error: await response.text() };
  if (!response.ok) throw new Error(body.error || `The server answered ${response.status}.`);
  return body;
}

/** Take over what the server knows of the corpus. */
async function readFacts() {
  state.facts = await request("/api/facts");
  state.columns = new Map(state.facts.columns.map((column) => [column.name, column]));
}

/** Some of the clips that are asked for. */
function readClips(offset, limit = PAGE) {
  const question = { ...state.ask, offset, limit, show: captionColumn() ? [captionColumn()] : [] };
  return request("/api/clips", { q: JSON.stringify(question) });
}

function sendMarks(clips, verdict, note = "") {
  const body = JSON.stringify({ clips, verdict, note });
  return request("/api/marks", {}, { method: "POST", headers: { "content-type": "application/json" }, body });
}

/** The column of the last captioner of the recipe: the one that chooses, where there is one. */
function captionColumn() {
  return [...state.columns.keys()].filter((name) => /^caption\..*\.caption$/.test(name)).pop() ?? "";
}

/** What stands behind # in the address. */
function toHash() {
  const asked = Object.fromEntries(Object.entries(state.ask).filter(([key, what]) => JSON.stringify(what) !== JSON.stringify(DEFAULTS[key])));
  const parts = new URLSearchParams();
  if (Object.keys(asked).length) parts.set("q", JSON.stringify(asked));
  if (state.open) parts.set("clip", state.open);
  return parts.toString();
}

/** Take over what stands there; nonsense counts as nothing. */
function fromHash() {
  const parts = new URLSearchParams(location.hash.slice(1));
  let asked = {};
  try {
    asked = JSON.parse(parts.get("q") ?? "{}");
  } catch {
    asked = {};
  }
  const known = Object.keys(DEFAULTS).filter((key) => asked !== null && typeof asked[key] === typeof DEFAULTS[key]);
  state.ask = { ...DEFAULTS, ...Object.fromEntries(known.map((key) => [key, asked[key]])) };
  if (!Array.isArray(state.ask.filters)) state.ask.filters = [];
  if (!parts.has("q")) state.ask.selection = state.facts.selections[0] ?? "";
  state.open = /^[0-9a-f]{32}$/.test(parts.get("clip") ?? "") ? parts.get("clip") : "";
}

/** Keep the address up to date; a new question is a step back and forth in the browser. */
function keepHash(step) {
  const hash = toHash();
  if (hash === location.hash.slice(1)) return;
  history[step ? "pushState" : "replaceState"](null, "", hash ? `#${hash}` : location.pathname);
}
