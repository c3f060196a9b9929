// The thresholds: a histogram with a slider an axis, and what the corpus would keep with all of them.

/** A threshold in words: "≥ 0.8 px", or "off". */
function thresholdText(axis, stop) {
  if (stop < 0) return "off";
  const unit = axis.unit && axis.unit.length <= 12 && !["share", "1"].includes(axis.unit) ? ` ${axis.unit}` : "";
  return `${axis.side === "min" ? "≥" : "≤"} ${value(axis.stops[stop])}${unit}`;
}

/** What the sliders say and what follows from it. Those who `listen` are told after each change, once a frame. */
class Thresholds {
  constructor(facts) {
    this.facts = facts;
    this.axes = facts.axes;
    this.stops = this.axes.map((axis) => axis.start);
    this.alone = this.axes.map((axis) => ({ n: keptFrom(axis.alone_n), hours: keptFrom(axis.alone_hours) }));
    this.others = (facts.other_scores ?? []).map((score) => new OtherScore(score));
    this.free = facts.joint?.axes ?? [];
    this.joint = null;
    this.unreadable = !facts.joint;
    this.counted = null;
    this.recipe = null;
    this.listeners = [];
    this.waiting = false;
  }

  /** Read the joint histogram; counts of all together are known from then on. */
  async load() {
    if (!this.facts.joint) return;
    this.joint = await readJoint(this.facts.joint, this.free.map((i) => this.axes[i].stops.length + 1));
    this.facts.joint.data = "";
    this.counted = this.count(this.axes.map((axis) => axis.start));
    this.recipe = this.counted;
    this.refresh();
    performance.mark("counting");
  }

  count(stops) {
    return countJoint(this.joint, this.free.map((i) => strictnessOf(this.axes[i], stops[i])));
  }

  listen(heard) {
    this.listeners.push(heard);
  }

  /** Move one slider. */
  move(i, stop) {
    if (this.stops[i] === stop) return;
    this.stops[i] = stop;
    this.soon();
  }

  /** Move the slider of a score that the recipe asks nothing of, or turn it to the other side. */
  moveOther(score, stop, side = score.side) {
    if (score.stop === stop && score.side === side) return;
    Object.assign(score, { stop, side });
    this.soon();
  }

  /** All as the recipe has them. */
  reset() {
    this.stops = this.axes.map((axis) => axis.start);
    for (const score of this.others) score.stop = -1;
    this.soon();
  }

  /** How much stricter than the recipe each slider stands that is counted with the others. */
  get shifts() {
    return this.free.map((i) => strictnessOf(this.axes[i], this.stops[i]) - strictnessOf(this.axes[i], this.axes[i].start));
  }

  /** The scores whose sliders were moved, and the conditions that they stand for. */
  get added() {
    return this.others.filter((score) => score.stop >= 0);
  }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      const began = performance.now();
      if (this.joint) this.counted = this.count(this.stops);
      this.refresh();
      this.took = performance.now() - began;
    });
  }

  refresh() {
    for (const heard of this.listeners) heard(this);
  }

  /** Clips and hours that axis i keeps alone. */
  keptAlone(i) {
    const at = strictnessOf(this.axes[i], this.stops[i]) + 1;
    return { n: this.alone[i].n[at], hours: this.alone[i].hours[at] };
  }

  /** What goes by axis i alone, were the others as they are; null where it is not known. */
  onlyBy(i) {
    const place = this.free.indexOf(i);
    if (place < 0 || !this.counted) return null;
    return { n: this.counted.onlyN[place], hours: this.counted.onlyMs[place] / 3.6e6 };
  }

  /** What each place of slider i, from left to right, keeps: with the others as they are, else alone. */
  curve(i) {
    const place = this.free.indexOf(i);
    const kept = place >= 0 && this.counted ? keptFrom(this.counted.byN[place]) : this.alone[i].n;
    return this.axes[i].side === "min" ? kept : kept.slice().reverse();
  }
}

