// Search, selection, marks, order, and a filter for every column.
"use strict";

const MODES = {
  number: { range: "between", has: "has a value", none: "has none" },
  text: { in: "is one of", not_in: "is none of", contains: "contains", has: "has a value", none: "has none" },
  truth: { in: "is one of", has: "has a value", none: "has none" },
  other: { has: "has a value", none: "has none" },
};

/** The controls; `changed` is called when they ask for something else. */
function controls(changed) {
  const form = h("form", { class: "card controls", "aria-label": "Filters", onsubmit: (event) => event.preventDefault() });
  put(form, h("div", { class: "row quick" }, searchBox(changed), selectionBoxes(changed), markBox(changed), sortBoxes(changed)));
  const list = h("div", { class: "filters" });
  put(form, list, h("div", { class: "row" }, adder(list, changed), clearer(changed)));
  for (const filter of state.ask.filters) if (!isQuick(filter)) list.append(filterBox(filter, changed));
  return form;
}

function labelled(text, control, props = {}) {
  return h("label", { class: "labelled", ...props }, h("span", { class: "muted small" }, text), control);
}

function choice(options, chosen, onchange) {
  const made = Object.entries(options).map(([key, text]) => h("option", { value: key, selected: key === chosen }, visible(text)));
  return h("select", { onchange: (event) => onchange(event.target.value) }, made);
}

/** A choice among all columns, by group. */
function columnChoice(first, chosen, keep, onchange) {
  const groups = new Map();
  for (const column of state.columns.values()) {
    if (keep(column)) groups.set(column.group, [...(groups.get(column.group) ?? []), column]);
  }
  const option = (column) => h("option", { value: column.name, selected: column.name === chosen, title: column.doc }, visible(column.name));
  const inner = [...groups].map(([group, columns]) => h("optgroup", { label: visible(group) }, columns.map(option)));
  return h("select", { onchange: (event) => onchange(event.target.value) }, h("option", { value: "" }, first), inner);
}

function searchBox(changed) {
  let timer;
  let said = state.ask.search; // a box that goes away says its text once more, when the question is another by now
  const say = (text) => {
    clearTimeout(timer);
    if (text === said) return;
    said = text;
    state.ask.search = text;
    changed();
  };
  const input = h("input", {
    type: "search",
    id: "search",
    maxlength: "300",
    placeholder: "words",
    oninput: (event) => {
      clearTimeout(timer);
      timer = setTimeout(() => say(event.target.value), 350);
    },
    onchange: (event) => say(event.target.value),
  });
  input.value = state.ask.search;
  return labelled("Search captions and on-screen text", input, { class: "labelled grow" });
}

function selectionBoxes(changed) {
  const names = Object.fromEntries(state.facts.selections.map((name) => [name, name]));
  const old = state.ask.selection;
  const which = choice({ "": "none", ...names }, old, (name) => {
    replaceFilter(`selection.${state.ask.selection}`, null);
    state.ask.selection = name;
    changed(true);
  });
  const verdict = choice(
    { "": "any", kept: "kept", dropped: "dropped", failed: "failed" },
    filterOf(`selection.${old}`)?.in?.[0] ?? "",
    (said) => {
      replaceFilter(`selection.${old}`, said ? { in: [said] } : null);
      changed();
    },
  );
  verdict.disabled = !old;
  return [labelled("Selection", which), labelled("Verdict", verdict)];
}

function markBox(changed) {
  const now = filterOf("mark.verdict");
  const chosen = now?.in?.[0] ?? (now?.has === true ? "marked" : now?.has === false ? "unmarked" : "");
  const filters = { keep: { in: ["keep"] }, drop: { in: ["drop"] }, marked: { has: true }, unmarked: { has: false } };
  const options = { "": "any", keep: "keep", drop: "drop", marked: "keep or drop", unmarked: "not marked" };
  const box = choice(options, chosen, (said) => {
    replaceFilter("mark.verdict", filters[said] ?? null);
    changed();
  });
  return labelled("Marks", box);
}

function sortBoxes(changed) {
  const sortable = (column) => ["number", "numbers", "text", "truth"].includes(column.kind);
  const by = columnChoice("order of sources", state.ask.sort, sortable, (name) => {
    state.ask.sort = name;
    way.disabled = !name;
    changed();
  });
  const way = choice({ up: "lowest first", down: "highest first" }, state.ask.descending ? "down" : "up", (said) => {
    state.ask.descending = said === "down";
    changed();
  });
  way.disabled = !state.ask.sort;
  return [labelled("Sort by", by), labelled("Order", way)];
}

/** Filters that have a control of their own. */
function isQuick(filter) {
  return filter.column === "mark.verdict" || (state.ask.selection && filter.column === `selection.${state.ask.selection}`);
}

function filterOf(column) {
  return state.ask.filters.find((filter) => filter.column === column);
}

