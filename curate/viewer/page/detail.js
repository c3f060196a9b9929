// One clip, large: playing, with its place in the source, its verdicts and all that was measured.
"use strict";

/** Fill the panel with a clip. `actions` has open(id), mark(id, verdict, note) and close(). */
async function showDetail(panel, id, actions) {
  const video = player(id);
  const body = h("div", { class: "stack" }, h("p", { class: "muted" }, "…"));
  const close = h("button", { type: "button", onclick: actions.close }, "Close");
  fill(panel, h("div", { class: "row between" }, h("h2", { tabindex: "-1" }, "Clip ", h("code", {}, id.slice(0, 12))), close), video, body);
  let found;
  try {
    found = await request(`/api/clips/${id}`, state.ask.selection ? { selection: state.ask.selection } : {});
  } catch (error) {
    fill(body, h("p", { class: "note bad" }, visible(error.message)));
    return;
  }
  if (state.open !== id) return;
  fill(body, cutShort(found), markBar(found, actions), place(found, actions), words(found), verdicts(found), measured(found));
}

function player(id) {
  const video = h("video", { class: "player", controls: true, loop: true, playsinline: true, muted: true, id: "player" });
  video.muted = true;
  video.addEventListener("error", () => video.isConnected && excuse(video, `/clips/${id}.mp4`));
  video.src = `/clips/${id}.mp4`;
  if (!still.matches) video.play().catch(() => {});
  return video;
}

/** What is said where only the beginning plays. */
function cutShort({ timeline, clip }) {
  const most = state.facts.most_played_s;
  const length = timeline.find((each) => each.clip_id === clip.clip_id)?.["clip.duration_s"] ?? 0;
  return length > most ? h("p", { class: "note" }, `Its first ${seconds(most)} play; it is ${seconds(length)} long.`) : null;
}

function markBar(found, actions) {
  const id = found.clip.clip_id;
  const now = found.mark?.verdict ?? null;
  const note = h("input", { type: "text", maxlength: "2000", placeholder: "why, if you like", id: "note" });
  note.value = found.mark?.note ?? "";
  const button = (verdict, text, key) =>
    h("button", { type: "button", "aria-pressed": String(now === verdict), "data-mark": verdict ?? "none", onclick: () => actions.mark(id, verdict, note.value) }, text, " ", h("kbd", {}, key));
  const who = found.mark?.by ? h("span", { class: "muted small" }, "by ", foreign(found.mark.by, { limit: 60 })) : null;
  return h(
    "div",
    { class: "marks", role: "group", "aria-label": "Mark this clip" },
    h("div", { class: "row" }, button("keep", "✓ keep", "y"), button("drop", "✕ drop", "n"), now ? button(null, "unmark", "u") : null, who),
    labelled("Note to the mark", note),
  );
}

/** Where the clip comes from, and the other clips of its source on a line. */
function place(found, actions) {
  const { clip, source, timeline } = found;
  const index = timeline.findIndex((each) => each.clip_id === clip.clip_id);
  const from = Math.min(source.start_s, ...timeline.map((each) => each["clip.start_s"]));
  const whole = Math.max(source.end_s, ...timeline.map((each) => each["clip.end_s"])) - from || 1;
  const verdictOf = (each) => each[`selection.${state.ask.selection}`] ?? "";
  const piece = (each, at) => {
    const start = each["clip.start_s"];
    const said = [each["mark.verdict"] && `marked ${each["mark.verdict"]}`, verdictOf(each)].filter(Boolean).join(", ");
    const label = `clip ${at + 1} of ${timeline.length}, ${clock(start)} to ${clock(each["clip.end_s"])}${said ? `, ${said}` : ""}`;
    const vars = { at: `${((start - from) / whole) * 100}%`, length: `${(each["clip.duration_s"] / whole) * 100}%` };
    const kind = verdictOf(each) && verdictOf(each) !== "kept" ? "piece gone" : "piece";
    return h("button", { type: "button", class: kind, vars, title: label, "aria-label": label, "aria-current": at === index ? "true" : null, onclick: () => actions.open(each.clip_id) });
  };
  const step = (by, text) => {
    const other = timeline[index + by];
    return h("button", { type: "button", disabled: !other, "data-step": String(by), onclick: () => other && actions.open(other.clip_id) }, text);
  };
  const size = `${source.width_px}×${source.height_px}, ${value(source.rate_fps)}/s, ${source.codec}`;
  return h(
    "div",
    { class: "stack" },
    h("h3", {}, "In its source"),
    found.uris.map((uri) => h("p", {}, foreign(uri, { limit: 400, class: "mono" }))),
    h("p", { class: "muted small" }, `${clock(clip.start_s)} to ${clock(clip.end_s)} of ${clock(source.end_s)}; ${size}; begins with ${wordsOf(clip.start_kind)}, ends with ${wordsOf(clip.end_kind)}`),
    h("div", { class: "timeline", role: "group", "aria-label": "Clips of this source in order of time" }, timeline.map(piece)),
    h("div", { class: "row" }, step(-1, "← before"), step(1, "after →"), h("span", { class: "muted small" }, `${index + 1} of ${plural(timeline.length, "clip")}`)),
  );
}

