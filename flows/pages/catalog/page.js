"use strict";
// State of the page and its views. Fragments: #domain=64/29 opens a domain, #search=word searches,
// and & combines both.
(() => {
  const byId = (id) => document.getElementById(id);
  const view = {
    level: tree.levels[Math.min(1, tree.levels.length - 1)],
    mode: colour.modes[0],
    scale: null,
    selected: null,
    zoom: null, // domain of the coarsest level that fills the treemap, or null
    read,
  };
  const link = (node) => `#domain=${node.name}`;
  const word = (term) => `#search=${encodeURIComponent(term)}`;

  function read(node) {
    const rows = [
      { name: "documents", value: tree.documents(node).toLocaleString("en") },
      {
        name: "tokens",
        value: `${base.count(tree.tokens(node))} (${base.share(+tree.share(node).toPrecision(3))})`,
      },
    ];
    return {
      title: tree.title(node, 6),
      rows: [...rows, { name: view.mode.name, value: view.mode.text(view.mode.of(node)) }],
    };
  }

  // Repaint after a change of the colour mode. The heat map has its own colours.
  function tint() {
    view.scale = colour.scale(view.mode, view.level);
    byId("legend").replaceChildren();
    base.legend(byId("legend"), view.scale.legend());
    for (const one of tinted) one.repaint();
  }

  // Repaint after a change of level or theme.
  function paint() {
    colour.load();
    tint();
    heat.repaint();
    byId("heatmap-caption").textContent = heatmap.caption(view.level);
    if (byId("numbers").open) heatmap.fill(byId("weights"), view.level, link);
  }

  // Apply a new fragment immediately. The event `hashchange` comes later, and keys pressed in
  // between would act on the old state.
  function visit(address) {
    if (location.hash !== address) history.pushState(null, "", address);
    route();
  }

  // Handle plain clicks on links within the page. With a modifier key, the browser opens a tab or a
  // window.
  function follow(event) {
    const address = event.target.closest("a")?.getAttribute("href");
    if (
      !address?.startsWith("#") ||
      event.ctrlKey ||
      event.metaKey ||
      event.shiftKey ||
      event.altKey
    )
      return;
    event.preventDefault();
    visit(address);
  }

  function open(node) {
    visit(link(node));
    const box = byId("panel").getBoundingClientRect();
    // In a single column the panel is below.
    if (box.top > innerHeight * 0.8) byId("panel").scrollIntoView({ block: "start" });
  }

  // Fill the treemap with one domain of the coarsest level, or with all of them.
  function zoom(node) {
    view.zoom = view.level.depth ? node : null;
    tinted[0].repaint();
    offerZoom();
  }
  // The button returns to all domains, or zooms into the domain around the selected one.
  function offerZoom() {
    const around = view.selected && view.level.depth ? tree.above(view.selected, tree.levels[0]) : null,
      button = byId("zoom");
    byId("zoomable").hidden = !view.level.depth;
    button.hidden = !view.zoom && !around;
    button.textContent = view.zoom
      ? "Show all domains (Escape)"
      : around
        ? `Zoom into ${base.short(tree.terms(around, 2) || around.name, 60)}`
        : "Show all domains";
  }
  function openInTreemap(node) {
    open(node);
    if (!node.level.depth) zoom(node);
  }

  function results() {
    search.show(byId("results"), byId("found"), byId("search").value, link);
  }

  // A search alone keeps the open domain, whose terms are links to searches.
  function route() {
    const asked = new URLSearchParams(location.hash.slice(1)),
      wanted = asked.get("domain");
    if (asked.has("search")) {
      byId("search").value = asked.get("search");
      results();
    }
    if (wanted !== null || !asked.has("search") || !byId("panel").hasChildNodes()) {
      view.selected = wanted === null ? null : tree.find(wanted);
      panel.show(byId("panel"), wanted, link, word);
      // For screen readers.
      byId("opened").textContent = view.selected ? `Opened ${tree.title(view.selected, 3)}` : "";
    }
    offerZoom();
    for (const one of [...tinted, heat]) one.refresh();
  }

  function choices() {
    for (const level of tree.levels)
      byId("level").add(
        new Option(
          `${level.level.toLocaleString("en")} domains`,
          String(level.depth),
          false,
          level === view.level,
        ),
      );
    const groups = new Map();
    colour.modes.forEach((mode, i) => {
      if (!groups.has(mode.group))
        groups.set(
          mode.group,
          byId("colour").appendChild(
            Object.assign(document.createElement("optgroup"), { label: mode.group }),
          ),
        );
      groups
        .get(mode.group)
        .append(new Option(base.short(mode.name, 60), String(i), false, i === 0));
    });
    byId("level").addEventListener("change", () => {
      view.level = tree.levels[Number(byId("level").value)];
      if (!view.level.depth) view.zoom = null;
      paint();
      offerZoom();
    });
    byId("colour").addEventListener("change", () => {
      view.mode = colour.modes[Number(byId("colour").value)];
      tint();
    });
  }

  choices();
  view.scale = colour.scale(view.mode, view.level);
  const tinted = [
      treemap.mount(byId("treemap"), view, openInTreemap),
      scatter.mount(byId("map"), view, open),
    ],
    heat = heatmap.mount(byId("heatmap"), view, open);
  byId("variance").textContent = base.share(+tree.data.variance.toPrecision(2));
  paint();
  search.keys(byId("search"), byId("results"));
  byId("search").addEventListener("input", () => {
    const words = byId("search").value,
      domain = view.selected ? `domain=${view.selected.name}&` : "";
    history.replaceState(
      null,
      "",
      words ? `#${domain}search=${encodeURIComponent(words)}` : `#${domain}`,
    );
    results();
  });
  byId("zoom").addEventListener("click", () =>
    zoom(view.zoom ? null : tree.above(view.selected, tree.levels[0])),
  );
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && view.zoom && event.target.id !== "search") zoom(null);
  });
  document.addEventListener("click", follow);
  addEventListener("hashchange", route); // back, forward, and addresses that the user types
  byId("numbers").addEventListener("toggle", () => {
    if (byId("numbers").open) heatmap.fill(byId("weights"), view.level, link);
  });
  base.onTheme(paint);
  route();
})();