function replaceFilter(column, rest) {
  state.ask.filters = state.ask.filters.filter((filter) => filter.column !== column);
  if (rest) state.ask.filters.push({ column, ...rest });
}

function adder(list, changed) {
  const taken = (name) => filterOf(name) || [...list.children].some((box) => box.dataset.column === name);
  const box = columnChoice("add a filter…", "", () => true, (name) => {
    box.value = "";
    if (!name || taken(name)) return;
    const made = filterBox({ column: name }, changed);
    list.append(made);
    made.ready.then(() => made.querySelector("input, select")?.focus());
  });
  return labelled("Filter by column", box);
}

function clearer(changed) {
  const clear = () => {
    state.ask = { ...DEFAULTS, filters: [], selection: state.ask.selection };
    changed(true);
  };
  return h("button", { type: "button", class: "clear", onclick: clear }, "Clear all");
}

function modeOf(filter, kind) {
  if (filter.has !== undefined) return filter.has ? "has" : "none";
  return Object.keys(MODES[kind]).find((mode) => mode in filter) ?? Object.keys(MODES[kind])[0];
}

/** The controls of one filter; they come when the column's values are known. */
function filterBox(filter, changed) {
  const column = state.columns.get(filter.column);
  const box = h("fieldset", { class: "filter", "data-column": filter.column });
  const remove = () => {
    box.remove();
    replaceFilter(filter.column, null);
    changed();
  };
  const title = [h("code", {}, visible(filter.column)), column?.unit ? ` in ${column.unit}` : ""];
  const button = h("button", { type: "button", class: "more", "aria-label": `Remove the filter ${filter.column}`, onclick: remove }, "remove");
  put(box, h("legend", {}, title, " ", button), column?.doc ? h("p", { class: "muted small" }, visible(column.doc)) : null);
  const place = put(box, h("p", { class: "muted" }, "…")).lastChild;
  box.ready = request("/api/values", { column: filter.column })
    .then((known) => place.replaceWith(filterControls(filter, known, changed)))
    .catch((error) => place.replaceWith(h("p", { class: "bad" }, visible(error.message))));
  return box;
}

function filterControls(filter, known, changed) {
  const kind = { number: "number", numbers: "number", text: "text", list: "text", truth: "truth" }[known.kind] ?? "other";
  const holder = h("div", { class: "stack" });
  const set = (rest) => {
    replaceFilter(filter.column, rest);
    changed();
  };
  const show = (mode, now) => {
    const made = { range: rangeInputs, in: valueBoxes, not_in: valueBoxes, contains: containsInput }[mode];
    fill(holder, made ? made(mode, now, known, set) : null);
  };
  const first = modeOf(filter, kind);
  const modes = choice(MODES[kind], first, (mode) => {
    show(mode, {});
    set(mode === "has" ? { has: true } : mode === "none" ? { has: false } : null);
  });
  modes.setAttribute("aria-label", `How ${filter.column} is filtered`);
  show(first, filter);
  return h("div", { class: "stack" }, modes, holder, h("p", { class: "muted small" }, `${plural(known.n, "clip")} with a value, ${count(known.none)} without`));
}

function rangeInputs(mode, now, known, set) {
  const inputs = {};
  const say = () => {
    const said = Object.entries(inputs).filter(([, input]) => input.value !== "" && Number.isFinite(input.valueAsNumber));
    set(said.length ? Object.fromEntries(said.map(([key, input]) => [key, input.valueAsNumber])) : null);
  };
  for (const [key, text] of [["min", "at least"], ["max", "at most"]]) {
    inputs[key] = h("input", { type: "number", step: "any", placeholder: value(known[key]), onchange: say });
    if (now[key] !== undefined) inputs[key].value = now[key];
  }
  const median = known.median === null ? "" : `median ${value(known.median)}`;
  return h("div", { class: "row" }, labelled("at least", inputs.min), labelled("at most", inputs.max), h("span", { class: "muted small" }, median));
}

function valueBoxes(mode, now, known, set) {
  const typed = (text) => (known.kind === "truth" ? text === "true" : text);
  const chosen = new Set((now[mode] ?? []).map(String));
  const line = ([text, n]) => {
    const box = h("input", {
      type: "checkbox",
      checked: chosen.has(text),
      onchange: (event) => {
        chosen[event.target.checked ? "add" : "delete"](text);
        set(chosen.size ? { [mode]: [...chosen].map(typed) } : null);
      },
    });
    return h("label", { class: "check" }, box, h("span", {}, brief(text, 80), " ", h("span", { class: "muted" }, count(n))));
  };
  const more = known.more ? h("p", { class: "muted small" }, "The most frequent; use “contains” for others.") : null;
  return h("div", { class: "values" }, known.top.map(line), more);
}

function containsInput(mode, now, known, set) {
  const input = h("input", { type: "text", maxlength: "300", onchange: (event) => set(event.target.value ? { contains: event.target.value } : null) });
  input.value = now.contains ?? "";
  return labelled("letters", input);
}
