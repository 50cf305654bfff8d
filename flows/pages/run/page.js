"use strict";
// Entry point of the page: draws the charts, and handles the choice of runs and units.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  // Run 9 has the colour of run 1 but other dashes.
  const dashes = (i) => ["", "7 4", "2 4"][Math.floor(i / 8) % 3];
  const OPEN_RUNS = 4; // number of runs whose weights are not collapsed
  const saved = history.state ?? {}; // choices, kept across reloads
  const runs = data.runs.map((run, i) => ({
    ...run,
    color: `var(--s${i % 8})`,
    dashes: dashes(i),
    hidden: saved.hidden?.includes(run.label) ?? false,
  }));
  const UNITS = { nats: "nats per token", bits: "bits per byte", perplexity: "perplexity" };
  const state = { unit: saved.unit in UNITS ? saved.unit : "nats", axis: saved.axis ?? 0 };
  const { mount, redrawAll } = charts;

  const remember = () =>
    history.replaceState(
      {
        hidden: runs.filter((run) => run.hidden).map((run) => run.label),
        unit: state.unit,
        axis: state.axis,
        filter: byId("filter").value,
      },
      "",
    );
  function chosen() {
    remember();
    controls();
    redrawAll();
  }
  const place = (parent) => byId(parent).appendChild(document.createElement("div"));
  const of = (series) => series.filter((s) => !runs[s.run].hidden);
  const styled = (s, points) => ({
    name: runs[s.run].label,
    color: runs[s.run].color,
    dashes: runs[s.run].dashes,
    points,
  });
  const several = runs.length > 1;

  // [value, error] of [loss, error, bits] in the chosen unit. Unknown values are null.
  function inUnit([loss, error, bits]) {
    if (state.unit === "nats") return [loss, error];
    if (state.unit === "perplexity")
      return [Math.exp(loss), error === null ? null : error * Math.exp(loss)];
    return bits === null ? [null, null] : [bits, error === null ? null : (error * bits) / loss];
  }
  const unit = () => UNITS[state.unit];
  // The upper end of a panel in the chosen unit, or null.
  function top([nats, bits]) {
    if (state.unit === "bits") return bits;
    return nats !== null && state.unit === "perplexity" ? Math.exp(nats) : nats;
  }

  // The horizontal axis: training tokens, steps or seconds, by column of a run's progress.
  const AXES = ["training tokens", "steps", "seconds"];
  const hasAxis = (axis) =>
    !axis || runs.every((run) => run.progress.length > 1 && run.progress.at(-1)[axis] !== null);
  if (!hasAxis(state.axis)) state.axis = 0;
  function onAxis(run, tokens) {
    if (!state.axis || tokens === null) return tokens;
    const rows = runs[run].progress,
      next = rows.findIndex((row) => row[0] >= tokens);
    if (next <= 0) return rows[next === 0 ? 0 : rows.length - 1][state.axis];
    const [low, high] = [rows[next - 1], rows[next]],
      part = (tokens - low[0]) / (high[0] - low[0]);
    return low[state.axis] + part * (high[state.axis] - low[state.axis]);
  }

  function losses(host, panel) {
    const isAccuracy = panel.unit === "accuracy";
    const series = of(panel.series).map((s) =>
      styled(
        s,
        s.points.map(([x, ...y]) => [onAxis(s.run, x), ...(isAccuracy ? y : inUnit(y))]),
      ),
    );
    const begins = [
      ...new Set(
        of(panel.series)
          .map((s) => onAxis(s.run, s.boundary))
          .filter((b) => b !== null),
      ),
    ];
    lines.panel(host, {
      title: panel.title,
      series,
      labels: several,
      rules: begins.map((b, i) => [b, i ? "" : "fine-tuning"]),
      top: top(panel.top),
      xTitle: AXES[state.axis],
      yTitle: isAccuracy ? "accuracy" : unit(),
      ...(isAccuracy ? { format: base.share, read: base.share, zero: true } : {}),
    });
  }

  function finals(host, panel) {
    const rows = panel.rows.map((row) => ({
      label: row.label,
      values: of(row.values.map(([run, ...v]) => ({ run, v: inUnit(v) })))
        .filter((o) => o.v[0] !== null)
        .map(({ run, v: [value, error] }) => ({
          name: runs[run].label,
          color: runs[run].color,
          value,
          error,
        })),
    }));
    lines.dots(host, {
      title: panel.title,
      rows: rows.filter((row) => row.values.length),
      left_out: panel.left_out,
      xTitle: unit(),
    });
  }

  const STYLES = {
    count: { read: base.count, format: base.count },
    share: { read: base.share, format: base.share },
    number: {},
  };
  function speed(host, panel) {
    lines.panel(host, {
      title: panel.title,
      height: 210,
      yTitle: panel.unit,
      zero: panel.style !== "number",
      xTitle: AXES[state.axis],
      series: of(panel.series).map((s) =>
        styled(
          s,
          s.points.map(([x, ...y]) => [onAxis(s.run, x), ...y]),
        ),
      ),
      ...STYLES[panel.style],
    });
  }

  function button(parent, text, pressed, press) {
    const made = parent.appendChild(document.createElement("button"));
    made.setAttribute("aria-pressed", String(pressed));
    made.addEventListener("click", press);
    made.appendChild(document.createElement("bdi")).textContent = text;
    return made;
  }

  // Buttons to show or hide runs, and to choose the unit if bits per byte are known.
  function controls() {
    byId("pick").replaceChildren();
    if (several)
      for (const run of runs) {
        const made = button(byId("pick"), run.label, !run.hidden, () => {
          run.hidden = !run.hidden;
          chosen();
        });
        const key = made.insertBefore(document.createElement("span"), made.firstChild);
        key.className = "key";
        key.style.background = run.color;
      }
    byId("units").replaceChildren();
    const known = data.losses.some(
      (p) => p.unit === "loss" && p.series.some((s) => s.points.some((point) => point[3] !== null)),
    );
    for (const [name, words] of Object.entries(UNITS))
      if (name !== "bits" || known)
        button(byId("units"), words, state.unit === name, () => {
          state.unit = name;
          chosen();
        });
    byId("axes").replaceChildren();
    const axes = AXES.map((words, axis) => ({ words, axis })).filter(({ axis }) => hasAxis(axis));
    if (axes.length > 1)
      for (const { words, axis } of axes)
        button(byId("axes"), words, state.axis === axis, () => {
          state.axis = axis;
          chosen();
        });
  }

  // Colours of the visible runs, for charts without names next to the curves.
  function legend(host) {
    if (several)
      base.legend(
        host,
        runs.filter((run) => !run.hidden).map((run) => ({ color: run.color, text: run.label })),
      );
  }

  // Effective number of domains of all runs in one chart.
  function compared(host) {
    const known = data.weights.filter(
      (w) => w.effective_domains && !runs[w.index].hidden && w.axis === data.weights[0].axis,
    );
    if (known.length < 2) return;
    const series = known.map((w) => ({
      ...styled({ run: w.index }, weights.steps(w, w.effective_domains)),
    }));
    lines.panel(host, {
      title: "Effective number of domains per run",
      height: 260,
      zero: true,
      labels: true,
      xTitle: known[0].axis,
      yTitle: "effective number of domains",
      read: (v) => v.toFixed(1),
      series,
    });
  }

  controls();
  for (const panel of data.losses) mount(place("losses"), (host) => losses(host, panel));
  byId("bars").hidden = !data.losses.some((p) =>
    p.series.some((s) => s.points.some((point) => point[2] !== null)),
  );
  for (const panel of data.finals) mount(place("finals"), (host) => finals(host, panel));
  byId("finals-section").hidden = !data.finals.length;
  if (data.weights.length) mount(byId("compared"), compared);
  else
    charts.paragraph(
      byId("weights"),
      data.unwritten
        ? "No weights have been written yet."
        : "All runs use fixed mixtures, so their weights do not change.",
    );
  data.weights.forEach((w, i) => {
    const part = byId("weights").appendChild(document.createElement("details"));
    part.open = i < OPEN_RUNS;
    part
      .appendChild(document.createElement("summary"))
      .appendChild(document.createElement("bdi")).textContent = w.run;
    weights.draw(part.appendChild(document.createElement("div")), w, mount);
  });
  for (const panel of data.speed) mount(place("speed"), (host) => speed(host, panel));
  if (data.speed.length) mount(byId("speed-legend"), legend);
  else charts.paragraph(byId("speed"), "No steps have been recorded yet.");
  byId("domains-section").hidden = !data.domains;
  if (data.domains) {
    byId("domains-caption").textContent = domains.caption(data.domains);
    mount(byId("sizes"), (host) => domains.sizes(host, data.domains, runs));
    mount(byId("epochs"), (host) => domains.epochs(host, data.domains, runs));
    mount(byId("unseen"), (host) => domains.unseen(host, data.domains, runs));
    byId("filter").value = saved.filter ?? "";
    byId("filter").addEventListener("input", remember);
    domains.fillTable(byId("domains"), byId("filter"), byId("shown"), data.domains, runs);
  }
  base.onTheme(redrawAll);
})();
