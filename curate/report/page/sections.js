// The sections that count: what became of the corpus, the funnel, distributions, buckets.

/** What came in and what is left. */
function overviewSection(facts) {
  const { clips, hours: time, inputs } = facts;
  const big = (name, figure, ...below) => h("div", { class: "card" }, h("p", { class: "muted small" }, name), h("p", { class: "figure-big" }, figure), h("p", { class: "small muted" }, below));
  const part = (n) => (clips.found ? ` · ${percent(n, clips.found)} of all` : "");
  const otherwise = facts.judged_otherwise;
  return [
    otherwise > 0 && h("div", { class: "note bad", role: "note" },
      h("p", { class: "strong" }, `${plural(otherwise, "clip")} would be judged otherwise now`),
      h("p", {}, "Scores or marks changed since this selection was made. What was kept is the selection's; the funnel and the sliders count today's values, so they do not add up. Select again:"),
      h("p", {}, h("code", {}, visible(facts.commands?.again ?? "curate select CORPUS")))),
    h("div", { class: "figures" },
      big("Kept", hours(time.kept), `${plural(clips.kept, "clip")}${part(clips.kept)}`),
      big("Found", hours(time.found), `${plural(clips.found, "clip")} in ${plural(inputs.found, "input")}`),
      big("Dropped", hours(time.dropped), `${plural(clips.dropped, "clip")}${part(clips.dropped)}`),
      big("Failed", plural(clips.failed, "clip"), clips.failed ? `${hours(time.failed)} could not be judged` : "every clip could be judged")),
    shortcomings(facts),
    h("div", { class: "card" }, outcomeTable(facts)),
  ];
}

function outcomeTable({ inputs, clips, hours: time }) {
  const rows = ["found", "kept", "dropped", "failed", "skipped"].map((name) => ({ name }));
  return table("How everything ended", [
    { head: "Ended as", row: true, cell: ({ name }) => name },
    { head: "Inputs", num: true, cell: ({ name }) => count(inputs[name]) },
    { head: "Clips", num: true, cell: ({ name }) => (name === "skipped" ? "–" : count(clips[name])) },
    { head: "Hours of clips", num: true, cell: ({ name }) => hours(time[name]) },
    { head: "", said: "Share of clips", wide: true, cell: ({ name }) => (name === "skipped" ? "" : meter(clips[name] / clips.found, name === "kept" || name === "found" ? "" : "gone")) },
  ], rows);
}

/** Step by step, and the reasons. */
function funnelSection(facts) {
  const { steps, input_reasons: inputs, clip_reasons: clips } = facts.funnel;
  const both = (n, time) => [h("span", {}, count(n)), h("span", { class: "muted second" }, hours(time))];
  const found = facts.clips.found;
  const start = { name: "found", text: "clips of all sources", left: found, left_hours: facts.hours.found, begins: true };
  const rows = table("From all clips to those kept", [
    { head: "Step", row: true, cell: (step) => [foreign(step.name, { limit: 80, class: "strong" }), step.text !== step.name && h("span", { class: "second muted" }, foreign(stepText(step), { limit: 160 }))] },
    { head: "Drops here", num: true, cell: (step) => (step.begins ? "" : both(step.first, step.first_hours)) },
    { head: "Left", num: true, cell: (step) => both(step.left, step.left_hours) },
    { head: "", wide: true, cell: (step) => meter(step.left / found) },
    { head: "Alone would drop", num: true, cell: (step) => (step.begins ? "" : both(step.failing, step.failing_hours)) },
    { head: "Only this drops", num: true, cell: (step) => (step.begins ? "" : both(step.only, step.only_hours)) },
    { head: "Not measured", num: true, cell: (step) => (step.begins || !step.cell_failed ? "" : count(step.cell_failed)) },
  ], [start, ...steps]);
  return [
    h("p", { class: "muted" }, "Steps in their order; each sees what the steps above it left. “Alone would drop” counts all clips that do not fulfil it; “only this drops” those that fulfil everything else. Clips above, hours below."),
    h("div", { class: "card funnel" }, rows),
    h("div", { class: "grid", vars: { least: "28rem" } },
      h("div", { class: "card reasons" }, reasonTable("Why clips are not kept", clips)),
      h("div", { class: "card reasons" }, reasonTable("Why inputs gave nothing", inputs))),
  ];
}

/** What a step drops, without the name that stands above it. */
function stepText({ name, text }) {
  return text.startsWith(`${name} (`) && text.endsWith(")") ? text.slice(name.length + 2, -1) : text;
}

function reasonTable(caption, reasons) {
  const most = Math.max(1, ...(reasons ?? []).map((reason) => reason.n));
  return table(caption, [
    { head: "Reason", row: true, cell: (reason) => foreign(reason.reason, { limit: 200 }) },
    { head: "Ended as", cell: (reason) => verdictTag(reason.verdict) },
    { head: "Number", num: true, cell: (reason) => count(reason.n) },
    ...(reasons?.some((reason) => reason.hours) ? [{ head: "Hours", num: true, cell: (reason) => (reason.hours ? hours(reason.hours) : "–") }] : []),
    { head: "", cell: (reason) => h("div", { class: "short" }, meter(reason.n / most, "gone")) },
  ], (reasons ?? []).filter((reason) => reason.n));
}

