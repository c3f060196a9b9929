// Charts: bars as stretched SVG, everything with letters as HTML beside it, so that text keeps its size at any width.

const PLOT = { width: 1000, height: 100 };

/** Round numbers between two values, about `wanted` of them. */
function ticks(low, high, wanted = 5) {
  const span = high - low;
  if (!(span > 0) || !Number.isFinite(span)) return [low];
  const raw = span / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i += 1) found.push(Number((i * step).toPrecision(12)));
  return found.length ? found : [low, high];
}

/** Where a value lies between two others, in percent of the way. */
function along(x, low, high) {
  if (!(high > low)) return 50;
  return Math.max(0, Math.min(100, ((x - low) / (high - low)) * 100));
}

/** The range that a chart of these edges covers, with further values; never empty. */
function rangeOf(edges, more = []) {
  const [low, high] = [Math.min(edges[0], ...more), Math.max(edges[edges.length - 1], ...more)];
  if (!Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  return high > low ? [low, high] : [low - 0.5, low + 0.5];
}

/** SVG path of bars over `edges` within a range; heights by `scale(count)` in 0..1. No bar is too thin to see. */
function barsPath(edges, counts, scale, { range = rangeOf(edges), inset = 0.08 } = {}) {
  let path = "";
  counts.forEach((n, i) => {
    if (!n) return;
    const [left, right] = [along(edges[i], ...range), along(edges[i + 1], ...range)];
    const [middle, half] = [(left + right) * 5, Math.max((right - left) * 5 * (1 - inset), 3)];
    const x0 = Math.max(0, Math.min(middle - half, PLOT.width - 2 * half));
    const x1 = x0 + 2 * half;
    const y = PLOT.height * (1 - Math.max(scale(n), 0.012));
    path += `M${x0.toFixed(1)} ${PLOT.height}V${y.toFixed(1)}H${x1.toFixed(1)}V${PLOT.height}Z`;
  });
  return path;
}

/** Heights of bars: in proportion, or of the logarithm. */
function heights(counts, logarithmic = false) {
  const most = Math.max(1, ...counts);
  return logarithmic ? (n) => Math.log1p(n) / Math.log1p(most) : (n) => n / most;
}

function stretched(title, desc, ...shapes) {
  const props = { class: "bars", viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, preserveAspectRatio: "none", role: "img" };
  return svg("svg", props, svg("title", {}, title), svg("desc", {}, desc), shapes);
}

/** The labelled axis below a plot. */
function tickRow(low, high, text = value) {
  const marks = ticks(low, high);
  return h("div", { class: "ticks", "aria-hidden": "true" }, marks.map((x) => {
    const at = along(x, low, high);
    return h("span", { class: at < 5 ? "first" : at > 95 ? "last" : null, vars: { at: `${at}%` } }, text(x));
  }));
}

let drawn = 0;

/**
 * A histogram with a threshold that moves: bars of what passes in full colour, the side that goes hatched.
 *
 * `set(x)` draws the threshold at the value x (null: off); `logarithmic(yes)` changes the heights. `pick(x)` is called
 * with the value under a pointer that presses or drags.
 */
function thresholdChart({ edges, counts, side, stops, recipe, title, pick }) {
  const range = rangeOf(edges, stops);
  const [low, high] = range;
  const id = `part-${(drawn += 1)}`;
  const window_ = svg("rect", { x: 0, y: 0, width: PLOT.width, height: PLOT.height });
  const all = svg("path", { class: "gone" });
  const kept = svg("path", { class: "kept", "clip-path": `url(#${id})` });
  const most = Math.max(0, ...counts);
  const desc = `${plural(counts.reduce((sum, n) => sum + n, 0), "clip")} from ${value(low)} to ${value(high)}; the highest bar has ${count(most)}.`;
  const picture = stretched(title, desc, svg("clipPath", { id }, window_), all, kept);
  const gone = h("div", { class: "gone-side" });
  const line = h("div", { class: "threshold" });
  const mark = h("div", { class: "recipe-mark" });
  const plot = h("div", { class: "plot pickable" }, gone, picture, recipe === null ? null : mark, line);
  if (recipe !== null) mark.style.setProperty("--at", `${along(recipe, low, high)}%`);
  const draw = (logarithmic) => {
    const path = barsPath(edges, counts, heights(counts, logarithmic), { range });
    all.setAttribute("d", path);
    kept.setAttribute("d", path);
  };
  draw(false);
  const set = (x) => {
    line.hidden = x === null;
    const at = x === null ? (side === "min" ? 0 : 100) : along(x, low, high);
    plot.style.setProperty("--from", side === "min" ? "0%" : `${at}%`);
    plot.style.setProperty("--width", side === "min" ? `${at}%` : `${100 - at}%`);
    line.style.setProperty("--at", `${at}%`);
    // Values equal to the threshold pass: the bar that holds it is drawn as passing.
    const bar = x === null ? -1 : Math.min(edges.findLastIndex((edge) => edge <= x), edges.length - 2);
    const start = side === "max" ? 0 : bar < 0 ? at : Math.min(at, along(edges[bar], ...range));
    const end = side === "min" ? 100 : bar < 0 ? at : Math.max(at, along(edges[bar + 1], ...range));
    window_.setAttribute("x", start * 10);
    window_.setAttribute("width", (end - start) * 10);
  };
  if (pick) pickable(plot, (share) => pick(low + share * (high - low)));
  return { node: h("div", {}, plot, tickRow(low, high)), set, logarithmic: draw };
}

/** Call `heard(0..1)` with where a pointer presses or drags. */
function pickable(plot, heard) {
  const at = (event) => {
    const box = plot.getBoundingClientRect();
    heard(Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)));
  };
  plot.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType === "touch") return;
    plot.setPointerCapture(event.pointerId);
    at(event);
  });
  plot.addEventListener("pointermove", (event) => {
    if (plot.hasPointerCapture(event.pointerId)) at(event);
  });
}

