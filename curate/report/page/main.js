// The page: what stands where. The facts lie in the document as JSON and are text until they are shown.

const SECTIONS = [
  ["overview", "Overview", overviewSection],
  ["funnel", "Funnel", funnelSection],
  ["expected", "Expected and actual", expectedSection],
  ["thresholds", "Thresholds", thresholdsSection],
  ["random", "Clips at random", randomSection],
  ["captions", "Captions", captionsSection],
  ["duplicates", "Near-duplicates", duplicatesSection],
  ["distributions", "Distributions", distributionsSection],
  ["buckets", "Buckets", bucketsSection],
  ["failures", "Failures", failuresSection],
  ["time", "Time", timeSection],
  ["provenance", "Recipe", provenanceSection],
];

function masthead(facts) {
  const made = `${(facts.created_at ?? "").slice(0, 16).replace("T", " ")} UTC`;
  return h("div", { class: "masthead" },
    h("div", {},
      h("h1", {}, "Corpus report"),
      h("p", {}, foreign(facts.corpus, { limit: 160, class: "strong" })),
      h("p", { class: "muted small" }, "Selection ", foreign(facts.selection), " · run ", foreign(facts.run_id), ` · ${made}`)),
    themeButton());
}

function navigation(sections) {
  return h("ul", { class: "wide" }, sections.map(([id, title]) => h("li", {}, h("a", { href: `#${id}` }, title))));
}

/** Mark the section that one looks at. */
function follow(nav) {
  const links = new Map(Array.from(nav.querySelectorAll("a"), (link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    const here = entries.find((entry) => entry.isIntersecting);
    if (!here) return;
    for (const link of links.values()) link.removeAttribute("aria-current");
    const link = links.get(here.target.id);
    link.setAttribute("aria-current", "true");
    const list = link.closest("ul");
    list.scrollLeft = link.offsetLeft - list.clientWidth / 3;
  }, { rootMargin: "-20% 0px -75% 0px" });
  for (const id of links.keys()) seen.observe(document.getElementById(id));
}

function start() {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  document.title = `Corpus report: ${visible(facts.selection)}`;
  fill(document.getElementById("head"), masthead(facts));
  const sections = SECTIONS.map(([id, title, build]) => h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), build(facts)));
  const nav = document.getElementById("parts");
  fill(nav, navigation(SECTIONS));
  fill(document.getElementById("main"), sections);
  follow(nav);
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

start();
