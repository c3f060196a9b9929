// Begin, react to the keys, and keep page, address and server of one mind.
"use strict";

const parts = {};
let asking = 0;

const actions = {
  open: (id) => openClip(id),
  close: () => closeClip(),
  mark: (id, verdict, note) => mark(id, verdict, note),
};

async function begin() {
  try {
    await readFacts();
  } catch (error) {
    fill(document.getElementById("main"), h("p", { class: "note bad" }, visible(error.message)));
    return;
  }
  fromHash();
  build();
  addEventListener("popstate", restore);
  addEventListener("hashchange", restore);
  document.addEventListener("keydown", onKey);
  await refresh();
  if (state.open) await openClip(state.open);
}

/** The browser went back or forth, or somebody changed the address. */
async function restore() {
  if (toHash() === location.hash.slice(1)) return;
  fromHash();
  drawControls();
  await refresh();
  if (state.open) await openClip(state.open);
  else closeClip();
}

function build() {
  const { corpus, run_id: run, recipe } = state.facts;
  document.title = `${baseName(corpus)} · curate view`;
  parts.totals = h("p", { class: "muted" });
  const title = h("div", {}, h("h1", {}, foreign(baseName(corpus), { limit: 80 })), h("p", { class: "muted small" }, foreign(corpus, { limit: 200 }), ` · run ${visible(run)} · recipe ${visible(recipe)}`), parts.totals);
  const short = shortcomings(state.facts);
  fill(document.getElementById("masthead"), title, h("div", { class: "row" }, helpBox(), themeButton()));
  parts.controls = h("div", {});
  parts.count = h("p", { class: "strong", role: "status", id: "count" });
  parts.problem = h("div", {});
  parts.grid = h("ul", { class: "clips", id: "clips", "aria-label": "Clips", tabindex: "-1" });
  parts.more = h("button", { type: "button", hidden: true, onclick: more }, "More");
  parts.detail = h("aside", { class: "card detail", "aria-label": "One clip", hidden: true });
  const left = h("div", { class: "stack" }, parts.count, parts.problem, parts.grid, parts.more);
  parts.layout = h("div", { class: "layout" }, left, parts.detail);
  fill(document.getElementById("main"), short.length > 0 && fold("What this run did otherwise than its recipe", short), parts.controls, parts.layout);
  drawControls();
  drawTotals();
}

function helpBox() {
  const keys = { j: "next clip", k: "previous clip", Enter: "open", Space: "play or stop", y: "mark keep", n: "mark drop", u: "take the mark back", "/": "search", Escape: "close" };
  const list = Object.entries(keys).map(([key, what]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)));
  return h("details", { class: "help" }, h("summary", {}, "Keys"), h("dl", { class: "card keys" }, list));
}

function drawTotals() {
  const { n, hours: time, sources, keep, drop } = state.facts.totals;
  fill(parts.totals, `${plural(n, "clip")}, ${hours(time)}, of ${plural(sources, "source")}; marked ${count(keep)} keep, ${count(drop)} drop`);
}

function drawControls() {
  fill(parts.controls, controls(async (redrawn) => {
    if (redrawn) drawControls();
    keepHash(true);
    await refresh();
  }));
}

/** Ask anew. */
async function refresh() {
  const turn = ++asking;
  parts.grid.setAttribute("aria-busy", "true");
  try {
    const found = await readClips(0);
    if (turn !== asking) return;
    fill(parts.problem);
    Object.assign(state, { clips: found.clips, n: found.n, hours: found.hours });
  } catch (error) {
    if (turn !== asking) return;
    fill(parts.problem, h("p", { class: "note bad" }, visible(error.message)));
    Object.assign(state, { clips: [], n: 0, hours: 0 });
  }
  fill(parts.grid, state.clips.map((clip) => card(clip, actions.open)));
  parts.grid.removeAttribute("aria-busy");
  choose(state.clips.some((clip) => clip.clip_id === state.chosen) ? state.chosen : state.clips[0]?.clip_id ?? "");
  drawCount();
}

