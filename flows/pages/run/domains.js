"use strict";
// Domains of the catalog: shares in the corpus and in the samples, epochs, remaining tokens, and a
// table.
const domains = (() => {
  // Columns of a row. The last three have a number per run.
  const [NUMBER, TERMS, DOCUMENTS, TOKENS, RANK, CORPUS, TARGET, DRAWN, EPOCHS, UNSEEN] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
  ];
  const TABLE_ROWS = 30,
    TABLE_TERMS = 4; // maximum number of rows, and of terms per row

  // Powers of ten around positive values, and the position for zero below them.
  function decades(values) {
    const low = Math.floor(Math.log10(Math.min(...values))),
      high = Math.ceil(Math.log10(Math.max(...values)) + 1e-9);
    const step = Math.max(Math.ceil((high - low) / 7), 1),
      zero = 10 ** (low - step * 0.6);
    const ticks = [zero];
    for (let p = high; p >= low; p -= step) ticks.push(10 ** p);
    return { zero, top: 10 ** high, ticks };
  }

  // Works for more values than a call can have arguments.
  const extreme = (values, pick) => values.reduce((a, b) => pick(a, b));
  const range = (values) => [extreme(values, Math.min), extreme(values, Math.max)];
  const shown = (d, runs) =>
    d.runs.map((run, k) => ({ run, k, ...runs[run] })).filter((r) => !r.hidden);

  function sizes(host, d, runs) {
    const rows = [...d.rows].sort((a, b) => a[RANK] - b[RANK]),
      visible = shown(d, runs);
    const shares = rows
      .flatMap((r) => [r[CORPUS], ...r[DRAWN], r[TARGET] ?? 0])
      .filter((v) => v > 0);
    if (!shares.length) return charts.paragraph(host, "All domains are empty.");
    const { zero, top, ticks } = decades(range(shares)),
      last = rows[rows.length - 1][RANK];
    const chart = charts.frame(host, {
      height: 340,
      left: 58,
      x: [0.5, last + 0.5],
      y: [zero, top],
      log: true,
      yTicks: ticks,
      yFormat: (v) => base.share(v === zero ? 0 : v),
      xTitle: "domains, by share in the corpus",
      yTitle: "share of the tokens (log scale)",
      label: "Share of each domain in the corpus and in the samples of each run",
    });
    const place = (v) => chart.Y(v > 0 ? v : zero).toFixed(1),
      at = rows.map((r) => chart.X(r[RANK]));
    const thick = Math.max(1, ((chart.box.right - chart.box.left) / last) * 0.8),
      dot = Math.max(3.4, Math.min(8, thick));
    charts.svg(chart.plot, "path", {
      d: rows
        .map((r, i) => `M${at[i].toFixed(1)} ${chart.box.bottom}V${place(r[CORPUS])}`)
        .join(""),
      stroke: "var(--bar)",
      "stroke-width": thick,
    });
    const entries = [{ color: "var(--bar)", text: "corpus" }];
    for (const { color, label, k } of visible) {
      const path = rows.map((r, i) => `M${at[i].toFixed(1)} ${place(r[DRAWN][k])}h0`).join("");
      charts.svg(chart.plot, "path", {
        d: path,
        stroke: color,
        "stroke-width": dot,
        "stroke-linecap": "round",
        opacity: 0.85,
      });
      entries.push({ color, text: `sampled by ${label}` });
    }
    if (d.target !== null) {
      const path = rows
        .map((r, i) =>
          r[TARGET] > 0
            ? `M${(at[i] - dot * 0.8).toFixed(1)} ${place(r[TARGET])}h${(dot * 1.6).toFixed(1)}`
            : "",
        )
        .join("");
      charts.svg(chart.plot, "path", { d: path, stroke: "var(--ink)", "stroke-width": 2 });
      entries.push({ color: "var(--ink)", text: `target ${d.target}` });
    }
    base.legend(host, entries);
    charts.hover(chart, at, (i) => {
      const r = rows[i];
      const own = [
        {
          color: "var(--bar)",
          name: "corpus",
          value: `${base.share(r[CORPUS])}, ${base.count(r[TOKENS])} tokens`,
        },
      ];
      if (d.target !== null)
        own.push({ color: "var(--ink)", name: `target ${d.target}`, value: base.share(r[TARGET]) });
      const drawn = visible.map(({ color, label, k }) => ({
        color,
        name: label,
        value: `${base.share(r[DRAWN][k])}, ${base.count(r[EPOCHS][k])} epochs`,
      }));
      return { title: `${r[NUMBER]}: ${base.short(r[TERMS], 120)}`, rows: [...own, ...drawn] };
    });
  }

  // One number per domain, sorted separately for each run. Spec: column, title, yTitle, xTitle,
  // unit, none, one (draw a line at 1).
  function ranked(host, d, runs, spec) {
    const visible = shown(d, runs),
      filled = d.rows.filter((r) => r[TOKENS] > 0),
      value = (r, k) => r[spec.column][k];
    const positive = filled
      .flatMap((r) => visible.map(({ k }) => value(r, k)))
      .filter((v) => v > 0);
    charts.heading(host, spec.title);
    if (!positive.length)
      return charts.paragraph(
        host,
        visible.length ? spec.none : "No visible run has known samples.",
      );
    const { zero, top, ticks } = decades(range(spec.one ? [...positive, 1] : positive));
    const chart = charts.frame(host, {
      height: 260,
      left: 58,
      x: [0.5, filled.length + 0.5],
      y: [zero, top],
      log: true,
      yTicks: ticks,
      yFormat: (v) => base.count(v === zero ? 0 : v),
      xTitle: spec.xTitle,
      yTitle: spec.yTitle,
      label: spec.title,
    });
    if (spec.one)
      charts.svg(chart.plot, "path", {
        class: "rule",
        d: `M${chart.box.left} ${chart.Y(1)}H${chart.box.right}`,
      });
    const sorted = visible.map(({ k }) =>
      filled.map((r) => [value(r, k), r]).sort((a, b) => b[0] - a[0]),
    );
    visible.forEach(({ color, dashes }, n) => {
      const d = sorted[n]
        .map(
          ([v], i) =>
            `${i ? "L" : "M"}${chart.X(i + 1).toFixed(1)} ${chart.Y(v > 0 ? v : zero).toFixed(1)}`,
        )
        .join("");
      charts.svg(chart.plot, "path", {
        d: d + (filled.length === 1 ? "h0" : ""),
        fill: "none",
        stroke: color,
        "stroke-width": 2.2,
        "stroke-dasharray": dashes,
      });
    });
    charts.hover(
      chart,
      filled.map((_, i) => chart.X(i + 1)),
      (i) => ({
        title: `rank ${(i + 1).toLocaleString("en")}`,
        rows: visible.map(({ color, label }, n) => ({
          color,
          name: `${label}: ${sorted[n][i][1][NUMBER]} ${sorted[n][i][1][TERMS]}`,
          value: `${base.count(sorted[n][i][0])} ${spec.unit}`,
        })),
      }),
    );
  }

  const epochs = (host, d, runs) =>
    ranked(host, d, runs, {
      column: EPOCHS,
      title: "Epochs per domain",
      none: "Nothing has been sampled yet.",
      xTitle: "domains, by epochs",
      yTitle: "epochs (log scale)",
      unit: "epochs",
      one: true,
    });
  const unseen = (host, d, runs) =>
    ranked(host, d, runs, {
      column: UNSEEN,
      title: "Remaining tokens per domain",
      none: "Every token of every domain has been sampled.",
      xTitle: "domains, by remaining tokens",
      yTitle: "tokens (log scale)",
      unit: "tokens",
    });

  // Fill the empty `table`. Its headings sort it, and `input` filters it.
  function fillTable(table, input, status, d, runs) {
    const columns = [
      { title: "Domain", get: (r) => r[NUMBER], show: String },
      {
        title: "Terms",
        get: (r) => r[TERMS],
        show: (v) => v.split(", ", TABLE_TERMS).join(", "),
        text: true,
      },
      { title: "Documents", get: (r) => r[DOCUMENTS], show: (v) => v.toLocaleString("en") },
      { title: "Tokens", get: (r) => r[TOKENS], show: (v) => v.toLocaleString("en") },
      { title: "Corpus share", get: (r) => r[CORPUS], show: base.share },
      ...(d.target === null
        ? []
        : [{ title: "Target share", get: (r) => r[TARGET], show: base.share }]),
      ...d.runs.flatMap((run, k) => [
        { title: "sampled", run, get: (r) => r[DRAWN][k], show: base.share },
        {
          title: "epochs",
          run,
          get: (r) => r[EPOCHS][k],
          show: (v) => (v >= 100 ? base.count(v) : v.toFixed(2)),
        },
        { title: "remaining", run, get: (r) => r[UNSEEN][k], show: base.count },
      ]),
    ];
    // Initially sorted by the samples of the last run, because baselines usually come first.
    const sort = { by: d.runs.length ? columns.length - 3 : 4, down: true };
    const groups = table.createTHead().insertRow(),
      head = table.tHead.insertRow(),
      body = table.createTBody();
    groups.insertCell().colSpan = columns.filter((column) => column.run === undefined).length;
    for (const run of d.runs) {
      const cell = Object.assign(groups.appendChild(document.createElement("th")), {
        colSpan: 3,
        scope: "colgroup",
      });
      cell.appendChild(document.createElement("span")).className = `key k${run % 8}`;
      const label =
        base.middle(runs[run].label, 30) + (d.expected.includes(run) ? " (estimated)" : "");
      cell.appendChild(document.createElement("bdi")).textContent = label;
    }
    columns.forEach((column, c) => {
      const cell = head.appendChild(document.createElement("th"));
      cell.scope = "col";
      if (column.text) cell.className = "text";
      const button = cell.appendChild(document.createElement("button"));
      button.addEventListener("click", () => {
        sort.down = sort.by === c ? !sort.down : !(column.text || c === 0);
        sort.by = c;
        fill();
      });
    });
    function fill() {
      const words = input.value.trim().toLowerCase(),
        { get } = columns[sort.by];
      const found = d.rows.filter(
        (r) => !words || r[TERMS].toLowerCase().includes(words) || String(r[NUMBER]) === words,
      );
      found.sort(
        (a, b) =>
          (get(a) < get(b) ? -1 : get(a) > get(b) ? 1 : b[CORPUS] - a[CORPUS]) *
          (sort.down ? -1 : 1),
      );
      columns.forEach((column, c) => {
        head.cells[c].firstChild.textContent =
          column.title + (sort.by === c ? (sort.down ? " ▾" : " ▴") : "");
        head.cells[c].ariaSort = sort.by === c ? (sort.down ? "descending" : "ascending") : "none";
      });
      body.replaceChildren();
      for (const r of found.slice(0, TABLE_ROWS)) {
        const line = body.insertRow();
        for (const column of columns) {
          const cell = line.insertCell();
          if (column.text) cell.className = "text";
          cell.appendChild(document.createElement("bdi")).textContent = column.show(column.get(r));
        }
      }
      const visible = Math.min(TABLE_ROWS, found.length);
      const [count, all] = [visible, found.length].map((n) => n.toLocaleString("en"));
      status.textContent = `${count} of ${all} shown`;
    }
    input.addEventListener("input", fill);
    fill();
  }

  function caption(d) {
    const left = d.filled - d.rows.filter((r) => r[DOCUMENTS] > 0).length;
    const number = (n) => n.toLocaleString("en");
    const missing = left ? `, of which the ${number(left)} smallest are not on this page` : "";
    const sentences = [
      `Level ${number(d.level)}: ${number(d.filled)} domains with documents${missing}.`,
      "Shares are shares of tokens.",
      "Epochs: average number of times each sequence of a domain was sampled.",
      "Remaining: available tokens that were never sampled.",
    ];
    if (d.expected.length)
      sentences.push("Estimated: computed from the weights of an unfinished run, without bounds.");
    return sentences.join(" ");
  }

  return { caption, epochs, fillTable, sizes, unseen };
})();
