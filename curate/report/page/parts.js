// The sections of single things: clips at random, captions, near-duplicates, failures, time, provenance.

/** Clips as chance has it. */
function randomSection(facts) {
  const words = (id) => [verdictTag(facts.clip_facts?.[id]?.verdict)];
  return [clipList(facts, facts.random, words, { label: "Clips at random" })];
}

/** What was said of clips, side by side. */
function captionsSection(facts) {
  if (!facts.captions?.length) return [h("p", { class: "muted" }, "The recipe writes no captions.")];
  if ((facts.caption_columns ?? []).length < 2) return [singleCaptions(facts)];
  const measured = facts.captions.some((one) => one.disagreement !== null);
  const intro = measured ? "Disagreement is what the run measured between the captions of a clip; those that disagree most come first." : "The run measured no disagreement between captions.";
  return [
    h("p", { class: "muted" }, intro),
    h("ul", { class: "plain stack" }, facts.captions.map((one) => h("li", { class: "card captioned" },
      h("div", { class: "stack" }, clipButton(facts, one.clip), one.disagreement !== null && h("p", { class: "small" }, "Disagreement ", h("b", {}, value(one.disagreement)))),
      h("dl", { class: "captions" }, one.captions.map((caption) => captionText(one, caption)))))),
  ];
}

/** Captions of one kind: there is nothing to put beside them. */
function singleCaptions(facts) {
  return h("ul", { class: "clips", vars: { least: "14rem" } }, facts.captions.map((one) => h("li", {}, clipButton(facts, one.clip), one.captions.map(({ text }) => h("p", { class: "small" }, foreign(text ?? "", { limit: 200 }))))));
}

function captionText(one, { column, text, score }) {
  const chosen = one.chosen === column || one.chosen === text;
  const head = [h("code", {}, visible(column)), chosen && [" ", h("span", { class: "tag good" }, "chosen")], score !== null && h("span", { class: "muted" }, ` score ${value(score)}`)];
  return h("div", {}, h("dt", { class: "small" }, head), h("dd", {}, text ? foreign(text) : h("span", { class: "muted" }, "none")));
}

/** What went for a better one. */
function duplicatesSection(facts) {
  const { n = 0, pairs = [] } = facts.duplicates ?? {};
  if (!n) return [h("p", { class: "muted" }, "No near-duplicates were removed.")];
  const score = (pair) => Object.entries(pair.score ?? {}).map(([name, x]) => `${visible(name.replaceAll("_", " "))} ${value(x)}`).join(" · ");
  return [
    h("p", { class: "muted" }, `${plural(n, "clip")} went for a better one that looks the same; ${count(pairs.length)} of the pairs are shown.`),
    h("ul", { class: "plain grid", vars: { least: "24rem" } }, pairs.map((pair) => h("li", { class: "card" },
      h("div", { class: "pairs" }, clipButton(facts, pair.clip, [h("span", { class: "tag" }, "dropped")]), clipButton(facts, pair.kept, [h("span", { class: "tag good" }, "kept")])),
      score(pair) && h("p", { class: "small muted" }, score(pair))))),
  ];
}

/** What failed, by class. */
function failuresSection(facts) {
  if (!facts.failures?.length) return [h("p", { class: "muted" }, "Nothing failed.")];
  const most = Math.max(...facts.failures.map((one) => one.n));
  const rows = table("Failures by stage and class", [
    { head: "Stage", row: true, cell: (one) => h("code", { class: "nowrap" }, visible(one.stage)) },
    { head: "Class", cell: (one) => foreign(one.error_class, { class: "nowrap", limit: 60 }) },
    { head: "Number", num: true, cell: (one) => count(one.n) },
    { head: "", wide: true, cell: (one) => meter(one.n / most, "gone") },
    { head: "Trouble", cell: (one) => h("span", { class: "nowrap" }, one.transient ? "may pass" : "lasts") },
  ], facts.failures);
  const helps = h("p", { class: "muted small" }, "What may pass, the next run tries again by itself. What lasts comes back until its cause is gone (a file made whole, a stage mended); ", h("code", {}, "curate retry"), " then tries it again.");
  return [h("div", { class: "card" }, rows, helps, facts.failures.filter((one) => one.examples?.length).map(failureExamples))];
}

function failureExamples({ stage, error_class: kind, examples }) {
  const title = [plural(examples.length, "example"), " of ", h("code", {}, visible(stage)), " ", foreign(kind, { limit: 60, more: false })];
  const example = ({ uri, clip, message }) => h("li", {}, foreign(uri || clip || "", { class: "strong small", limit: 200 }), h("p", { class: "small" }, foreign(message, { limit: 400 })));
  return fold(title, h("ul", { class: "plain stack" }, examples.map(example)));
}

/** Where the time went. */
function timeSection(facts) {
  const run = Object.entries(facts.run ?? {}).filter(([, x]) => x !== null && typeof x !== "object");
  const text = (name, x) => (name === "seconds" ? seconds(x) : typeof x === "number" ? value(x) : visible(String(x).replace(/^(\d{4}-\d\d-\d\d)T(\d\d:\d\d):.*\+00:00$/, "$1 $2 UTC")));
  const rows = facts.stages ?? [];
  const total = sum(rows.map((row) => row.sum_s));
  return [
    facts.bottleneck && h("p", { class: "note" }, h("b", {}, "Bottleneck: "), h("code", {}, visible(facts.bottleneck.stage)), " – ", foreign(facts.bottleneck.why, { limit: 400 })),
    h("div", { class: "card" }, table("Time per stage", [
      { head: "Stage", row: true, cell: (row) => h("code", { class: "nowrap" }, visible(row.stage)) },
      { head: "Cells", num: true, cell: (row) => count(row.n) },
      { head: "In all", num: true, cell: (row) => seconds(row.sum_s) },
      { head: "Mean", num: true, cell: (row) => seconds(row.mean_s) },
      { head: "Longest", num: true, cell: (row) => seconds(row.max_s) },
      { head: "Clips/s per worker", num: true, cell: (row) => value(row.clips_per_s) },
      { head: "Waited", num: true, cell: (row) => (row.waited === null || row.waited === undefined ? "–" : percent(row.waited)) },
      { head: "Share", num: true, cell: (row) => percent(row.share ?? row.sum_s / total) },
      { head: "", wide: true, cell: (row) => meter(row.share ?? row.sum_s / total) },
    ], rows)),
    run.length > 0 && h("div", { class: "card" }, h("h3", {}, "The run"), definitions(run.map(([name, x]) => [name.replaceAll("_", " "), text(name, x)]))),
  ];
}

/** By what, from what. */
function provenanceSection(facts) {
  const listed = (title, pairs) => {
    const entries = Object.entries(pairs ?? {});
    return entries.length ? h("div", { class: "card" }, table(title, [
      { head: "", row: true, cell: ([name]) => h("span", { class: "small" }, foreign(name)) },
      { head: "", said: "Value", cell: ([, what]) => h("code", { class: "small" }, visible(typeof what === "string" ? what : JSON.stringify(what))) },
    ], entries)) : null;
  };
  return [
    h("div", { class: "card" }, copyBlock("Recipe of the run", () => facts.recipe ?? "")),
    h("div", { class: "columns", vars: { least: "26rem" } }, listed("Models", facts.models), listed("Versions", facts.versions), listed("Fingerprints of the stages", facts.fingerprints)),
  ];
}
