// Scores that the recipe asks nothing of: a card each, drawn when it is opened, and what a threshold would keep.

/** Such a score with the threshold that somebody tries on it: `stop` -1 is off, `side` is "min" or "max". */
class OtherScore {
  constructor(score) {
    this.score = score;
    this.side = "min";
    this.stop = -1;
    this.axes = {};
  }

  /** It as an axis on the side on which it is limited, with what each coordinate and those above it keep. */
  get axis() {
    const { score, side } = this;
    this.axes[side] ??= { ...score, side, start: -1, kept: Object.fromEntries(Object.entries(score.sides[side]).map(([name, by]) => [name, keptFrom(by)])) };
    return this.axes[side];
  }

  /** Clips and hours that it keeps at a stop: "alone", or "with" the recipe's thresholds. */
  kept(which, stop = this.stop) {
    const { kept } = this.axis;
    const at = strictnessOf(this.axis, stop) + 1;
    return { n: kept[`${which}_n`][at], hours: kept[`${which}_hours`][at] };
  }

  /** The condition that selecting would get. */
  get condition() {
    return { ...this.score.asked, [this.side]: this.score.stops[this.stop] };
  }
}

/**
 * What all sliders keep together: {least, most, exact}, and what the recipe keeps, each in clips and hours.
 *
 * Scores that the recipe asks nothing of are counted each with the recipe's thresholds. With one of them moved and the
 * recipe's sliders where the recipe has them that is exact; else it says between which numbers the truth lies.
 */
function keptTogether(thresholds) {
  const { counted, added, shifts } = thresholds;
  const now = { n: counted.n, hours: counted.ms / 3.6e6 };
  const recipe = { n: thresholds.recipe.n, hours: thresholds.recipe.ms / 3.6e6 };
  if (!added.length) return { least: now, most: now, recipe, exact: true };
  const [stricter, milder] = [shifts.every((by) => by >= 0), shifts.every((by) => by <= 0)];
  if (added.length === 1 && stricter && milder) {
    const kept = added[0].kept("with");
    return { least: kept, most: kept, recipe: added[0].kept("with", -1), exact: true };
  }
  const bounds = (unit) => {
    const left = (which) => added.map((score) => score.kept(which)[unit]);
    const gone = (which) => added.map((score) => score.kept(which, -1)[unit] - score.kept(which)[unit]);
    // Of fewer clips a threshold leaves fewer and takes fewer; so what is known of more clips bounds it from above.
    const most = Math.min(now[unit], ...left("alone"), ...(stricter ? left("with") : []));
    const least = Math.max(now[unit] - sum(gone(stricter ? "with" : "alone")), milder ? recipe[unit] - sum(gone("with")) : 0, 0);
    return [Math.min(least, most), most];
  };
  const [[leastN, mostN], [leastHours, mostHours]] = [bounds("n"), bounds("hours")];
  return { least: { n: leastN, hours: leastHours }, most: { n: mostN, hours: mostHours }, recipe, exact: leastN === mostN };
}

/** The cards of all such scores. */
function otherScores(facts, thresholds, cards) {
  const partial = facts.partial_scores ?? [];
  if (!cards.length && !partial.length) return null;
  return h("div", { class: "stack", id: "other-scores" },
    h("h3", {}, `Scores without a threshold (${count(cards.length)})`),
    h("p", { class: "muted" }, "The recipe asks nothing of these. Open one to see its values and what a threshold would keep, at least or at most: alone, and together with the recipe's thresholds as the recipe has them. What is moved here becomes a further condition, which the sliders above do not count."),
    cards.length > 0 && h("div", { class: "scores" }, cards.map((card) => card.node)),
    partial.length > 0 && h("p", { class: "muted small" }, "Not measured of every clip, so that selecting refuses a condition on them: ", partial.map((one, i) => [i > 0 && ", ", foreign(one.measure), ` (${plural(one.n, "clip")} without a cell)`]), "."));
}

