// The difference of two selections: A before, B after.

const DIFF_SECTIONS = [
  ["overview", "Overview", diffOverview],
  ["left", "Left", (facts) => movedSection(facts, "left", "Why B does not keep them", "Clips that left")],
  ["entered", "Entered", (facts) => movedSection(facts, "entered", "Why A did not keep them", "Clips that entered")],
  ["filters", "Filters", filtersSection],
  ["scores", "Scores", scoresSection],
];

function sideText(facts, name) {
  const side = facts[name];
  return h("p", {}, h("b", {}, name.toUpperCase(), " "), foreign(side.corpus, { limit: 120 }), ", selection ", foreign(side.selection, { class: "strong" }), h("span", { class: "muted small" }, ` over run ${visible(side.run_id)}${side.judged_now ? ", judged now by its recipe" : ""}`));
}

function diffHead(facts) {
  const made = `${(facts.created_at ?? "").slice(0, 16).replace("T", " ")} UTC`;
  return h("div", { class: "masthead" },
    h("div", {}, h("h1", {}, "Difference of selections"), sideText(facts, "a"), sideText(facts, "b"), h("p", { class: "muted small" }, made)),
    themeButton());
}

function bigFigure(name, n, time) {
  return h("div", { class: "card" }, h("h3", { class: "muted" }, name), h("p", { class: "figure-big" }, plural(n, "clip")), h("p", { class: "muted" }, hours(time)));
}

function diffOverview(facts) {
  const { a, b, known } = facts;
  const apart = known.only_a || known.only_b;
  const cut = a.cut === b.cut ? "" : " Their cuts were found in another way: a clip is the same only where both ends are.";
  return [
    h("div", { class: "figures" },
      bigFigure("A keeps", a.kept.n, a.kept.hours),
      bigFigure("Left", facts.left.n, facts.left.hours),
      bigFigure("Entered", facts.entered.n, facts.entered.hours),
      bigFigure("B keeps", b.kept.n, b.kept.hours)),
    h("p", {}, `${plural(facts.both.n, "clip")} (${hours(facts.both.hours)}) kept by both; the kept clips change by ${signed(b.kept.n - a.kept.n)}.`),
    apart ? h("p", { class: "note warn" }, `${plural(known.both, "clip")} in both runs, ${count(known.only_a)} in A's alone, ${count(known.only_b)} in B's alone.${cut}`) : null,
  ];
}

function movedSection(facts, which, why, label) {
  const moved = facts[which];
  if (!moved.n) return [h("p", { class: "muted" }, "None.")];
  const words = (id) => [foreign(facts.clip_facts[id]?.reason ?? "", { limit: 90, more: false })];
  const shown = facts.samples[which];
  return [
    h("div", { class: "card" }, table(why, [
      { head: "Reason", row: true, wide: true, cell: (row) => foreign(row.reason) },
      { head: "Clips", num: true, cell: (row) => count(row.n) },
      { head: "Time", num: true, cell: (row) => hours(row.hours) },
      { head: "Share", num: true, cell: (row) => percent(row.n, moved.n) },
      { head: "", wide: true, cell: (row) => meter(row.n / moved.n, which === "left" ? "gone" : "") },
    ], moved.reasons)),
    h("p", { class: "muted small" }, `${count(shown.length)} of ${plural(moved.n, "clip")}, drawn in turn from each reason.`),
    clipList(facts, shown, words, { label }),
  ];
}

function filtersSection(facts) {
  const either = (text) => (text ? foreign(text) : h("span", { class: "muted" }, "no such condition"));
  return [
    h("div", { class: "card" }, table("Conditions that differ", [
      { head: "Condition", row: true, wide: true, cell: (row) => foreign(row.name) },
      { head: "A drops where", wide: true, cell: (row) => either(row.a) },
      { head: "B drops where", wide: true, cell: (row) => either(row.b) },
    ], facts.thresholds, { empty: "The conditions are the same." })),
    h("div", { class: "card" }, table("What moved clips: those that fail a condition, and that fail nothing else", [
      { head: "Condition", row: true, wide: true, cell: (row) => foreign(row.name) },
      { head: "Left, fails in B", num: true, cell: (row) => count(row.left) },
      { head: "by it alone", num: true, cell: (row) => count(row.left_only) },
      { head: "Entered, failed in A", num: true, cell: (row) => count(row.entered) },
      { head: "by it alone", num: true, cell: (row) => count(row.entered_only) },
    ], facts.filters, { empty: "No condition moved a clip." })),
  ];
}

