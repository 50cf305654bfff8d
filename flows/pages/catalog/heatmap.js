"use strict";
// Heat map and table of targets by domains of the selected level.
const heatmap = (() => {
  // Pixels: height of a row, height of the axis, minimum width of a cell with text.
  const ROW = 24,
    FOOT = 38,
    WRITTEN = 38;
  const COLUMNS = 128; // maximum number of domains, those with the largest weights

  const rows = [
    ...tree.data.targets.map((name, t) => ({ name, of: (node) => tree.weight(node, t, "hard") })),
    { name: "corpus (natural)", of: tree.natural },
  ];
  const largestWeight = (node) => rows.reduce((best, row) => Math.max(best, row.of(node)), 0);

  // The domains of each level that have a column, ordered by number.
  const chosen = new Map();
  function columns(level) {
    if (!chosen.has(level)) {
      const sized = level.nodes
        .map((node) => [largestWeight(node), node])
        .sort((a, b) => b[0] - a[0])
        .slice(0, COLUMNS);
      chosen.set(
        level,
        sized.map(([, node]) => node).sort((a, b) => a.number - b.number),
      );
    }
    return chosen.get(level);
  }

  function caption(level) {
    const all = level.nodes.length.toLocaleString("en");
    const columns =
      level.nodes.length > COLUMNS
        ? `the ${COLUMNS} domains with the largest weights, of ${all}`
        : "every domain of the selected level";
    const sentences = tree.data.targets.length
      ? [
          `Share of the alignment documents of each target in ${columns}.`,
          "The last row is the corpus, by tokens.",
        ]
      : [`This catalog has no targets. Share of the tokens of the corpus in ${columns}.`];
    return [...sentences, "Colours follow the square root of the share."].join(" ");
  }

  function mount(host, view, open) {
    let side = 0,
      cell = 0,
      nodes = [],
      things = [],
      largest = 1;
    const frame = (pen, { r, c }, colour) => {
      pen.strokeStyle = colour;
      pen.lineWidth = 2;
      pen.strokeRect(side + c * cell + 1, r * ROW + 1, Math.max(cell - 2, 1), ROW - 2);
    };
    return surface.mount(host, {
      label: "Heat map of targets and domains.",
      height: () => rows.length * ROW + FOOT,
      paint(pen, width, height) {
        nodes = columns(view.level);
        largest = Math.max(...nodes.map(largestWeight), 1e-12);
        things = rows.map((row, r) => nodes.map((node, c) => ({ row, node, r, c })));
        pen.clearRect(0, 0, width, height);
        side = Math.min(
          width * 0.28,
          12 + Math.max(...rows.map((row) => surface.width(pen, row.name))),
        );
        cell = (width - side) / nodes.length;
        rows.forEach((row, r) => {
          surface.write(pen, row.name, 0, r * ROW + ROW / 2, side - 8, base.css("--ink"));
          nodes.forEach((node, c) => {
            const value = row.of(node),
              { fill, ink } = colour.at(Math.sqrt(value / largest)),
              gap = cell > 4 ? 1 : 0;
            pen.fillStyle = fill;
            pen.fillRect(side + c * cell, r * ROW, cell - gap, ROW - 1);
            if (cell >= WRITTEN && value >= 0.0005)
              surface.write(
                pen,
                base.share(+value.toPrecision(2)),
                side + c * cell + 5,
                r * ROW + ROW / 2,
                cell - 6,
                ink,
              );
          });
        });
        const every = Math.ceil(34 / cell),
          below = rows.length * ROW;
        nodes.forEach((node, c) => {
          if (c % every === 0)
            surface.write(
              pen,
              String(node.number),
              side + c * cell + 2,
              below + 10,
              Math.max(cell * every - 3, 14),
              base.css("--soft"),
            );
        });
        surface.write(
          pen,
          `domain of level ${view.level.level.toLocaleString("en")}`,
          side + 2,
          below + 28,
          width - side,
          base.css("--soft"),
        );
      },
      overlay(pen, now) {
        const own =
          view.selected &&
          nodes.findIndex(
            (node) =>
              tree.related(node, view.selected) && node.level.depth <= view.selected.level.depth,
          );
        if (own !== null && own >= 0)
          rows.forEach((_, r) => frame(pen, { r, c: own }, base.css("--soft")));
        if (now) frame(pen, now, base.css("--s1"));
      },
      find: (x, y) =>
        things[Math.floor(y / ROW)]?.[x < side ? -1 : Math.floor((x - side) / cell)] ?? null,
      order: () => things.flat(),
      place: ({ r, c }) => [side + (c + 0.5) * cell, (r + 0.5) * ROW],
      read: ({ row, node }) => ({
        title: tree.title(node, 5),
        rows: [
          { name: row.name, value: base.share(row.of(node)) },
          { name: "corpus", value: base.share(tree.natural(node)) },
        ],
      }),
      open: ({ node }) => open(node),
    });
  }

  // Fill the table with a row per domain of the heat map.
  function fill(table, level, link) {
    const text = (host, tag, words) => {
      host
        .appendChild(document.createElement(tag))
        .appendChild(document.createElement("bdi")).textContent = words;
    };
    table.replaceChildren();
    const head = table.createTHead().insertRow(),
      body = table.createTBody();
    for (const name of ["Domain", "Terms", "Tokens", ...rows.map((row) => row.name)])
      text(head, "th", name);
    for (const [i, cell] of [...head.cells].entries())
      Object.assign(cell, { scope: "col", className: i < 2 ? "text" : "" });
    for (const node of columns(level)) {
      const line = body.insertRow(),
        number = line.appendChild(Object.assign(document.createElement("th"), { scope: "row" }));
      Object.assign(number.appendChild(document.createElement("a")), {
        href: link(node),
        textContent: node.name,
      });
      for (const words of [
        tree.terms(node, 4),
        tree.tokens(node).toLocaleString("en"),
        ...rows.map((row) => base.share(+row.of(node).toPrecision(3))),
      ])
        text(line, "td", words);
      line.cells[1].className = "text";
    }
  }

  return { caption, fill, mount };
})();
