// Thresholds to take away: as a piece of a recipe and as a command. Values are written so that they come back the same.

// Letters that YAML may hold as they are, between quotes.
const UNPRINTABLE = /[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]/g;
const PLAIN = /^[A-Za-z][\w.]*(?: [\w.]+)*$/;
const RESERVED = /^(true|false|yes|no|on|off|null|y|n)$/i;

/** A number as YAML 1.1 reads it (it takes 1e-7, without a point, for text). */
function yamlNumber(x) {
  const text = String(x);
  return /^-?\d+e/.test(text) ? text.replace("e", ".0e") : text;
}

/** A scalar or a flat list as YAML. */
function yamlValue(x) {
  if (Array.isArray(x)) return `[${x.map(yamlValue).join(", ")}]`;
  if (typeof x === "number") return yamlNumber(x);
  if (typeof x !== "string") return String(x);
  if (PLAIN.test(x) && !RESERVED.test(x)) return x;
  return JSON.stringify(x).replace(UNPRINTABLE, (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

const DEFAULTS = { name: "", aggregate: "", on_failed: "failed", population: "all" };

/** A condition in a line; what is as ever is left out. */
function yamlFlow(condition) {
  const pairs = Object.entries(condition).filter(([key, x]) => x !== null && x !== undefined && x !== DEFAULTS[key]);
  return `{${pairs.map(([key, x]) => `${key}: ${yamlValue(x)}`).join(", ")}}`;
}

/** A word of a command line, quoted where a shell would read more into it. */
function shellWord(text) {
  if (/^[\w@%+=:,./-]+$/.test(text)) return text;
  if (!/[\0-\x1f\x7f-\x9f]/.test(text)) return `'${text.replaceAll("'", "'\\''")}'`;
  const escaped = text.replace(/[\\']/g, "\\$&").replace(/[\0-\x1f\x7f-\x9f]/g, (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`);
  return `$'${escaped}'`;
}

/**
 * The recipe's conditions with the sliders' thresholds, and those that were `added`: [{condition, left, moved}], `left`
 * where a slider is off.
 */
function conditionsAt(facts, stops, added = []) {
  const axes = facts.axes.map((axis, i) => ({ axis, stop: axis.frozen ? axis.start : stops[i] }));
  const listed = facts.conditions ?? facts.axes.map(bareCondition);
  const own = listed.map((condition, place) => {
    const changed = { ...condition };
    const limits = axes.filter(({ axis }, i) => (facts.conditions ? axis.condition === place : i === place));
    for (const { axis, stop } of limits) {
      if (stop === axis.start) continue;
      if (axis.percentile) delete changed[axis.percentile.kind];
      if (stop < 0) delete changed[axis.side];
      else changed[axis.side] = axis.stops[stop];
    }
    const moved = limits.some(({ axis, stop }) => stop !== axis.start);
    const empty = limits.length > 0 && !["min", "max", "drop_lowest", "drop_highest"].some((key) => (changed[key] ?? null) !== null);
    return { condition: changed, moved, left: empty };
  });
  return [...own, ...added.map((condition) => ({ condition, moved: true, left: false }))];
}

function bareCondition(axis) {
  const condition = { column: axis.column, name: axis.label === axis.column ? "" : axis.label, aggregate: axis.aggregate };
  if (axis.percentile) return { ...condition, [axis.percentile.kind]: axis.percentile.share };
  return axis.start < 0 ? condition : { ...condition, [axis.side]: axis.stops[axis.start] };
}

/** The thresholds as a piece of a recipe. */
function recipeSnippet(facts, stops, added = []) {
  const lines = conditionsAt(facts, stops, added).map(({ condition, left }) => {
    const name = JSON.stringify(condition.name || condition.column);
    return left ? `    # off: ${name.replace(UNPRINTABLE, "?")}` : `    - ${yamlFlow(condition)}`;
  });
  const held = facts.conditions ? [] : (facts.fixed ?? []).map((one) => `    # and, as in the recipe: ${JSON.stringify(one.text).replace(UNPRINTABLE, "?")}`);
  return ["select:", "  conditions:", ...lines, ...held].join("\n");
}

/** The command that selects with these thresholds. */
function selectCommand(facts, stops, added = []) {
  const base = (facts.commands?.select ?? "curate select CORPUS --name NAME").replace(/ NAME$/, " mine");
  const conditions = conditionsAt(facts, stops, added);
  const moved = facts.axes.map((axis, i) => ({ axis, stop: stops[i] })).filter(({ axis, stop }) => !axis.frozen && stop !== axis.start);
  const whole = added.length > 0 || conditions.some(({ left, moved: changed }) => left && changed) || moved.some(({ axis }) => axis.set_key.includes("="));
  if (whole) {
    const kept = conditions.filter(({ left }) => !left).map(({ condition }) => yamlFlow(condition));
    return `${base} \\\n  --set ${shellWord(`select.conditions=[${kept.join(", ")}]`)}`;
  }
  const sets = moved.flatMap(({ axis, stop }) => {
    const cleared = axis.clear_key ? [`${axis.clear_key}=null`] : [];
    return [...cleared, `${axis.set_key}=${stop < 0 ? "null" : yamlNumber(axis.stops[stop])}`];
  });
  return [base, ...sets.map((set) => `--set ${shellWord(set)}`)].join(" \\\n  ");
}