/** A line of how much each place of a slider would keep, under the slider and as wide as its track. */
function curveChart(title, others = "the other sliders as they are") {
  const area = svg("path", { class: "area" });
  const dot = h("div", { class: "here" });
  const picture = stretched(title, `How many clips are kept at each stop of the slider, ${others}.`, area);
  const node = h("div", { class: "curve" }, picture, dot);
  const set = (shares, here) => {
    const step = PLOT.width / Math.max(1, shares.length - 1);
    const most = Math.max(...shares) || 1;
    const y = (share) => (PLOT.height * (1 - share / most)).toFixed(1);
    const points = shares.map((share, i) => `L${(i * step).toFixed(1)} ${y(share)}`).join("");
    area.setAttribute("d", `M0 ${PLOT.height}${points}L${PLOT.width} ${PLOT.height}Z`);
    dot.style.setProperty("--at", `${(here / Math.max(1, shares.length - 1)) * 100}%`);
    dot.style.setProperty("--up", `${(shares[here] / most) * 100}%`);
  };
  return { node, set };
}

/** What is kept in front of all, over the same edges. */
function compareHistogram({ title, edges, all, kept }) {
  const scale = heights(all);
  const [low, high] = rangeOf(edges);
  const desc = `${count(sum(all))} clips, ${count(sum(kept))} of them kept, from ${value(low)} to ${value(high)}.`;
  const picture = stretched(title, desc, svg("path", { class: "gone", d: barsPath(edges, all, scale) }), svg("path", { class: "kept", d: barsPath(edges, kept, scale, { inset: 0.3 }) }));
  return h("div", {}, h("div", { class: "plot" }, picture), tickRow(low, high));
}

/** A histogram in a line of a table. */
function sparkBars(edges, counts, title) {
  return h("div", { class: "spark" }, stretched(title, "", svg("path", { class: "kept", d: barsPath(edges, counts, heights(counts)) })));
}

/** A bar of all with the kept part in front; the numbers stand in the table round it. */
function pairMeter(all, kept, most) {
  const share = (n) => `${(n / (most || 1)) * 100}%`;
  return h("span", { class: "pair", "aria-hidden": "true", vars: { part: share(all), inner: share(kept) } });
}

/** The sum of numbers. */
function sum(numbers) {
  let total = 0;
  for (const n of numbers) total += n;
  return total;
}