function wordsOf(kind) {
  const word = visible(kind).replaceAll("_", " ");
  return word === "hard" ? "a hard cut" : word;
}

/** Captions and what was read in the picture. */
function words(found) {
  const lines = found.cells.flatMap((cell) =>
    Object.entries(cell.values)
      .filter(([name]) => state.columns.get(`${cell.stage}.${name}`)?.searched)
      .map(([name, what]) => [`${cell.stage}.${name}`, what]),
  );
  if (!lines.length) return null;
  const text = (what) => (Array.isArray(what) ? what.map((each) => h("span", { class: "tag wrap" }, foreign(each))) : foreign(what, { limit: 1000 }));
  return h("div", { class: "stack" }, h("h3", {}, "Captions and text"), lines.map(([name, what]) => h("div", {}, h("h4", {}, visible(name)), h("p", {}, what.length ? text(what) : "none"))));
}

function verdicts(found) {
  const rows = Object.entries(found.verdicts).map(([name, verdict]) => ({ name, ...verdict }));
  const why = (row) => (row.reason ? foreign(row.reason) : "–");
  const columns = [
    { head: "Selection", row: true, cell: (row) => visible(row.name) },
    { head: "Verdict", cell: (row) => h("span", { class: row.verdict === "kept" ? "good" : "warn" }, visible(row.verdict)) },
    { head: "Why", cell: why },
  ];
  return h("div", { class: "stack" }, h("h3", {}, "Selections"), table("Verdicts of the selections", columns, rows, { hidden: true, empty: "No selection has judged it." }));
}

function measured(found) {
  const inside = (what) => (what?.first ? `${what.first.map(shown).join(", ")} … (${count(what.n)})` : shown(what));
  const one = (cell) => {
    const rows = Object.entries(cell.values).filter(([name]) => !state.columns.get(`${cell.stage}.${name}`)?.searched);
    const columns = [
      { head: "Column", row: true, cell: ([name]) => h("span", { title: state.columns.get(`${cell.stage}.${name}`)?.doc || null }, visible(name)) },
      { head: "Value", cell: ([, what]) => foreign(inside(what), { limit: 200 }) },
      { head: "Unit", cell: ([name]) => state.columns.get(`${cell.stage}.${name}`)?.unit.replace(/^1$/, "") ?? "" },
    ];
    const failed = cell.outcome === "ok" ? null : h("p", { class: "note bad" }, `failed: ${cell.error_class} `, foreign(cell.error_message, { limit: 400 }));
    if (!rows.length && !failed) return null;
    return h("div", { class: "stack" }, h("h4", {}, visible(cell.stage)), failed, rows.length ? table(`Cell of ${cell.stage}`, columns, rows, { hidden: true }) : null);
  };
  return h("div", { class: "stack" }, h("h3", {}, "Measured"), found.cells.map(one));
}