/** The section of the thresholds. */
function thresholdsSection(facts) {
  if (!facts.axes?.length && !facts.other_scores?.length) return [h("p", { class: "muted" }, "The selection has no conditions on numbers.")];
  const thresholds = new Thresholds(facts);
  const cards = facts.axes.map((axis, i) => axisCard(facts, thresholds, axis, i));
  const others = thresholds.others.map((score, i) => scoreCard(facts, thresholds, score, i));
  const logarithmic = h("input", { type: "checkbox" });
  logarithmic.addEventListener("change", () => [...cards, ...others].forEach((card) => card.logarithmic(logarithmic.checked)));
  const failed = h("p", { class: "note bad", hidden: true });
  const started = thresholds.load().catch((error) => {
    thresholds.unreadable = true;
    thresholds.refresh();
    failed.hidden = false;
    fill(failed, `The counts of all thresholds together cannot be read in this browser: ${error.message}`);
  });
  thresholdsSection.ready = started.then(() => thresholds);
  return [
    h("p", { class: "muted" }, "Each slider stops at quantiles of its values; the line below it shows what every stop would keep, the other sliders as they are. Counts are exact, over every clip of the run, before near-duplicates are removed. Clips shown are those nearest to the recipe's thresholds."),
    failed,
    keptBar(facts, thresholds),
    h("label", { class: "check" }, logarithmic, "Logarithmic heights of the bars"),
    cards.map((card) => card.node),
    fixedConditions(facts),
    otherScores(facts, thresholds, others),
    exportCard(facts, thresholds),
  ];
}

/** What is kept together, in sight while one scrolls through the sliders. */
function keptBar(facts, thresholds) {
  const now = h("output", { class: "kept-now", "aria-live": "off", for: facts.axes.map((_, i) => `axis-${i}`).join(" ") });
  const against = h("span", { class: "muted" });
  const reset = h("button", { type: "button", onclick: () => thresholds.reset() }, "Back to the recipe");
  const away = h("a", { href: "#export", class: "small" }, "Use these thresholds");
  const bar = h("span", { class: "meter" });
  thresholds.listen(({ counted, stops, axes, added }) => {
    reset.disabled = stops.every((stop, i) => stop === axes[i].start) && !added.length;
    if (!counted) return fill(now, thresholds.unreadable ? "not counted" : "counting…");
    const { least, most, recipe, exact } = keptTogether(thresholds);
    const [number, time] = exact ? [plural(most.n, "clip"), hours(most.hours)] : [`${count(least.n)} to ${plural(most.n, "clip")}`, `${hours(least.hours)} to ${hours(most.hours)}`];
    fill(now, h("b", {}, number), ` · ${time}`, exact && ` · ${percent(most.n, facts.clips.found)}`);
    const [n, longer] = [most.n - recipe.n, most.hours - recipe.hours];
    const changed = n || longer || !exact;
    const difference = `${signed(n)} ${Math.abs(n) === 1 ? "clip" : "clips"}, ${signed(longer, hours)} against the recipe`;
    fill(against, !exact ? "bounds, since several sliders are moved" : changed ? difference : "as the recipe keeps");
    bar.style.setProperty("--part", `${(most.n / (facts.clips.found || 1)) * 100}%`);
    if (changed || against.isConnected) announce(`Kept together: ${number}, ${time}`);
  });
  thresholds.refresh();
  const words = h("div", { class: "row" }, h("span", { class: "strong" }, "Kept together"), now, against);
  return h("div", { class: "kept-bar", id: "kept" }, h("div", {}, words, bar), h("div", { class: "row" }, reset, away));
}

/**
 * Histogram and slider of an axis. `stop()` says where it stands, `move(stop)` moves it, `curve()` gives what each place
 * keeps (`others`: and what of the other sliders), `buttons` are places with their names. `refresh()` shows where it stands.
 */
