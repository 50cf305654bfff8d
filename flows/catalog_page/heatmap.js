"use strict";
// Targets by domains of the coarsest level: how each target's documents fall into them.
const heatmap = (() => {
  const ROW = 24, FOOT = 18, WRITTEN = 38; // pixels: a row, the numbers below, the width from which a cell shows its share

  function mount(host, view, open) {
    const level = tree.levels[0], nodes = level.nodes;
    const rows = [
      ...tree.data.targets.map((name, t) => ({ name, of: (node) => tree.weight(node, t, "hard") })),
      { name: "corpus (natural)", of: tree.natural },
    ];
    const most = Math.max(...rows.map((row) => nodes.reduce((best, node) => Math.max(best, row.of(node)), 0)), 1e-12);
    let side = 0, cell = 0;
    const things = rows.map((row, r) => nodes.map((node, c) => ({ row, node, r, c })));
    const frame = (pen, { r, c }, colour) => {
      pen.strokeStyle = colour;
      pen.lineWidth = 2;
      pen.strokeRect(side + c * cell + 1, r * ROW + 1, Math.max(cell - 2, 1), ROW - 2);
    };
    return surface.mount(host, {
      label: "Heat map of targets by top-level domains.",
      height: () => rows.length * ROW + FOOT,
      paint(pen, width, height) {
        pen.clearRect(0, 0, width, height);
        side = Math.min(width * 0.28, 12 + Math.max(...rows.map((row) => pen.measureText(row.name).width)));
        cell = (width - side) / nodes.length;
        rows.forEach((row, r) => {
          surface.write(pen, row.name, 0, r * ROW + ROW / 2, side - 8, colour.css("--ink"));
          nodes.forEach((node, c) => {
            const value = row.of(node), { fill, ink } = colour.at(Math.sqrt(value / most)), gap = cell > 4 ? 1 : 0;
            pen.fillStyle = fill;
            pen.fillRect(side + c * cell, r * ROW, cell - gap, ROW - 1);
            if (cell >= WRITTEN && value >= 0.0005) surface.write(pen, charts.share(+value.toPrecision(2)), side + c * cell + 5, r * ROW + ROW / 2, cell - 6, ink);
          });
        });
        const every = Math.ceil(30 / cell);
        nodes.forEach((node, c) => { if (c % every === 0) surface.write(pen, String(node.number), side + c * cell + 2, height - FOOT / 2 + 1, Math.max(cell * every - 3, 14), colour.css("--soft")); });
      },
      overlay(pen, now) {
        const chosen = view.selected && tree.above(view.selected, level);
        if (chosen) rows.forEach((_, r) => frame(pen, { r, c: nodes.indexOf(chosen) }, colour.css("--soft")));
        if (now) frame(pen, now, colour.css("--s1"));
      },
      find: (x, y) => things[Math.floor(y / ROW)]?.[x < side ? -1 : Math.floor((x - side) / cell)] ?? null,
      order: () => things.flat(),
      place: ({ r, c }) => [side + (c + 0.5) * cell, (r + 0.5) * ROW],
      read: ({ row, node }) => ({ title: tree.title(node, 5), rows: [[row.name, charts.share(row.of(node))], ["corpus", charts.share(tree.natural(node))]] }),
      open: ({ node }) => open(node),
    });
  }

  return { mount };
})();
