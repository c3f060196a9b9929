// The grid: one card a clip, which plays under the pointer or the focus.
"use strict";

const WAIT_MS = 250;
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** A card. `open(id)` shows the clip large. */
function card(clip, open) {
  const id = clip.clip_id;
  const picture = h("span", { class: "shown" });
  const button = h("button", { type: "button", class: "clip", id: `clip-${id}`, "data-id": id, onclick: () => open(id), onfocus: () => choose(id) });
  put(button, picture, cardText(clip));
  fill(picture, stillOf(id, clip));
  let timer;
  const play = () => {
    clearTimeout(timer);
    if (!still.matches) timer = setTimeout(() => playIn(picture, id), WAIT_MS);
  };
  const stop = () => {
    clearTimeout(timer);
    if (!button.matches(":hover, :focus")) fill(picture, stillOf(id, clip));
  };
  for (const kind of ["pointerenter", "focus"]) button.addEventListener(kind, play);
  for (const kind of ["pointerleave", "blur"]) button.addEventListener(kind, stop);
  return h("li", {}, button);
}

function stillOf(id, clip) {
  const picture = h("img", { class: "picture", src: `/clips/${id}.webp`, alt: "", loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => excuse(picture, `/clips/${id}.webp`));
  return [picture, marked(clip)];
}

/** Put the reason why a picture or clip cannot be shown in its place. */
async function excuse(node, address) {
  let text = "cannot be shown";
  try {
    await request(address);
  } catch (error) {
    text = error.message;
  }
  node.replaceWith(h("span", { class: "no-picture" }, brief(text, 200)));
}

function playIn(picture, id) {
  if (picture.querySelector("video")) return;
  const before = picture.querySelector("img");
  if (!before) return;
  const video = h("video", { class: "picture", muted: true, loop: true, playsinline: true, preload: "auto", tabindex: "-1", "aria-hidden": "true" });
  video.muted = true;
  video.addEventListener("loadeddata", () => before.isConnected && before.replaceWith(video));
  video.addEventListener("error", () => video.isConnected && excuse(video, `/clips/${id}.mp4`));
  video.src = `/clips/${id}.mp4`;
  video.play().catch(() => {});
}

function marked(clip) {
  const verdict = clip["mark.verdict"];
  return verdict ? h("span", { class: `badge ${verdict === "keep" ? "good" : "bad"}` }, verdict === "keep" ? "✓ keep" : "✕ drop") : null;
}

function cardText(clip) {
  const verdict = clip[`selection.${state.ask.selection}`];
  const sorted = state.ask.sort && !state.ask.sort.startsWith("mark.") ? `${state.ask.sort} ${shown(clip[state.ask.sort])}` : "";
  const caption = clip[captionColumn()];
  return h(
    "span",
    { class: "clip-text" },
    h("span", { class: "one-line" }, brief(baseName(clip.uri), 120)),
    h("span", { class: "muted" }, `${clock(clip["clip.start_s"])}, ${seconds(clip["clip.duration_s"])} long`),
    sorted ? h("span", { class: "one-line" }, visible(sorted)) : null,
    verdict ? h("span", { class: verdict === "kept" ? "good" : "warn" }, verdict) : null,
    caption ? h("span", { class: "muted two-lines" }, brief(caption, 300)) : null,
  );
}

/** The beginning of what a stranger wrote, where nothing can be unfolded. */
function brief(text, limit) {
  const letters = Array.from(visible(text));
  return h("bdi", { dir: "auto", class: "foreign" }, letters.length > limit ? `${letters.slice(0, limit).join("")}…` : letters.join(""));
}

/** A value of a table in words. */
function shown(what) {
  if (what === null || what === undefined) return "no value";
  if (Array.isArray(what)) return what.length ? what.map(shown).join(", ") : "none";
  if (typeof what === "boolean") return what ? "yes" : "no";
  return typeof what === "number" ? value(what) : visible(what);
}

/** Draw a card anew: its mark has changed. */
function redraw(clip, open) {
  const old = document.getElementById(`clip-${clip.clip_id}`);
  if (!old) return;
  const focused = document.activeElement === old;
  const made = card(clip, open);
  old.parentNode.replaceWith(made);
  if (focused) made.firstChild.focus({ preventScroll: true });
  choose(state.chosen);
}

/** The clip that the keys act on. */
function choose(id) {
  document.querySelector(".clip[aria-current]")?.removeAttribute("aria-current");
  state.chosen = id;
  document.getElementById(`clip-${id}`)?.setAttribute("aria-current", "true");
}
