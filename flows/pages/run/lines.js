"use strict";
// Curves over training tokens with error bars, and rows of dots for the last value of every set.
const lines = (() => {
  const WHISKERS = 60; // maximum number of points with error bars; longer curves have a band

  const nearest = (points, x) =>
    points.reduce((best, p) => (Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best));

  function errors(chart, color, points) {
    const known = points.filter((p) => p[1] !== null && p[2] > 0);
    if (known.length > WHISKERS) {
      const edge = (p, side) =>
        `${chart.X(p[0]).toFixed(1)} ${chart.Y(p[1] + side * p[2]).toFixed(1)}`;
      const d = `M${known.map((p) => edge(p, 1)).join("L")}L${known
        .reverse()
        .map((p) => edge(p, -1))
        .join("L")}Z`;
      charts.svg(chart.plot, "path", { d, fill: color, opacity: 0.18, class: "errors" });
    } else if (known.length) {
      const d = known
        .map((p) => {
          const left = (chart.X(p[0]) - 3).toFixed(1);
          const [high, low] = [1, -1].map((side) => chart.Y(p[1] + side * p[2]).toFixed(1));
          return `M${left} ${high}h6m-3 0V${low}m-3 0h6`;
        })
        .join("");
      charts.svg(chart.plot, "path", {
        d,
        fill: "none",
        stroke: color,
        "stroke-width": 1.3,
        opacity: 0.8,
        class: "errors",
      });
    }
  }

  // Spec: title, yTitle, xTitle, height, format, read, series: [{ name, color, dashes, points: [[x,
  // y or null, error or null]] }],
  // top, zero, rules, labels (names next to the curves), legend (names below the chart if there is
  // no room next to the curves).
  function panel(host, spec) {
    charts.download(charts.heading(host, spec.title), spec);
    const all = spec.series.flatMap((s) => s.points).filter((p) => p[1] !== null);
    if (!all.length) return charts.paragraph(host, "Not measured yet.");
    const values = all.flatMap((p) => [p[1] - (p[2] ?? 0), p[1] + (p[2] ?? 0)]);
    const bottom = Math.min(...values),
      high = spec.top ?? Math.max(...values),
      low = spec.zero ? Math.min(0, bottom) : bottom;
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    const format = spec.format || ((v) => v.toFixed(charts.decimals(high - low)));
    const read = spec.read || ((v) => v.toFixed(3));
    const wide = spec.labels && host.clientWidth >= charts.LABELS_FROM && spec.series.length <= 12;
    const right = wide
      ? 34 + 7.2 * Math.min(18, Math.max(...spec.series.map((s) => [...s.name].length)))
      : 14;
    const chart = charts.frame(host, {
      height: spec.height || 340,
      left: 58,
      right,
      x: [0, Math.max(...all.map((p) => p[0]), 1)],
      y: [spec.zero && low === 0 ? 0 : low - room, high + room],
      xTitle: spec.xTitle || "training tokens",
      yTitle: spec.yTitle || "",
      yFormat: format,
      rules: spec.rules,
      label: `${spec.title} by ${spec.xTitle || "training tokens"}`,
    });
    for (const s of spec.series) {
      let pen = "M";
      const d = s.points
        .map(([x, y]) => {
          if (y === null) {
            pen = "M";
            return "";
          }
          const part = `${pen}${chart.X(x).toFixed(1)} ${chart.Y(y).toFixed(1)}`;
          pen = "L";
          return part;
        })
        .join("");
      errors(chart, s.color, s.points);
      const one = s.points.filter((p) => p[1] !== null).length === 1;
      charts.svg(chart.plot, "path", {
        d: d + (one ? "h0" : ""),
        fill: "none",
        stroke: s.color,
        "stroke-width": one ? 8 : 2,
        "stroke-linecap": "round",
        "stroke-linejoin": "round",
        "stroke-dasharray": s.dashes || "",
      });
    }
    const ends = spec.series
      .map((s) => ({ s, p: s.points.findLast((p) => p[1] !== null) }))
      .filter((e) => e.p);
    const entries = ends.map(({ s, p }) => ({
      color: s.color,
      text: base.middle(s.name, wide ? 18 : 60),
      y: Math.max(chart.Y(p[1]), chart.box.top),
    }));
    if (wide) charts.names(chart, entries);
    else if (spec.legend) base.legend(host, entries);
    if (spec.top != null)
      charts.paragraph(
        host,
        `The first values, up to ${read(Math.max(...values))}, are above the panel.`,
      );
    const stops = [...new Set(all.map((p) => p[0]))].sort((a, b) => a - b);
    charts.hover(chart, stops.map(chart.X), (i) => {
      const known = ends
        .map(({ s }) => ({
          s,
          p: nearest(
            s.points.filter((p) => p[1] !== null),
            stops[i],
          ),
        }))
        .sort((a, b) => b.p[1] - a.p[1]);
      const rows = known.slice(0, 14).map(({ s, p }) => ({
        color: s.color,
        name: s.name,
        value:
          read(p[1]) +
          (p[2] ? ` ± ${read(p[2])}` : "") +
          (p[0] === stops[i] ? "" : ` at ${base.count(p[0])}`),
        dot: chart.Y(p[1]) >= chart.box.top - 3 ? [chart.X(p[0]), chart.Y(p[1])] : null,
      }));
      return {
        title:
          `${base.count(stops[i])} ${(spec.xTitle || "tokens").replace("training ", "")}` +
          (spec.yTitle ? `, ${spec.yTitle}` : ""),
        rows,
      };
    });
  }

  // Spec: title, xTitle, rows: [{ label, values: [{ name, color, value, error }] }], left_out.
  function dots(host, spec) {
    charts.heading(host, spec.title);
    const all = spec.rows.flatMap((r) => r.values);
    if (!all.length) return charts.paragraph(host, "Not measured yet.");
    const edges = all.flatMap((v) => [v.value - (v.error ?? 0), v.value + (v.error ?? 0)]);
    const low = Math.min(...edges),
      high = Math.max(...edges),
      room = (high - low || 0.1) * 0.05;
    const each = Math.max(...spec.rows.map((r) => r.values.length)),
      gap = Math.max(22, Math.min(12 + 5 * each, 48));
    const characters = Math.max(...spec.rows.map((r) => [...r.label].length));
    const left = Math.min(16 + 7 * characters, Math.max(90, host.clientWidth * 0.42)),
      characterLimit = Math.floor((left - 16) / 7);
    const chart = charts.frame(host, {
      height: 72 + gap * spec.rows.length,
      left,
      x: [low - room, high + room],
      y: [0, 1],
      yTicks: [],
      yFormat: String,
      xTitle: spec.xTitle,
      yTitle: "",
      label: `${spec.title}: last losses`,
    });
    const middles = spec.rows.map((_, i) => chart.box.top + gap * (i + 0.5));
    spec.rows.forEach((row, i) => {
      charts.svg(chart.root, "line", {
        class: "grid",
        x1: chart.box.left,
        x2: chart.box.right,
        y1: middles[i],
        y2: middles[i],
      });
      charts.svg(
        chart.root,
        "text",
        { class: "label", x: left - 8, y: middles[i] + 4, "text-anchor": "end" },
        base.short(row.label, characterLimit),
      );
      row.values.forEach((v, k) => {
        const y = middles[i] + (k - (row.values.length - 1) / 2) * Math.min(6, (gap - 8) / each);
        v.at = [chart.X(v.value), y];
        const [low, high] = [-1, 1].map((side) => chart.X(v.value + side * v.error).toFixed(1));
        if (v.error)
          charts.svg(chart.plot, "path", {
            class: "errors",
            d: `M${low} ${y}H${high}`,
            stroke: v.color,
            "stroke-width": 2,
            opacity: 0.6,
          });
        charts.svg(chart.plot, "circle", { cx: v.at[0], cy: y, r: 4, fill: v.color });
      });
    });
    if (spec.left_out)
      charts.paragraph(
        host,
        `${spec.left_out.toLocaleString("en")} more sets with lower losses are in the table below.`,
      );
    const read = (i) => ({
      title: spec.rows[i].label,
      rows: [...spec.rows[i].values]
        .sort((a, b) => b.value - a.value)
        .map((v) => ({
          color: v.color,
          name: v.name,
          value: v.value.toFixed(3) + (v.error ? ` ± ${v.error.toFixed(3)}` : ""),
        })),
    });
    charts.hover(chart, middles, read, true);
  }

  return { dots, panel };
})();
