"use strict";
// Differences of the target loss from the baseline: a row per variant with its mean, its settings
// and its prediction. Untrusted text only becomes text nodes.
const differences = (() => {
  const ROW = 24; // pixels
  const LEFT = 0.36; // maximum share of the width that names take

  // `view` is that of `frontier.draw`.
  function draw(host, data, view) {
    const of = (row) => view.variants[row.variant];
    const near = data.differences.filter((row) => of(row).role !== "fixed"),
      rows = view.near && near.length ? near : data.differences;
    const values = rows.flatMap((row) => [
      row.mean - (row.error ?? 0),
      row.mean + (row.error ?? 0),
      row.predicted ?? row.mean,
      ...row.settings.map(([, value]) => value),
    ]);
    const low = Math.min(0, ...values),
      high = Math.max(0, ...values),
      room = (high - low || 0.1) * 0.04;
    const characters = Math.max(...rows.map((row) => [...of(row).name].length));
    const left = Math.min(24 + 7 * characters, Math.max(96, host.clientWidth * LEFT)),
      limit = Math.floor((left - 24) / 7);
    const chart = charts.frame(host, {
      height: 72 + ROW * rows.length,
      left,
      x: [low - room, high + room],
      y: [0, 1],
      yTicks: [],
      yFormat: String,
      xFormat: (v, ticks) => (v > 0 ? "+" : "") + charts.aligned(v, ticks),
      xTitle: "bits per byte",
      yTitle: "",
      rules: [[0, ""]],
      label: "Differences from the baseline by variant",
    });
    const at = rows.map((_, i) => chart.box.top + ROW * (i + 0.5));
    rows.forEach((row, i) => bar(chart, row, at[i], of(row), limit, view));
    charts.hover(chart, at, (i) => read(rows[i], of(rows[i]), data), true);
  }

  function bar(chart, row, y, variant, limit, view) {
    const faded = view.pinned.size && !view.pinned.has(row.variant);
    const group = charts.svg(chart.root, "g", { class: faded ? "faded" : "" });
    charts.svg(group, "line", {
      class: "grid",
      x1: chart.box.left,
      x2: chart.box.right,
      y1: y,
      y2: y,
    });
    charts.svg(
      group,
      "text",
      { class: "label", x: chart.box.left - 10, y: y + 4, "text-anchor": "end" },
      base.middle(variant.name, limit),
    );
    for (const [, value] of row.settings)
      charts.svg(group, "circle", {
        class: "setting",
        cx: chart.X(value),
        cy: y,
        r: 2.5,
        color: variant.colour,
      });
    if (row.predicted !== null)
      charts.svg(group, "path", {
        class: "predicted",
        d: `M${chart.X(row.predicted).toFixed(1)} ${y - 9}v18`,
      });
    if (row.error > 0)
      charts.svg(group, "path", {
        class: "errors",
        d: `M${chart.X(row.mean - row.error).toFixed(1)} ${y}H${chart.X(row.mean + row.error).toFixed(1)}`,
        color: variant.colour,
      });
    frontier.mark(group, variant, { transform: `translate(${chart.X(row.mean).toFixed(1)} ${y})` });
  }

  function read(row, variant, data) {
    const rows = row.settings.map(([setting, , text]) => ({
      name: `${data.settings[setting].target}, ${data.settings[setting].epochs} epochs`,
      value: text,
    }));
    if (row.predicted !== null) rows.unshift({ name: "predicted", value: row.texts[1] });
    return { title: variant.name, rows: [{ name: "mean", value: row.texts[0] }, ...rows] };
  }

  return { draw };
})();