function scoresSection(facts) {
  const name = (row) => [h("code", { class: "nowrap" }, visible(row.column)), row.mean_of_list ? " (mean)" : "", row.unit ? h("span", { class: "muted" }, ` ${visible(row.unit)}`) : ""];
  const changed = facts.numbers.filter((row) => row.changed);
  const compared = facts.numbers.filter((row) => !row.same && row.shift?.n);
  const largest = ({ shift }) => (Math.abs(shift.min) > Math.abs(shift.max) ? shift.min : shift.max);
  const by = (text, pick) => ({ head: text, num: true, cell: (row) => (pick(row) === null ? "–" : signed(pick(row), value)) });
  const beside = (share) => ["a", "b"].map((side) => ({ head: `${share} ${side.toUpperCase()}`, num: true, cell: (row) => value(row[side][share]) }));
  const shifted = ({ a, b }) => {
    const width = Math.max(a.p95 - a.p5, b.p95 - b.p5);
    return width > 0 && a.n && b.n ? `${signed(((b.p50 - a.p50) / width) * 100, (x) => x.toFixed(1))} %` : "–";
  };
  const same = facts.numbers.length - compared.length;
  const looksAlike = ({ a, b }) => ["p5", "p50", "p95"].every((share) => value(a[share]) === value(b[share]));
  const [alike, moved] = [true, false].map((is) => facts.numbers.filter((row) => looksAlike(row) === is));
  const sides = (title, rows) => h("div", { class: "card" }, table(title, [
    { head: "Score", row: true, cell: name },
    { head: "Clips A", num: true, cell: (row) => count(row.a.n) },
    { head: "Clips B", num: true, cell: (row) => count(row.b.n) },
    ...beside("p5"), ...beside("p50"), ...beside("p95"),
    { head: "Median moves, of p5–p95", num: true, cell: shifted },
  ], rows, { empty: "The scores of the kept clips are spread alike on both sides." }));
  return [
    h("p", { class: "muted" }, compared.length ? `${count(compared.length)} columns were measured in two ways; ${count(same)} are read from the same cells.` : "Both selections read the same measurements: no clip has another score."),
    changed.length > 0 && h("div", { class: "card" }, table("How the scores of clips in both runs changed, from A to B", [
      { head: "Score", row: true, cell: name },
      { head: "Changed", num: true, cell: (row) => count(row.changed) },
      { head: "of", num: true, cell: (row) => count(row.shift.n) },
      by("mean", (row) => row.shift.mean),
      by("5 %", (row) => row.shift.p5),
      by("median", (row) => row.shift.p50),
      by("95 %", (row) => row.shift.p95),
      by("largest", largest),
    ], changed)),
    facts.categories.filter((row) => row.changed).map((row) => h("div", { class: "card" },
      h("h3", {}, h("code", {}, visible(row.column)), `: ${count(row.changed)} of ${plural(row.n, "clip")} changed`),
      table(`What ${row.column} became`, [
        { head: "A", row: true, cell: ([from]) => foreign(from) },
        { head: "B", cell: ([, to]) => foreign(to) },
        { head: "Clips", num: true, cell: ([, , n]) => count(n) },
      ], row.moves, { hidden: true, empty: "Texts, not names." }))),
    sides("Scores of the kept clips of either side", moved),
    alike.length > 0 && fold(`${plural(alike.length, "score")} spread alike`, sides("Scores that are spread alike", alike)),
  ];
}

function startDiff() {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  fill(document.getElementById("head"), diffHead(facts));
  const sections = DIFF_SECTIONS.map(([id, title, build]) => h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), build(facts)));
  fill(document.getElementById("main"), sections);
}

startDiff();
