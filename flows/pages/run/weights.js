"use strict";
// Weights of one run over time: a stacked chart, a heat map of large bases, and scores and losses
// of the members.
const weights = (() => {
  const percent = (v) => (v === null ? "–" : base.share(v));
  const color = (w, k) => (w.others && k === w.names.length - 1 ? "var(--rest)" : `var(--f${k})`);
  const line = (k) => `var(--s${k % 8})`; // colours of bands are too pale for lines

  function stack(host, w) {
    const wide = host.clientWidth >= charts.LABELS_FROM,
      last = w.starts.length - 1,
      n = w.names.length;
    const text = (k) => `${base.share(+w.sampling[k][last].toFixed(3))} ${w.names[k]}`;
    const ends = [...w.starts.slice(1), w.end],
      right = wide
        ? Math.min(340, 40 + 7.2 * Math.max(...w.names.map((_, k) => [...text(k)].length)))
        : 14;
    const limit = Math.floor((right - 36) / 7.2);
    const chart = charts.frame(host, {
      height: 300,
      right,
      x: [w.starts[0], w.end],
      y: [0, 1],
      yTicks: [0, 0.25, 0.5, 0.75, 1],
      xTitle: w.axis,
      yTitle: "share of the sampled tokens",
      yFormat: base.share,
      label: `Sampling weights of ${w.run}`,
    });
    const below = w.starts.map(() => 0),
      entries = [];
    for (let k = 0; k < n; k++) {
      const top = below.map((b, i) => b + (w.sampling[k][i] ?? 0));
      const up = top
        .map((v, i) => {
          const pen = i ? "V" : `M${chart.X(w.starts[0])} `;
          return `${pen}${chart.Y(v).toFixed(2)}H${chart.X(ends[i]).toFixed(2)}`;
        })
        .join("");
      const down = below
        .map((_, j) => last - j)
        .map((i) => `V${chart.Y(below[i]).toFixed(2)}H${chart.X(w.starts[i]).toFixed(2)}`)
        .join("");
      charts.svg(chart.plot, "path", { d: `${up}${down}Z`, fill: color(w, k) });
      entries.push({
        color: color(w, k),
        text: base.short(text(k), wide ? limit : 60),
        y: chart.Y((top[last] + below[last]) / 2),
      });
      top.forEach((v, i) => {
        below[i] = v;
      });
    }
    if (wide) charts.names(chart, entries);
    else base.legend(host, entries);
    charts.hover(
      chart,
      w.starts.map((s, i) => chart.X((s + ends[i]) / 2)),
      (i) => ({
        title: `${base.count(w.starts[i])} to ${base.count(ends[i])} ${w.axis}`,
        rows: [
          ...w.names
            .map((name, k) => ({
              color: color(w, k),
              name,
              value: `${percent(w.sampling[k][i])} (α ${percent(w.alpha[k][i])})`,
            }))
            .reverse(),
          { name: "effective number", value: w.effective[i].toFixed(1) },
        ],
      }),
    );
  }

  // A step function as a curve: a value is constant until the next stage.
  const steps = (w, values) =>
    values.flatMap((v, i) => [
      [w.starts[i], v],
      [w.starts[i + 1] ?? w.end, v],
    ]);

  function effective(host, w, values, of) {
    const title = `Effective number of ${of}`;
    lines.panel(host, {
      title,
      height: 210,
      zero: true,
      xTitle: w.axis,
      yTitle: `effective number of ${of.split(" ")[0]}`,
      read: (v) => v.toFixed(1),
      series: [{ name: of, color: "var(--ink)", points: steps(w, values) }],
    });
  }

  function measured(host, w, panel) {
    const series = panel.series.map(([values, errors], k) => ({
      name: w.names[k],
      color: line(k),
      points: values.map((v, i) => [panel.tokens[i], v, errors ? errors[i] : null]),
    }));
    lines.panel(host, {
      title: panel.title,
      height: 280,
      read: (v) => String(+v.toPrecision(3)),
      format: (v) => String(+v.toPrecision(2)),
      yTitle: panel.unit,
      series,
    });
  }

  // Scores as cells: a row per member, a column per update. Orange is positive, blue negative, and
  // cells within two standard errors of zero have a third of the opacity.
  function scores(host, w, panel) {
    const rows = panel.series.map(([values, errors], k) => ({ name: w.names[k], values, errors }));
    const ends = panel.tokens.map((at, i) => (i ? (panel.tokens[i - 1] + at) / 2 : 0));
    const last = Math.max(w.end, panel.tokens.at(-1));
    const most = Math.max(...rows.flatMap((row) => row.values.map((v) => Math.abs(v ?? 0))), 1e-12);
    const characters = Math.max(...rows.map((row) => [...row.name].length));
    const left = Math.min(16 + 7 * characters, Math.max(90, host.clientWidth * 0.4)),
      tall = 24;
    const title = charts.heading(host, panel.title);
    const series = rows.map((row) => ({
      name: row.name,
      points: row.values.map((v, i) => [panel.tokens[i], v, row.errors?.[i]]),
    }));
    charts.download(title, { title: panel.title, yTitle: panel.unit, series });
    const chart = charts.frame(host, {
      height: 70 + tall * rows.length,
      left,
      x: [0, last],
      y: [0, 1],
      yTicks: [],
      yFormat: String,
      xTitle: "training tokens",
      yTitle: panel.unit,
      label: `${panel.title} of ${w.run}, one row per member`,
    });
    rows.forEach((row, k) => {
      const y = chart.box.top + tall * k;
      const name = { class: "member", x: left - 8, y: y + tall / 2 + 4, "text-anchor": "end" };
      charts.svg(chart.root, "text", name, base.short(row.name, Math.floor((left - 16) / 7)));
      row.values.forEach((v, i) => {
        if (v === null) return;
        const from = chart.X(ends[i]),
          unclear = row.errors?.[i] > 0 && Math.abs(v) <= 2 * row.errors[i];
        charts.svg(chart.plot, "rect", {
          class: unclear ? "score unclear" : "score",
          x: from,
          y: y + 1,
          width: Math.max(chart.X(ends[i + 1] ?? last) - from - 0.5, 0.5),
          height: tall - 2,
          fill: v < 0 ? "var(--s0)" : "var(--s1)",
          opacity: (Math.max(Math.abs(v) / most, 0.08) * (unclear ? 0.33 : 1)).toFixed(3),
        });
      });
    });
    const read = (v) => String(+v.toPrecision(3));
    charts.hover(chart, panel.tokens.map(chart.X), (i) => ({
      title: `${base.count(panel.tokens[i])} tokens, ${panel.unit}`,
      rows: rows
        .filter((row) => row.values[i] !== null)
        .map((row) => ({
          name: row.name,
          value: read(row.values[i]) + (row.errors?.[i] ? ` ± ${read(row.errors[i])}` : ""),
        })),
    }));
    charts.paragraph(
      host,
      "Orange is positive, blue is negative. Pale cells are within two standard errors of zero.",
    );
  }

  // Colours follow the square root of the share, because most shares are small.
  function scale() {
    const colours = base.ramp();
    return (share, maximum) => `rgb(${colours(Math.sqrt(share / maximum)).join(" ")})`;
  }

  function heat(host, w) {
    const h = w.heat,
      row = h.rows.length > 30 ? 13 : 18,
      paint = scale();
    const characters = Math.max(...h.names.map((name) => [...name].length));
    const left = Math.min(16 + 6.6 * characters, Math.max(100, host.clientWidth * 0.36)),
      limit = Math.floor((left - 16) / 6.6);
    const largest = Math.max(...h.rows.flat(), 1e-9);
    charts.heading(host, h.left_out ? `The ${h.rows.length} largest members` : "All members");
    const chart = charts.frame(host, {
      height: 70 + row * h.rows.length,
      left,
      x: [h.starts[0], h.end],
      y: [0, 1],
      yTicks: [],
      yFormat: String,
      xTitle: h.axis,
      yTitle: "",
      label: `Sampling weights of ${w.run}, one row per member`,
    });
    const picture = Object.assign(document.createElement("canvas"), {
      width: Math.round(chart.box.right - chart.box.left),
      height: h.rows.length,
    });
    const brush = picture.getContext("2d"),
      ends = [...h.starts.slice(1), h.end];
    h.rows.forEach((shares, y) =>
      shares.forEach((share, i) => {
        const from = chart.X(h.starts[i]) - chart.box.left,
          to = chart.X(ends[i]) - chart.box.left;
        brush.fillStyle = paint(share, largest);
        brush.fillRect(Math.floor(from), y, Math.ceil(to) - Math.floor(from), 1);
      }),
    );
    charts.svg(chart.plot, "image", {
      href: picture.toDataURL(),
      x: chart.box.left,
      y: chart.box.top,
      width: chart.box.right - chart.box.left,
      height: chart.box.bottom - chart.box.top,
      preserveAspectRatio: "none",
      class: "heat",
    });
    const tall = (chart.box.bottom - chart.box.top) / h.rows.length;
    h.names.forEach((name, i) =>
      charts.svg(
        chart.root,
        "text",
        {
          class: "member",
          x: left - 8,
          y: chart.box.top + tall * (i + 0.5) + 4,
          "text-anchor": "end",
        },
        base.short(name, limit),
      ),
    );
    base.legend(
      host,
      [0, 0.25, 0.5, 0.75, 1].map((t) => ({
        color: paint(t * t * largest, largest),
        text: base.share(t * t * largest),
      })),
    );
    charts.hover(
      chart,
      h.starts.map((s, i) => chart.X((s + ends[i]) / 2)),
      (i, y) => {
        const under = y === undefined ? -1 : Math.floor((y - chart.box.top) / tall);
        const ranked = h.rows
          .map((shares, k) => ({ k, share: shares[i] }))
          .sort((a, b) => b.share - a.share);
        const named = [
          ...ranked.filter((r) => r.k === under),
          ...ranked.filter((r) => r.k !== under).slice(0, 6),
        ];
        return {
          title: `${base.count(h.starts[i])} to ${base.count(ends[i])} ${h.axis}`,
          rows: named.map((r) => ({
            color: paint(r.share, largest),
            name: h.names[r.k],
            value: base.share(r.share),
          })),
        };
      },
    );
  }

  // Draw all charts of one run into `host`. `mount` also redraws them when the width changes.
  function draw(host, w, mount) {
    const part = (parent, name) =>
      Object.assign(parent.appendChild(document.createElement("div")), { className: name || "" });
    mount(part(host), (place) => stack(place, w));
    if (w.heat) mount(part(host), (place) => heat(place, w));
    const effects = part(host, "panels"),
      panels = part(host, "panels");
    mount(part(effects), (place) =>
      effective(place, w, w.effective, `members (of ${w.members.toLocaleString("en")})`),
    );
    if (w.effective_domains)
      mount(part(effects), (place) => effective(place, w, w.effective_domains, "domains"));
    for (const panel of w.measured) mount(part(panels), (place) =>
        (panel.title === "Scores" ? scores : measured)(place, w, panel),
      );
    if (!w.measured.length) return;
    base.legend(
      host,
      w.measured[0].series.map((_, k) => ({ color: line(k), text: w.names[k] })),
    );
    if (w.no_errors) charts.paragraph(host, w.no_errors);
  }

  return { draw, steps };
})();