function axisControl(axis, id, { stop, move, curve, others, buttons, ...named }) {
  const recipe = axis.start < 0 ? null : axis.stops[axis.start];
  const edges = axis.edges.length > 1 ? axis.edges : [axis.stops[0], axis.stops[axis.stops.length - 1]];
  const chart = thresholdChart({
    edges, counts: axis.counts, side: axis.side, stops: axis.stops, recipe, title: `Values of ${visible(axis.label)}`,
    pick: (x) => move(nearestStop(axis, x)),
  });
  const slider = h("input", { type: "range", id, min: 0, max: axis.stops.length, step: 1, "aria-describedby": `${id}-numbers`, ...named });
  slider.addEventListener("input", () => move(stopAt(axis, Number(slider.value))));
  const line = curveChart(`What each stop of ${visible(axis.label)} keeps`, others);
  const output = h("output", { for: id, class: "strong", "aria-live": "off" });
  const place = h("span", { class: "muted small" });
  const pressed = buttons.map(([text, to]) => [to, h("button", { type: "button", class: "small", "aria-label": `${text}: ${visible(axis.label)}`, onclick: () => move(to) }, text)]);
  const refresh = () => {
    const at = stop();
    slider.value = placeOf(axis, at);
    slider.setAttribute("aria-valuetext", thresholdText(axis, at));
    fill(output, thresholdText(axis, at));
    fill(place, at < 0 ? `of ${plural(axis.stops.length, "stop")}` : `stop ${count(at + 1)} of ${count(axis.stops.length)}`);
    chart.set(at < 0 ? null : axis.stops[at]);
    line.set(Array.from(curve()), placeOf(axis, at));
    for (const [to, button] of pressed) button.disabled = at === to;
  };
  const head = h("div", { class: "row spread" }, h("span", { class: "row" }, output, place), h("span", { class: "row" }, pressed.map(([, button]) => button)));
  return { chart, node: h("div", { class: "axis-control" }, head, slider, line.node, stopRow(axis)), refresh };
}

/** One axis: histogram, slider, numbers, clips. */
function axisCard(facts, thresholds, axis, i) {
  const id = `axis-${i}`;
  const control = axisControl(axis, id, {
    stop: () => thresholds.stops[i], move: (stop) => thresholds.move(i, stop), curve: () => thresholds.curve(i),
    buttons: [["Recipe", axis.start], ["Off", -1]],
  });
  const numbers = h("div", { id: `${id}-numbers` });
  thresholds.listen(() => {
    control.refresh();
    fill(numbers, axisNumbers(facts, thresholds, axis, i));
  });
  thresholds.refresh();
  const head = h("div", { class: "section-head" },
    h("h3", {}, h("label", { for: id }, foreign(axis.label, { limit: 80 }))),
    h("span", { class: "muted small" }, measureText(axis)));
  const left = h("div", { class: "stack" }, control.chart.node, control.node, numbers, axis.frozen && frozenNote(axis));
  const node = h("article", { class: "card axis", id: `threshold-${i}` }, head, h("div", { class: "axis-halves" }, left, nearClips(facts, axis)), endClips(facts, axis));
  return { node, logarithmic: control.chart.logarithmic };
}

/** What stands at the first, the middle and the last stop: even steps of rank, which the chart's scale is not. */
function stopRow(axis) {
  const last = axis.stops.length - 1;
  const marked = [...new Set([0, Math.floor(last / 2), last])];
  const tick = (stop) => {
    const at = (placeOf(axis, stop) / axis.stops.length) * 100;
    return h("span", { class: at < 10 ? "first" : at > 90 ? "last" : null, vars: { at: `${at}%` } }, value(axis.stops[stop]));
  };
  return [
    h("div", { class: "ticks stops", "aria-hidden": "true" }, marked.map(tick)),
    h("p", { class: "muted small" }, "The slider goes by rank, from stop to stop; the chart above goes by value."),
  ];
}

function measureText(axis) {
  const what = axis.aggregate ? `${axis.aggregate} of ${axis.column}` : axis.column;
  return [h("code", {}, visible(what)), axis.unit && axis.unit !== "1" ? ` · ${visible(axis.unit)}` : "", ` · median ${value(axis.median)}`];
}

function frozenNote(axis) {
  return h("p", { class: "note small" }, `This slider counts alone. Together with the others, and in the command below, it stays at ${thresholdText(axis, axis.start)}: there are too many combinations to count it with them.`);
}