async function more() {
  const turn = asking;
  parts.more.disabled = true;
  try {
    const found = await readClips(state.clips.length);
    if (turn !== asking) return;
    state.clips.push(...found.clips);
    put(parts.grid, found.clips.map((clip) => card(clip, actions.open)));
    announce(`${plural(found.clips.length, "more clip")}`);
  } catch (error) {
    fill(parts.problem, h("p", { class: "note bad" }, visible(error.message)));
  }
  parts.more.disabled = false;
  drawCount();
}

function drawCount() {
  const all = state.n === state.facts.totals.n ? "" : ` of ${count(state.facts.totals.n)}`;
  fill(parts.count, `${plural(state.n, "clip")}${all}, ${hours(state.hours)}`);
  const left = state.n - state.clips.length;
  parts.more.hidden = left <= 0;
  fill(parts.more, `${count(Math.min(PAGE, left))} more of ${count(left)} that are not shown`);
}

async function openClip(id) {
  state.open = id;
  choose(id);
  keepHash(false);
  parts.detail.hidden = false;
  parts.layout.classList.add("open");
  await showDetail(parts.detail, id, actions);
}

function closeClip() {
  const was = state.open;
  state.open = "";
  keepHash(false);
  parts.detail.hidden = true;
  fill(parts.detail);
  parts.layout.classList.remove("open");
  document.getElementById(`clip-${was}`)?.focus();
}

async function mark(id, verdict, note = "") {
  try {
    const done = await sendMarks([id], verdict, verdict ? note : "");
    state.facts.totals = done.totals;
    drawTotals();
    const clip = state.clips.find((each) => each.clip_id === id);
    if (clip) {
      Object.assign(clip, { "mark.verdict": verdict, "mark.note": note, "mark.by": done.by });
      redraw(clip, actions.open);
    }
    announce(verdict ? `Marked ${verdict}` : "Mark taken back");
    if (state.open === id) await redrawMarks(id);
  } catch (error) {
    fill(parts.problem, h("p", { class: "note bad" }, visible(error.message)));
    announce(error.message);
  }
}

/** Show the new mark in the panel, the clip playing on. */
async function redrawMarks(id) {
  const found = await request(`/api/clips/${id}`, state.ask.selection ? { selection: state.ask.selection } : {});
  const old = parts.detail.querySelector(".marks");
  if (state.open !== id || !old) return;
  const held = old.contains(document.activeElement) ? document.activeElement.dataset.mark : null;
  const made = markBar(found, actions);
  old.replaceWith(made);
  if (held) (made.querySelector(`[data-mark="${held}"]`) ?? made.querySelector("button")).focus();
}

// Keys

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && state.open) return closeClip();
  if (event.target.closest("input, select, textarea")) return;
  const act = { j: () => step(1), k: () => step(-1), y: () => markChosen("keep"), n: () => markChosen("drop"), u: () => markChosen(null), "/": search, " ": () => playOrStop(event) }[event.key];
  if (!act || act() === false) return;
  event.preventDefault();
}

function search() {
  document.getElementById("search").focus();
}

function markChosen(verdict) {
  const note = state.open === state.chosen ? document.getElementById("note")?.value ?? "" : "";
  if (state.chosen) mark(state.chosen, verdict, note);
}

async function step(by) {
  const at = state.clips.findIndex((clip) => clip.clip_id === state.chosen) + by;
  if (at === state.clips.length && state.clips.length < state.n) await more();
  const next = state.clips[Math.max(0, Math.min(at, state.clips.length - 1))];
  if (!next) return;
  choose(next.clip_id);
  const button = document.getElementById(`clip-${next.clip_id}`);
  button.focus({ preventScroll: true });
  button.scrollIntoView({ block: "nearest" });
  if (state.open) await openClip(next.clip_id);
}

/** Space: the large clip, or the one under the keys. On other buttons it presses them. */
function playOrStop(event) {
  if (event.target.closest("button:not(.clip), summary, a, video")) return false;
  const large = state.open ? document.getElementById("player") : null;
  const small = document.querySelector(`#clip-${CSS.escape(state.chosen)} video`);
  const video = large ?? small;
  if (video) video.paused ? video.play().catch(() => {}) : video.pause();
  else if (state.chosen) playIn(document.querySelector(`#clip-${CSS.escape(state.chosen)} .shown`), state.chosen);
}

begin();
