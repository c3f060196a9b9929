// Building blocks of the pages. All text reaches the document as text nodes: nothing here parses markup.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const SAFE_URL = /^(#|\.\/|\?|\/(?![/\\])|data:image\/(jpeg|png|webp);base64,)/;
const NEVER = new Set(["innerHTML", "outerHTML", "srcdoc", "style"]);

/** An HTML element. `on*` properties are listeners, `vars` CSS custom properties; null, false and undefined are left out. */
function h(tag, props, ...children) {
  return furnish(document.createElement(tag), props, children);
}

/** The same for SVG. */
function svg(tag, props, ...children) {
  return furnish(document.createElementNS(SVG, tag), props, children);
}

function furnish(node, props, children) {
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (NEVER.has(key)) throw new TypeError(`${key} is never set`);
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "vars") for (const [name, text] of Object.entries(value)) node.style.setProperty(`--${name}`, text);
    else if ((key === "href" || key === "src") && !SAFE_URL.test(value)) throw new TypeError(`an address of this kind is never set`);
    else node.setAttribute(key, value === true ? "" : value);
  }
  return put(node, children);
}

/** Append text, nodes and (nested) lists of them. */
function put(node, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

/** Put these children in place of what is there. */
function fill(node, ...children) {
  node.replaceChildren();
  return put(node, children);
}

// Text of strangers

// Controls, halves of letters, and the marks that turn the direction of text round: shown, not obeyed. (\n, \t are kept.)
const HIDDEN = /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|\p{Surrogate}/gu;

/** Text with hidden characters made visible. */
function visible(text) {
  return String(text ?? "").replace(HIDDEN, (mark) => `⟨U+${mark.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

/**
 * Text that a stranger wrote: apart from its surroundings in direction, clamped when it is long, with a button for the
 * rest (`more: false`: without, for places inside a button).
 */
function foreign(text, { limit = 280, tag = "bdi", more = true, ...props } = {}) {
  const shown = visible(text);
  const node = h(tag, { dir: "auto", ...props, class: `foreign ${props.class ?? ""}`.trim() });
  const letters = shown.length > limit ? Array.from(shown) : shown;
  if (letters.length <= limit * 1.15) return put(node, shown);
  const body = h("span", {}, letters.slice(0, limit).join(""), "…");
  if (!more) return put(node, body);
  const button = h("button", { type: "button", class: "more", "aria-expanded": "false" }, `all ${count(letters.length)} characters`);
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") === "false";
    button.setAttribute("aria-expanded", String(open));
    fill(body, open ? shown : `${letters.slice(0, limit).join("")}…`);
    fill(button, open ? "less" : `all ${count(letters.length)} characters`);
  });
  return put(node, body, " ", button);
}

/** The last part of an address or path. */
function baseName(uri) {
  return String(uri ?? "").replace(/[/\\]+$/, "").split(/[/\\]/).pop() || String(uri ?? "");
}

// Numbers

const COUNTS = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

/** A count: 12,345. */
function count(n) {
  return n === null || n === undefined ? "–" : COUNTS.format(n);
}

/** A measured value in four digits. */
function value(x) {
  if (x === null || x === undefined) return "–";
  if (typeof x !== "number") return String(x);
  const size = Math.abs(x);
  if (size === 0) return "0"; // a score may be -0
  if (size < 1e-4 || size >= 1e9) return x.toExponential(2);
  return size >= 1e4 ? COUNTS.format(x) : SHORT.format(x);
}

/** Hours in the unit that suits: 3.2 s, 4.1 min, 12.3 h. */
function hours(x) {
  if (x === null || x === undefined) return "–";
  const size = Math.abs(x);
  if (size === 0) return "0 h";
  if (size < 1 / 60) return `${value(Number((x * 3600).toPrecision(3)))} s`;
  if (size < 1) return `${(x * 60).toFixed(1)} min`;
  return size < 100 ? `${x.toFixed(1)} h` : `${count(x)} h`;
}

/** Seconds in the unit that suits. */
function seconds(x) {
  if (x === null || x === undefined) return "–";
  if (x > 0 && x < 1) return `${value(Number((x * 1000).toPrecision(3)))} ms`;
  return x < 60 ? `${value(Number(x.toPrecision(3)))} s` : hours(x / 3600);
}

/** A place in a video: 3.20 s, 1:02:03.5. */
function clock(x) {
  if (x === null || x === undefined) return "–";
  if (x < 60) return `${x.toFixed(2)} s`;
  const tenths = Math.round(x * 10);
  const [hour, minute] = [Math.floor(tenths / 36000), Math.floor((tenths % 36000) / 600)];
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  return hour ? `${hour}:${String(minute).padStart(2, "0")}:${rest}` : `${minute}:${rest}`;
}

/** A share: 84.2 %. Only all is 100 % and only none is 0 %. */
function percent(part, whole = 1) {
  if (!whole || part === null || part === undefined) return "–";
  const x = (part / whole) * 100;
  if (x > 0 && x < 0.1) return "<0.1 %";
  if (x < 100 && x > 99.9) return ">99.9 %";
  return `${x.toFixed(x === 0 || x === 100 ? 0 : 1)} %`;
}

/** With its sign, for differences. */
function signed(x, text = count) {
  if (x === 0) return "±0";
  return `${x > 0 ? "+" : "−"}${text(Math.abs(x))}`;
}

/** `1 clip`, `2 clips`. */
function plural(n, noun) {
  return `${count(n)} ${noun}${n === 1 ? "" : "s"}`;
}

// Pieces of a page

/**
 * A table with a caption. A column has `head`, `cell(row)` and may be a number (`num`), the row's heading (`row`) or
 * take what room is left (`wide`). Where `head` is empty, `said` is what those hear who do not see the column.
 * On a narrow screen bars go, and each row of many columns becomes a block of names and values.
 */
function table(caption, columns, rows, { hidden = false, empty = "None." } = {}) {
  if (!rows.length) return h("p", { class: "muted" }, empty);
  const kind = (column) => [column.num && "num", column.wide && "wide"].filter(Boolean).join(" ") || null;
  const titled = (column) => column.head || h("span", { class: "hidden" }, column.row ? "Name" : column.said ?? "Bar");
  // Roles are said outright: a block is no table to those who listen.
  const head = h("tr", { role: "row" }, columns.map((column) => h("th", { scope: "col", role: "columnheader", class: kind(column) }, titled(column))));
  const line = (row) =>
    h("tr", { role: "row", class: row?.rowClass }, columns.map((column) => {
      const props = column.row ? { scope: "row", role: "rowheader", class: kind(column) } : { role: "cell", class: kind(column), "data-head": column.head || null };
      return h(column.row ? "th" : "td", props, column.cell(row));
    }));
  const title = h("caption", { class: hidden ? "hidden" : null }, caption);
  const label = typeof caption === "string" ? caption : caption.textContent;
  const body = h("tbody", { role: "rowgroup" }, rows.map(line));
  const heads = h("thead", { role: "rowgroup", class: columns.some((column) => column.head) ? null : "hidden" }, head);
  const blocks = columns.length >= MANY_COLUMNS ? "blocks" : null;
  return h("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": label }, h("table", { role: "table", class: blocks }, title, heads, body));
}

const MANY_COLUMNS = 6;

/** Names with what they are. */
function definitions(pairs, props = {}) {
  const shown = pairs.filter(([, what]) => what !== null && what !== undefined && what !== "");
  return h("dl", { class: "facts", ...props }, shown.map(([name, what]) => h("div", {}, h("dt", {}, name), h("dd", {}, what))));
}

/** A bar from 0 to `share` of the width; its number stands beside it in text. */
function meter(share, kind = "") {
  return h("span", { class: `meter ${kind}`.trim(), "aria-hidden": "true", vars: { part: `${Math.max(0, Math.min(1, share || 0)) * 100}%` } });
}

/** What a run did otherwise than its recipe's source: stages that stand in for others, and what was not done. */
function shortcomings({ stand_ins: standIns = {}, lacks = {} }) {
  const told = { "Stand-ins": standIns, "Not done of the recipe that this one follows": lacks };
  return Object.entries(told).filter(([, each]) => Object.keys(each).length).map(([title, each]) =>
    h("div", { class: "note warn" }, h("p", { class: "strong" }, title),
      h("ul", {}, Object.entries(each).map(([name, text]) => h("li", {}, h("code", {}, visible(name)), ": ", foreign(text, { limit: 500 }))))));
}

/** What folds away. */
function fold(summary, ...children) {
  return h("details", {}, h("summary", {}, summary), ...children);
}

/** Say something to those who do not see it; the last word within a moment is said. */
function announce(text) {
  const place = document.getElementById("announcements");
  if (!place) return;
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => fill(place, text), 250);
}

/** Copy text; without leave to do so, by the old command, and else by selecting it for the user. True when copied. */
async function copyText(text, shownIn) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const before = document.activeElement;
    const area = h("textarea", { class: "hidden", readonly: true, tabindex: "-1" });
    area.value = text;
    (shownIn?.parentNode ?? document.body).append(area);
    area.select();
    let done = false;
    try {
      done = document.execCommand("copy");
    } catch {
      done = false;
    }
    area.remove();
    before?.focus();
    if (!done && shownIn) getSelection().selectAllChildren(shownIn);
    return done;
  }
}

/** A block of text to take away, with its button. `text()` is asked when it is copied. */
function copyBlock(label, text, props = {}) {
  const block = h("pre", { tabindex: "0", role: "region", "aria-label": label, ...props }, text());
  const button = h("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    const done = await copyText(text(), block);
    fill(button, done ? "Copied" : "Selected: press Ctrl+C");
    announce(done ? `${label} copied` : "Could not copy; the text is selected");
    clearTimeout(button.timer);
    button.timer = setTimeout(() => fill(button, "Copy"), 2500);
  });
  button.setAttribute("aria-label", `Copy: ${label}`);
  const node = h("div", { class: "copy" }, h("div", { class: "copy-head" }, h("span", {}, label), button), block);
  node.refresh = () => fill(block, text());
  return node;
}

// Light and dark

const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };

/** A button that goes through automatic, light and dark; remembered where the browser lets a page remember. */
function themeButton() {
  let theme = "auto";
  try {
    theme = localStorage.getItem("curate-theme") ?? "auto";
  } catch {
    // A page from disk may have no storage: it begins with the system's choice.
  }
  const button = h("button", { type: "button", class: "theme" });
  const show = () => {
    if (theme in THEMES && theme !== "auto") document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    fill(button, h("span", { class: "muted" }, "Theme "), THEMES[theme] ?? THEMES.auto);
  };
  button.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    theme = names[(names.indexOf(theme) + 1) % names.length];
    try {
      localStorage.setItem("curate-theme", theme);
    } catch {
      // As above.
    }
    show();
    announce(`Theme: ${THEMES[theme]}`);
  });
  show();
  return button;
}
