// Clips as pictures with a few words, and everything about one of them in a dialog.

/** The span of a clip in its source. */
function spanText(about) {
  return `${clock(about.start_s)} – ${clock(about.end_s)}`;
}

/** Its picture, or why there is none. */
function clipPicture(facts, id, limit = 60) {
  const picture = facts.pictures?.[id];
  if (!picture?.src) return h("span", { class: "no-picture" }, "No picture", picture?.missing && [": ", foreign(picture.missing, { limit, more: false })]);
  const { src, width, height } = picture;
  return h("img", { class: "picture", src, width, height, alt: "", decoding: "async" });
}

/** What became of a clip, in a word and a colour. */
function verdictTag(verdict) {
  return h("span", { class: `tag ${{ kept: "good", failed: "bad" }[verdict] ?? "muted"}` }, verdict ?? "unknown");
}

/** A button with the picture of a clip; `lines` stand below it, the first in bold. */
function clipButton(facts, id, lines = []) {
  const about = facts.clip_facts?.[id] ?? {};
  const name = foreign(baseName(about.uri ?? id), { tag: "span", class: "one-line", limit: 60, more: false });
  const text = h("span", { class: "clip-text" }, lines.map((line, i) => h("span", { class: i ? "muted" : "strong" }, line)), name);
  const button = h("button", { type: "button", class: "clip", onclick: () => openClip(facts, id) }, clipPicture(facts, id), text);
  return button;
}

/** A list of clips. `words(id)` gives the lines of one. */
function clipList(facts, ids, words, { label, least } = {}) {
  if (!ids?.length) return h("p", { class: "muted small" }, "None.");
  const props = { class: "clips", "aria-label": label, vars: least ? { least } : {} };
  return h("ul", props, ids.map((id) => h("li", {}, clipButton(facts, id, words(id)))));
}

/** The dialog of one clip. */
function openClip(facts, id) {
  const about = facts.clip_facts?.[id] ?? {};
  const dialog = document.getElementById("clip") ?? document.body.appendChild(h("dialog", { id: "clip", "aria-labelledby": "clip-name" }));
  const close = h("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const head = h("div", { class: "dialog-head" }, h("h2", { id: "clip-name" }, foreign(baseName(about.uri ?? id), { limit: 90 })), close);
  const facts_ = definitions([
    ["Verdict", about.verdict && [verdictTag(about.verdict), " ", foreign(about.reason ?? "", { limit: 200 })]],
    ["Span", about.end_s !== undefined && spanText(about)],
    ["Length", about.end_s !== undefined && seconds(about.end_s - about.start_s)],
    ["Training bucket", about.bucket && visible(about.bucket)],
  ]);
  const command = `curate show ${shellWord(facts.corpus ?? "CORPUS")} ${shellWord(id)}`;
  fill(
    dialog,
    h("div", { class: "stack" },
      head,
      h("div", { class: "dialog-halves" }, h("div", {}, clipPicture(facts, id, 600)), h("div", { class: "stack" },
        facts_,
        about.uri && h("p", { class: "small" }, h("span", { class: "muted" }, "Source "), foreign(about.uri, { limit: 400 })),
        about.caption && h("p", {}, h("span", { class: "muted" }, "Caption "), foreign(about.caption, { limit: 600 })))),
      clipValues(facts, id),
      copyBlock("All that is known of it", () => command, { class: "wrap" })),
  );
  dialog.showModal();
}

function clipValues(facts, id) {
  const known = facts.clip_facts?.[id]?.values ?? {};
  const rows = (facts.axes ?? []).filter((axis) => (axis.measure ?? axis.column) in known);
  if (!rows.length) return null;
  const verdict = (axis) => {
    const own = axisValue(facts, axis, id);
    if (axis.start < 0) return "no threshold";
    if (own === null) return h("span", { class: "bad" }, "no value");
    const passes = axis.side === "min" ? own >= axis.stops[axis.start] : own <= axis.stops[axis.start];
    return h("span", { class: passes ? "good" : "bad" }, passes ? "passes" : "fails");
  };
  return table("Its values against the recipe's thresholds", [
    { head: "Condition", row: true, cell: (axis) => foreign(axis.label) },
    { head: "Value", num: true, cell: (axis) => value(axisValue(facts, axis, id)) },
    { head: "Recipe", num: true, cell: (axis) => thresholdText(axis, axis.start) },
    { head: "", said: "Passes", cell: verdict },
  ], rows);
}