/** What a score is of, where its name does not say so. */
function scoreText(score) {
  const unit = score.unit && score.unit !== "1" ? `${visible(score.unit)} · ` : "";
  return score.label === score.measure ? `${unit}median ${value(score.median)}` : measureText(score);
}

/** One score: what it is called, and all else once it is opened. */
function scoreCard(facts, thresholds, score, i) {
  const id = `score-${i}`;
  const told = h("span", { class: "small" });
  const summary = h("summary", {}, h("span", { class: "score-name", id: `${id}-name` }, foreign(score.score.label, { limit: 80, more: false })), " ", h("span", { class: "muted small" }, scoreText(score.score)), " ", told);
  const node = h("details", { class: "score", id: `${id}-card` }, summary);
  const card = { node, logarithmic: (yes) => { card.isLogarithmic = yes; card.chart?.logarithmic(yes); } };
  thresholds.listen(() => fill(told, score.stop >= 0 && h("span", { class: "tag good" }, thresholdText(score.axis, score.stop))));
  node.addEventListener("toggle", () => {
    if (node.open && !card.chart) put(node, scoreBody(facts, thresholds, score, id, card));
  });
  return card;
}

/** What a card shows when it is open; its chart and slider are drawn anew for the other side. */
function scoreBody(facts, thresholds, score, id, card) {
  const side = h("select", { id: `${id}-side` }, [["min", "at least"], ["max", "at most"]].map(([name, text]) => h("option", { value: name, selected: score.side === name }, text)));
  side.addEventListener("change", () => thresholds.moveOther(score, score.stop, side.value));
  const [drawn, numbers] = [h("div", { class: "stack" }), h("div", { class: "stack", id: `${id}-numbers` })];
  let control = null;
  let shown = null;
  const draw = () => {
    shown = score.axis;
    const kept = () => (shown.side === "min" ? shown.kept.with_n : shown.kept.with_n.slice().reverse());
    control = axisControl(shown, id, {
      stop: () => score.stop, move: (stop) => thresholds.moveOther(score, stop), curve: kept,
      others: "together with the recipe's thresholds", buttons: [["Off", -1]], "aria-labelledby": `${id}-name ${id}-side`,
    });
    card.chart = control.chart;
    card.chart.logarithmic(card.isLogarithmic);
    fill(drawn, control.chart.node, control.node);
  };
  const refresh = () => {
    if (shown !== score.axis) draw();
    side.value = score.side;
    control.refresh();
    fill(numbers, scoreNumbers(facts, thresholds, score));
  };
  thresholds.listen(refresh);
  refresh();
  const choice = h("p", { class: "row" }, h("label", { for: side.id }, "Keep clips with"), side);
  return h("div", { class: "axis-halves" }, h("div", { class: "stack" }, choice, drawn), numbers);
}

function scoreNumbers(facts, thresholds, score) {
  const [alone, kept, whole] = [score.kept("alone"), score.kept("with"), score.kept("with", -1)];
  const text = ({ n, hours: time }) => `${count(n)} · ${hours(time)}`;
  const moved = thresholds.shifts.filter(Boolean).length + thresholds.added.filter((other) => other !== score).length;
  return [
    definitions([
      ["Kept alone", `${text(alone)} · ${percent(alone.n, facts.clips.found)}`],
      ["Kept with the recipe", `${text(kept)} · ${percent(kept.n, facts.clips.found)}`],
      ["Dropped of the recipe's clips", text({ n: whole.n - kept.n, hours: whole.hours - kept.hours })],
      ["Without a value", score.score.never_n > 0 && `${count(score.score.never_n)} · ${hours(score.score.never_hours)}`],
    ].filter(([, what]) => what), { vars: { least: "20rem" } }),
    moved > 0 && h("p", { class: "note small" }, `Counted with the recipe's thresholds as the recipe has them, without ${moved === 1 ? "the other slider that was" : `the ${count(moved)} other sliders that were`} moved. The bar above says between which numbers all of them lie.`),
  ];
}
