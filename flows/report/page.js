"use strict";
// What this page shows: two loss panels, one stack of weights a run, the sizes of the domains, and their table.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const runColor = (i) => `var(--s${i % 8})`;
  const dashes = (i) => ["", "7 4", "2 4"][Math.floor(i / 8) % 3]; // a ninth run shares its colour with the first, not its dashes

  // Draw now, and again whenever the width changes.
  function mount(host, draw) {
    let width = 0;
    const redraw = () => {
      if (host.clientWidth === width) return;
      width = host.clientWidth;
      byId("tip").hidden = true;
      host.replaceChildren();
      draw(host);
    };
    redraw();
    // In the next frame: what is drawn may change the height, and with it the scroll bar and the width.
    new ResizeObserver(() => requestAnimationFrame(redraw)).observe(host);
  }

  function heading(host, text) {
    host.appendChild(document.createElement("h3")).appendChild(document.createElement("bdi")).textContent = text;
  }

  function paragraph(host, text) {
    Object.assign(host.appendChild(document.createElement("p")), { className: "caption", textContent: text });
  }

  const nearest = (points, x) => points.reduce((best, p) => (Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best));

  function drawLosses(host, panel) {
    heading(host, panel.title);
    if (!panel.series.length) return paragraph(host, "Not measured yet.");
    const all = panel.series.flatMap((s) => s.points), losses = all.map((p) => p[1]);
    const low = Math.min(...losses), high = panel.top ?? Math.max(...losses), room = (high - low || 0.1) * 0.06;
    const text = (s) => data.runs[s.run].label;
    const wide = host.clientWidth >= charts.LABELS_FROM && panel.series.length <= 12;
    const right = wide ? 34 + 7.2 * Math.min(18, Math.max(...panel.series.map((s) => [...text(s)].length))) : 14;
    const chart = charts.frame(host, {
      height: 340, right, x: [0, Math.max(...all.map((p) => p[0]), 1)], y: [low - room, high + room], xTitle: "training tokens",
      yTitle: "loss (nats per token)", yFormat: (v) => v.toFixed(high - low < 0.3 ? 3 : high - low < 3 ? 2 : 1), label: `${panel.title}: loss by training tokens`,
    });
    for (const s of panel.series) {
      const d = s.points.map(([x, y], i) => `${i ? "L" : "M"}${chart.X(x).toFixed(1)} ${chart.Y(y).toFixed(1)}`).join("");
      charts.svg(chart.plot, "path", { d: d + (s.points.length === 1 ? "h0" : ""), fill: "none", stroke: runColor(s.run), "stroke-width": s.points.length === 1 ? 8 : 2.2, "stroke-linecap": "round", "stroke-linejoin": "round", "stroke-dasharray": dashes(s.run) });
    }
    const entries = panel.series.map((s) => ({ color: runColor(s.run), text: charts.short(text(s), wide ? 18 : 60), y: chart.Y(s.points[s.points.length - 1][1]) }));
    if (wide) charts.names(chart, entries);
    else charts.legend(host, entries);
    if (panel.top !== null) paragraph(host, `First losses, up to ${Math.max(...losses).toFixed(2)}, lie above the panel.`);
    const stops = [...new Set(all.map((p) => p[0]))].sort((a, b) => a - b);
    charts.hover(chart, stops.map(chart.X), (i) => {
      const found = panel.series.map((s) => ({ s, p: nearest(s.points, stops[i]) })).sort((a, b) => a.p[1] - b.p[1]);
      const rows = found.map(({ s, p }) => ({
        color: runColor(s.run), name: text(s), value: p[1].toFixed(3) + (p[0] === stops[i] ? "" : ` at ${charts.count(p[0])}`),
        dot: chart.Y(p[1]) >= chart.box.top - 3 ? [chart.X(p[0]), chart.Y(p[1])] : null,
      }));
      return { title: `${charts.count(stops[i])} tokens, nats per token`, rows };
    });
  }

  function drawWeights(host, w) {
    heading(host, w.run);
    const wide = host.clientWidth >= charts.LABELS_FROM, last = w.starts.length - 1, n = w.names.length;
    const color = (k) => (w.others && k === n - 1 ? "var(--bar)" : `var(--f${k})`);
    const text = (k) => `${charts.share(+w.sampling[k][last].toFixed(3))} ${w.names[k]}`;
    const ends = [...w.starts.slice(1), w.end], right = wide ? Math.min(340, 40 + 7.2 * Math.max(...w.names.map((_, k) => [...text(k)].length))) : 14;
    const most = Math.floor((right - 36) / 7.2);
    const x = [w.starts[0], w.end];
    const chart = charts.frame(host, { height: 300, right, x, y: [0, 1], yTicks: [0, 0.25, 0.5, 0.75, 1], xTitle: w.axis, yTitle: "share of the tokens drawn", yFormat: charts.share, label: `Sampling weights of ${w.run}` });
    const base = w.starts.map(() => 0), entries = [];
    for (let k = 0; k < n; k++) {
      const top = base.map((b, i) => b + (w.sampling[k][i] ?? 0));
      const up = top.map((v, i) => `${i ? "V" : `M${chart.X(w.starts[0])} `}${chart.Y(v).toFixed(2)}H${chart.X(ends[i]).toFixed(2)}`).join("");
      const down = base.map((_, j) => last - j).map((i) => `V${chart.Y(base[i]).toFixed(2)}H${chart.X(w.starts[i]).toFixed(2)}`).join("");
      charts.svg(chart.plot, "path", { d: `${up}${down}Z`, fill: color(k) });
      entries.push({ color: color(k), text: charts.short(text(k), wide ? most : 60), y: chart.Y((top[last] + base[last]) / 2) });
      top.forEach((v, i) => { base[i] = v; });
    }
    if (wide) charts.names(chart, entries);
    else charts.legend(host, entries);
    const line = charts.frame(host, { height: 130, right, x, y: [Math.max(0, Math.min(...w.effective) * 0.8), Math.max(...w.effective) * 1.1], xTitle: w.axis, yTitle: `effective number (of ${w.members} members)`, yFormat: charts.count, label: `Effective number of ${w.run}` });
    const d = w.effective.map((v, i) => `${i ? "V" : `M${line.X(w.starts[0])} `}${line.Y(v).toFixed(1)}H${line.X(ends[i]).toFixed(1)}`).join("");
    charts.svg(line.plot, "path", { d, fill: "none", stroke: "var(--ink)", "stroke-width": 1.8 });
    const middles = w.starts.map((s, i) => (s + ends[i]) / 2);
    const read = (i) => ({
      title: `${charts.count(w.starts[i])} to ${charts.count(ends[i])} ${w.axis}`,
      rows: [
        ...w.names.map((name, k) => ({ color: color(k), name, value: `${charts.share(w.sampling[k][i])} (α ${charts.share(w.alpha[k][i])})` })).reverse(),
        { name: "effective number", value: w.effective[i].toFixed(1) },
      ],
    });
    for (const c of [chart, line]) charts.hover(c, middles.map(c.X), read);
  }

  // Columns of a domain's row.
  const [NUMBER, TERMS, DOCUMENTS, TOKENS, RANK, CORPUS, TARGET, DRAWN, EPOCHS] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

  const hidden = new Set(); // runs that the reader has switched off in the plot of sizes

  function drawSizes(host, d) {
    const rows = [...d.rows].sort((a, b) => a[RANK] - b[RANK]);
    const shares = rows.flatMap((r) => [r[CORPUS], ...r[DRAWN], r[TARGET] ?? 0]).filter((v) => v > 0);
    if (!shares.length) return paragraph(host, "All domains are empty.");
    const low = Math.floor(Math.log10(Math.min(...shares))), high = Math.ceil(Math.log10(Math.max(...shares)) + 1e-9);
    const step = Math.ceil((high - low) / 7), zero = 10 ** (low - step * 0.6);
    const powers = [zero];
    for (let p = high; p >= low; p -= step) powers.push(10 ** p);
    const last = rows[rows.length - 1][RANK];
    const chart = charts.frame(host, { height: 360, x: [0.5, last + 0.5], y: [zero, 10 ** high], log: true, yTicks: powers, yFormat: (v) => charts.share(v === zero ? 0 : v), xTitle: "domains, largest in the corpus first", yTitle: "share of the tokens (logarithmic)", label: "Share of each domain in the corpus and in what each run drew" });
    const place = (v) => chart.Y(v > 0 ? v : zero).toFixed(1), at = rows.map((r) => chart.X(r[RANK]));
    const thick = Math.max(1, ((chart.box.right - chart.box.left) / last) * 0.8), dot = Math.max(3.4, Math.min(8, thick));
    const bars = rows.map((r, i) => `M${at[i].toFixed(1)} ${chart.box.bottom}V${place(r[CORPUS])}`).join("");
    charts.svg(chart.plot, "path", { d: bars, stroke: "var(--bar)", "stroke-width": thick });
    const entries = [{ color: "var(--bar)", text: "corpus" }];
    d.runs.forEach((run, k) => {
      entries.push({ color: runColor(run), text: `drawn by ${data.runs[run].label}`, off: hidden.has(run), toggle: () => { if (!hidden.delete(run)) hidden.add(run); host.replaceChildren(); drawSizes(host, d); } });
      if (hidden.has(run)) return;
      const path = rows.map((r, i) => `M${at[i].toFixed(1)} ${place(r[DRAWN][k])}h0`).join("");
      charts.svg(chart.plot, "path", { d: path, stroke: runColor(run), "stroke-width": dot, "stroke-linecap": "round", opacity: 0.85 });
    });
    if (d.target !== null) {
      const path = rows.map((r, i) => (r[TARGET] > 0 ? `M${(at[i] - dot * 0.8).toFixed(1)} ${place(r[TARGET])}h${(dot * 1.6).toFixed(1)}` : "")).join("");
      charts.svg(chart.plot, "path", { d: path, stroke: "var(--ink)", "stroke-width": 2 });
      entries.push({ color: "var(--ink)", text: `target ${d.target}` });
    }
    charts.legend(host, entries);
    charts.hover(chart, at, (i) => {
      const r = rows[i];
      const own = [{ color: "var(--bar)", name: "corpus", value: `${charts.share(r[CORPUS])}, ${charts.count(r[TOKENS])} tokens` }];
      if (d.target !== null) own.push({ color: "var(--ink)", name: `target ${d.target}`, value: charts.share(r[TARGET]) });
      const drawn = d.runs.map((run, k) => ({ color: runColor(run), name: data.runs[run].label, value: `${charts.share(r[DRAWN][k])}, ${charts.count(r[EPOCHS][k])} epochs` }));
      return { title: `${r[NUMBER]}: ${charts.short(r[TERMS], 120)}`, rows: [...own, ...drawn] };
    });
  }

  function domainTable(d) {
    const MOST = 30;
    const columns = [
      { title: "Domain", get: (r) => r[NUMBER], show: String },
      { title: "Terms", get: (r) => r[TERMS], show: String, text: true },
      { title: "Documents", get: (r) => r[DOCUMENTS], show: (v) => v.toLocaleString("en") },
      { title: "Tokens", get: (r) => r[TOKENS], show: (v) => v.toLocaleString("en") },
      { title: "Corpus share", get: (r) => r[CORPUS], show: charts.share },
      ...(d.target === null ? [] : [{ title: "Target share", get: (r) => r[TARGET], show: charts.share }]),
      ...d.runs.flatMap((run, k) => [
        { title: "drawn", run, get: (r) => r[DRAWN][k], show: charts.share },
        { title: "epochs", run, get: (r) => r[EPOCHS][k], show: (v) => (v >= 100 ? charts.count(v) : v.toFixed(2)) },
      ]),
    ];
    // First sorted by what the last run drew: a comparison usually names its method after its baselines.
    const table = byId("domains"), sort = { by: d.runs.length ? columns.length - 2 : 4, down: true };
    const groups = table.createTHead().insertRow(), head = table.tHead.insertRow(), body = table.createTBody();
    const plainColumns = columns.filter((column) => column.run === undefined).length;
    groups.insertCell().colSpan = plainColumns;
    for (const run of d.runs) {
      const cell = Object.assign(groups.appendChild(document.createElement("th")), { colSpan: 2, scope: "colgroup" });
      cell.appendChild(document.createElement("span")).className = `key k${run % 8}`;
      cell.appendChild(document.createElement("bdi")).textContent = charts.short(data.runs[run].label, 24);
    }
    columns.forEach((column, c) => {
      const cell = head.appendChild(document.createElement("th"));
      cell.scope = "col";
      if (column.text) cell.className = "text";
      const button = cell.appendChild(document.createElement("button"));
      button.addEventListener("click", () => { sort.down = sort.by === c ? !sort.down : !(column.text || c === 0); sort.by = c; fill(); });
    });
    function fill() {
      const words = byId("filter").value.trim().toLowerCase(), { get } = columns[sort.by];
      const found = d.rows.filter((r) => !words || r[TERMS].toLowerCase().includes(words) || String(r[NUMBER]) === words);
      found.sort((a, b) => (get(a) < get(b) ? -1 : get(a) > get(b) ? 1 : b[CORPUS] - a[CORPUS]) * (sort.down ? -1 : 1));
      columns.forEach((column, c) => {
        head.cells[c].firstChild.textContent = column.title + (sort.by === c ? (sort.down ? " ▾" : " ▴") : "");
        head.cells[c].ariaSort = sort.by === c ? (sort.down ? "descending" : "ascending") : "none";
      });
      body.replaceChildren();
      for (const r of found.slice(0, MOST)) {
        const line = body.insertRow();
        for (const column of columns) {
          const cell = line.insertCell();
          if (column.text) cell.className = "text";
          cell.appendChild(document.createElement("bdi")).textContent = column.show(column.get(r));
        }
      }
      byId("shown").textContent = `${Math.min(MOST, found.length).toLocaleString("en")} of ${found.length.toLocaleString("en")} shown`;
    }
    byId("filter").addEventListener("input", fill);
    fill();
  }

  for (const panel of data.losses) mount(byId("losses").appendChild(document.createElement("div")), (host) => drawLosses(host, panel));
  if (data.weights.length) for (const w of data.weights) mount(byId("weights").appendChild(document.createElement("div")), (host) => drawWeights(host, w));
  else byId("weights-section").hidden = true;
  if (data.domains) {
    const d = data.domains, left = d.filled - d.rows.filter((r) => r[DOCUMENTS] > 0).length;
    byId("domains-caption").textContent = `Level ${d.level.toLocaleString("en")}: ${d.filled.toLocaleString("en")} domains with documents` +
      `${left ? `; the ${left.toLocaleString("en")} smallest are left out of this page` : ""}. Shares are of tokens; epochs: how often each sequence of a domain was used on average.`;
    mount(byId("sizes"), (host) => drawSizes(host, d));
    domainTable(d);
  } else byId("domains-section").hidden = true;
})();