/** Do the conditions go together? */
function expectedSection(facts) {
  const { retention } = facts;
  if (!retention) return [h("p", { class: "muted" }, "Nothing was judged by all conditions.")];
  const { joint, product, ratio, judged, axes } = retention;
  const words = ratio === null ? "" : ratio > 1.05 ? "Clips that pass one condition tend to pass the others." : ratio < 0.95 ? "The conditions pull apart: what passes one tends to fail another." : "The conditions hardly depend on each other.";
  const rows = [...axes.map((axis) => ({ ...axis, kind: "" })), { label: "Expected, were they independent", share: product, kind: "sum" }, { label: "Actually kept by all", share: joint, kind: "sum" }];
  return [h("div", { class: "card" },
    h("p", {}, "All conditions together keep ", h("b", {}, percent(joint)), ` of the ${plural(judged, "clip")} that all of them could judge. Were they independent, it would be `, h("b", {}, percent(product)), ratio === null ? "." : [": actual over expected is ", h("b", {}, value(ratio)), `. ${words}`]),
    table("Share that passes", [
      { head: "Condition", row: true, cell: (row) => h("span", { class: row.kind ? "strong" : null }, foreign(row.label)) },
      { head: "Passes", num: true, cell: (row) => percent(row.share) },
      { head: "", wide: true, cell: (row) => meter(row.share) },
    ], rows))];
}

/** All against kept, and every column. */
function distributionsSection(facts) {
  const charts = (facts.distributions ?? []).map((one) => h("div", { class: "card" }, one.kind === "bars" ? barsOf(one) : histogramOf(one)));
  return [
    h("p", { class: "legend small" }, h("span", { class: "key gone" }), "all clips ", h("span", { class: "key kept" }), "kept clips"),
    h("div", { class: "columns", vars: { least: "26rem" } }, charts),
    fold(`Every measured column (${count((facts.scores ?? []).length)})`, h("div", { class: "card" }, scoresTable(facts.scores ?? []))),
    facts.categories?.length > 0 && fold(`Every column of names (${count(facts.categories.length)})`, h("div", { class: "columns", vars: { least: "24rem" } }, facts.categories.map((one) => h("div", { class: "card" }, categoryTable(one))))),
  ];
}

function barsOf({ title, labels, all, kept }) {
  const most = Math.max(1, ...all);
  return table(title, [
    { head: "", row: true, cell: ({ label }) => foreign(label, { limit: 60, class: label.length < 16 ? "nowrap" : "" }) },
    { head: "", wide: true, cell: ({ n, left }) => pairMeter(n, left, most) },
    { head: "All", num: true, cell: ({ n }) => count(n) },
    { head: "Kept", num: true, cell: ({ left }) => count(left) },
    { head: "Share", num: true, cell: ({ n, left }) => percent(left, n) },
  ], labels.map((label, i) => ({ label, n: all[i], left: kept[i] })));
}

function histogramOf({ title, edges, all, kept }) {
  const rows = all.map((n, i) => ({ from: edges[i], to: edges[i + 1], n, left: kept[i] }));
  return [
    h("h3", {}, title),
    compareHistogram({ title, edges, all, kept }),
    fold("As a table", table(title, [
      { head: "From", num: true, cell: ({ from }) => value(from) },
      { head: "to", num: true, cell: ({ to }) => value(to) },
      { head: "All", num: true, cell: ({ n }) => count(n) },
      { head: "Kept", num: true, cell: ({ left }) => count(left) },
    ], rows, { hidden: true })),
  ];
}

function scoresTable(scores) {
  const at = (name) => ({ head: { p5: "5 %", p50: "Median", p95: "95 %" }[name], num: true, cell: (one) => value(one.percentiles[name]) });
  return table("Every measured column", [
    { head: "Column", row: true, cell: (one) => [h("code", {}, visible(one.column.includes(".") ? one.column : `${one.stage}.${one.column}`)), one.unit && one.unit !== "1" && h("span", { class: "second muted" }, visible(one.unit))] },
    { head: "", said: "Histogram", cell: (one) => sparkBars(one.edges, one.counts, `Values of ${visible(one.column)}`) },
    { head: "Least", num: true, cell: (one) => value(one.min) },
    at("p5"), at("p50"), at("p95"),
    { head: "Most", num: true, cell: (one) => value(one.max) },
    { head: "Measured", num: true, cell: (one) => count(one.n) },
    { head: "Failed", num: true, cell: (one) => (one.failed ? count(one.failed) : "–") },
  ], scores, { hidden: true });
}

function categoryTable({ stage, column, n, n_distinct: distinct, top }) {
  const most = Math.max(1, ...top.map(([, k]) => k));
  const name = column.includes(".") ? column : `${stage}.${column}`;
  return table(`${visible(name)}: ${count(distinct)} different in ${plural(n, "cell")}`, [
    { head: "", row: true, cell: ([text]) => foreign(text, { limit: 60 }) },
    { head: "", wide: true, cell: ([, k]) => meter(k / most) },
    { head: "Number", num: true, cell: ([, k]) => count(k) },
  ], top);
}

/** Training buckets. */
function bucketsSection(facts) {
  const { rows = [], none = [] } = facts.buckets ?? {};
  const total = sum(rows.map((row) => row.n)) + sum(none.map((row) => row.n));
  const columns = (head, cell) => [
    { head, row: true, cell },
    { head: "Clips", num: true, cell: (row) => count(row.n) },
    { head: "Hours", num: true, cell: (row) => hours(row.hours) },
    { head: "Share", num: true, cell: (row) => percent(row.n, total) },
    { head: "", wide: true, cell: (row) => meter(row.n / (total || 1)) },
  ];
  return [h("div", { class: "grid", vars: { least: "28rem" } },
    h("div", { class: "card" }, table("Kept clips by bucket (width x height x frames)", columns("Bucket", (row) => visible(row.bucket)), rows, { empty: "No kept clip falls into a bucket." })),
    h("div", { class: "card" }, table("Kept clips that fall into none", columns("Why", (row) => foreign(row.reason)), none, { empty: "Every kept clip falls into a bucket." })))];
}