function axisNumbers(facts, thresholds, axis, i) {
  const alone = thresholds.keptAlone(i);
  const only = thresholds.onlyBy(i);
  const share = axis.percentile ? `, ${axis.percentile.kind.replace("drop_", "drops the ")} ${percent(axis.percentile.share)}` : "";
  const missing = { keep: "pass all the same", drop: "never pass" }[axis.on_failed] ?? "fail at every stop";
  return definitions([
    ["Kept alone", `${count(alone.n)} · ${hours(alone.hours)} · ${percent(alone.n, facts.clips.found)}`],
    ["Dropped by this only", only && `${count(only.n)} · ${hours(only.hours)}`],
    ["Recipe", `${thresholdText(axis, axis.start)}${share}`],
    [h("span", { title: missing }, "Without a value"), axis.never_n > 0 && `${count(axis.never_n)} · ${hours(axis.never_hours)}`],
  ].filter(([, what]) => what), { vars: { least: "20rem" } });
}

/** What an axis compares of a clip. */
function axisValue(facts, axis, id) {
  const values = facts.clip_facts?.[id]?.values ?? {};
  return values[axis.measure ?? axis.column] ?? null;
}

/** Clips with their values of an axis. */
function axisClips(facts, axis, title, ids) {
  const words = (id) => [value(axisValue(facts, axis, id))];
  return [h("h4", {}, title), clipList(facts, ids, words, { label: title, least: "8.5rem" })];
}

function nearClips(facts, axis) {
  const away = (id) => Math.abs(axisValue(facts, axis, id) - axis.stops[axis.start]) || 0;
  const near = (side) => (axis.near ?? []).filter((one) => one.side === side).map((one) => one.clip).sort((a, b) => away(a) - away(b));
  const [passing, failing] = axis.side === "min" ? ["above", "below"] : ["below", "above"];
  return h("div", { class: "stack" },
    axisClips(facts, axis, "Nearest to the recipe's threshold that pass", near(passing)),
    axisClips(facts, axis, "Nearest to it that fail", near(failing)));
}

function endClips(facts, axis) {
  if (!axis.best?.length) return null;
  return fold("Best and worst of all clips", h("div", { class: "axis-halves" }, h("div", { class: "stack" }, axisClips(facts, axis, "Best", axis.best)), h("div", { class: "stack" }, axisClips(facts, axis, "Worst", axis.worst))));
}

function fixedConditions(facts) {
  if (!facts.fixed?.length) return null;
  const items = facts.fixed.map((one) => h("li", {}, foreign(one.label, { class: "strong" }), ": ", foreign(one.text)));
  return h("div", { class: "card" }, h("h3", {}, "Conditions without a slider"), h("p", { class: "muted small" }, "They hold in every count above. Each line says what a clip is dropped for."), h("ul", {}, items));
}

function exportCard(facts, thresholds) {
  const added = () => thresholds.added.map((score) => score.condition);
  const blocks = [
    facts.commands?.select && copyBlock("As a command", () => selectCommand(facts, thresholds.stops, added()), { id: "export-command", class: "wrap" }),
    copyBlock("As a piece of a recipe", () => recipeSnippet(facts, thresholds.stops, added()), { id: "export-recipe" }),
  ].filter(Boolean);
  const crossed = h("p", { class: "note warn", hidden: true });
  thresholds.listen(({ stops }) => {
    blocks.forEach((block) => block.refresh());
    const found = conditionsAt(facts, stops).filter(({ condition: { min, max } }) => min > max).map(({ condition }) => condition.name || condition.column);
    crossed.hidden = !found.length;
    fill(crossed, "No value can be above the least and below the most that is asked of ", foreign(found.join(", ")), ": selecting refuses that.");
  });
  return h("div", { class: "card", id: "export" }, h("h3", {}, "Use these thresholds"),
    h("p", { class: "muted small" }, "Selecting computes no score; it takes seconds. Near-duplicates are removed after the thresholds, as the recipe says."),
    crossed,
    h("div", { class: "grid", vars: { least: "26rem" } }, blocks));
}
