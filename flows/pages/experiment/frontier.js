"use strict";
// One chart per target and repetition: target loss by general loss, with the frontier of the fixed
// mixtures. Untrusted text only becomes text nodes.
const frontier = (() => {
  const HEIGHT = 340, // pixels
    LOW = 280, // of many charts
    MANY = 4;
  const NEAR = 26; // maximum distance of the pointer from a mark, in pixels
  const NAME = 24; // maximum characters of a name in a chart
  const ORDER = ["learned", "control", "fixed"]; // in which names choose their places
  const rings = new Map(); // by chart: a function that rings the mark of a variant, or none

  const bounds = (values, room) => {
    const low = Math.min(...values),
      high = Math.max(...values),
      more = (high - low || Math.abs(high) || 1) * room;
    return [low - more, high + more];
  };
  const ends = (value, error) => [value - (error ?? 0), value + (error ?? 0)];
  const points = (setting) =>
    setting.points
      .map(([variant, x, dx, y, dy, texts]) => ({ variant, x, dx, y, dy, texts }))
      .filter((p) => p.x !== null && p.y !== null);

  function mark(parent, variant, attributes) {
    return charts.svg(parent, "path", {
      class: variant.role,
      d: variant.path,
      color: variant.colour,
      ...attributes,
    });
  }

  function heading(host, setting) {
    const link = host
      .appendChild(document.createElement("h3"))
      .appendChild(document.createElement("a"));
    link.href = `#${setting.anchor}`;
    link.appendChild(document.createElement("bdi")).textContent = setting.target;
    link.append(`, ${setting.epochs} epochs`);
  }

  // `view` has the variants, `pinned` (a set of variants, whose names come first, and the others
  // fade), and `near` (show only the range of the learned mixtures, their controls and the baseline).
  function draw(host, setting, view) {
    heading(host, setting);
    const all = points(setting),
      of = (p) => view.variants[p.variant];
    if (!all.length) return charts.paragraph(host, "Not measured.");
    const central = all.filter((p) => of(p).role !== "fixed" || p.variant === view.baseline);
    const framed = view.near && central.length > 1 ? central : all;
    const room = framed === all ? 0.09 : 0.2;
    const x = bounds(
        framed.flatMap((p) => ends(p.x, p.dx)),
        room,
      ),
      y = bounds(
        framed.flatMap((p) => ends(p.y, p.dy)),
        room,
      );
    const shown = all.filter((p) => p.x >= x[0] && p.x <= x[1] && p.y >= y[0] && p.y <= y[1]);
    const chart = charts.frame(host, {
      height: view.settings.length > MANY ? LOW : HEIGHT,
      left: 56,
      right: 12,
      x,
      y,
      xTitle: "loss on general text",
      yTitle: "loss on the target",
      xFormat: charts.aligned,
      yFormat: charts.aligned,
      label: `${setting.target}, ${setting.epochs} epochs: loss on the target by loss on general text`,
    });
    const line = setting.frontier.map(([general, test]) => [chart.X(general), chart.Y(test)]);
    if (line.length > 1)
      charts.svg(chart.plot, "path", { class: "frontier", d: `M${line.join("L")}` });
    const active = (p) => !view.pinned.size || view.pinned.has(p.variant);
    const marks = shown.map((p) => ({ p, x: chart.X(p.x), y: chart.Y(p.y) }));
    // The marks that matter most are drawn last, on top of the others.
    const rank = ({ p }) => (active(p) ? 0 : 10) + ORDER.indexOf(of(p).role);
    const ranked = [...marks].sort((a, b) => rank(a) - rank(b));
    for (const m of [...ranked].reverse()) {
      const [inside, above] = [chart.plot, chart.root].map((parent) =>
        charts.svg(parent, "g", { class: active(m.p) ? "" : "faded" }),
      );
      m.around = bars(inside, chart, m, of(m.p).colour);
      mark(above, of(m.p), { transform: `translate(${m.x.toFixed(1)} ${m.y.toFixed(1)})` });
    }
    names(
      chart,
      ranked.filter((m) => active(m.p)),
      ranked,
      line,
      of,
    );
    if (shown.length < all.length)
      charts.svg(
        chart.root,
        "text",
        { x: chart.box.right, y: 13, "text-anchor": "end" },
        `${all.length - shown.length} outside`,
      );
    hover(host, chart, marks, setting, of);
  }

  // Draw the error bars of a mark, and return the boxes that they and the mark cover.
  function bars(group, chart, { p, x, y }, color) {
    const around = [{ left: x - 7, right: x + 7, top: y - 7, bottom: y + 7 }];
    const [left, right] = ends(p.x, p.dx).map(chart.X),
      [bottom, top] = ends(p.y, p.dy).map(chart.Y);
    let d = "";
    if (p.dx > 0) d += `M${left.toFixed(1)} ${y.toFixed(1)}H${right.toFixed(1)}`;
    if (p.dy > 0) d += `M${x.toFixed(1)} ${top.toFixed(1)}V${bottom.toFixed(1)}`;
    if (!d) return around;
    charts.svg(group, "path", { class: "errors", d, color });
    around.push({ left, right, top: y - 1, bottom: y + 1 });
    around.push({ left: x - 1, right: x + 1, top, bottom });
    return around;
  }

  function names(chart, chosen, marks, line, of) {
    const others = marks.filter((m) => !chosen.includes(m));
    const entries = chosen.map((m) => ({ ...m, text: base.middle(of(m.p).name, NAME) }));
    const box = {
      left: chart.box.left + 2,
      right: chart.box.right + 12,
      top: chart.box.top - 6,
      bottom: chart.box.bottom + 6,
    };
    const places = labels.place(
      entries,
      line,
      box,
      others.flatMap((m) => m.around),
    );
    entries.forEach((entry, i) => {
      const found = places[i];
      if (!found) return;
      if (found.far)
        charts.svg(chart.root, "path", {
          class: "leader",
          d: `M${entry.x} ${entry.y}L${found.end}`,
          color: of(entry.p).colour,
        });
      charts.svg(
        chart.root,
        "text",
        {
          class: `name ${of(entry.p).role}`,
          x: found.at.left + 2,
          y: found.at.bottom - 4,
        },
        entry.text,
      );
    });
  }

  // Tooltips for the pointer and the arrow keys. The variant is ringed in all charts.
  function hover(host, chart, marks, setting, of) {
    const stops = [...marks].sort((a, b) => a.x - b.x);
    const ring = charts.svg(chart.root, "circle", { class: "ring", r: 10, visibility: "hidden" });
    rings.set(host, (variant) => {
      const m = stops.find((stop) => stop.p.variant === variant);
      ring.setAttribute("visibility", m ? "visible" : "hidden");
      if (m)
        for (const [key, value] of [
          ["cx", m.x],
          ["cy", m.y],
        ])
          ring.setAttribute(key, value);
    });
    let now = -1;
    chart.root.setAttribute("aria-valuemax", Math.max(stops.length - 1, 0));
    const hide = () => {
      base.hideTip();
      rings.forEach((show) => show(null));
    };
    const show = (m, x, y) => {
      now = stops.indexOf(m);
      const variant = of(m.p);
      rings.forEach((show) => show(m.p.variant));
      const rows = setting.columns
        .map((name, i) => ({ name, value: m.p.texts[i] }))
        .filter((row) => row.value);
      return base.showTip(x, y, `${variant.name} (${variant.role})`, rows);
    };
    const point = (event) => {
      const place = chart.root.getBoundingClientRect();
      const distance = (m) =>
        Math.hypot(m.x - event.clientX + place.left, m.y - event.clientY + place.top);
      const nearest = stops.reduce(
        (best, m) => (!best || distance(m) < distance(best) ? m : best),
        null,
      );
      if (nearest && distance(nearest) <= NEAR) show(nearest, event.clientX, event.clientY);
      else hide();
    };
    chart.root.addEventListener("pointermove", point);
    chart.root.addEventListener("pointerdown", point);
    chart.root.addEventListener("pointerleave", hide);
    chart.root.addEventListener("blur", hide);
    chart.root.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hide();
      const step = base.stride(event.key, stops.length);
      if (!step || !stops.length) return;
      event.preventDefault();
      const place = chart.root.getBoundingClientRect(),
        i = Math.max(0, Math.min(stops.length - 1, now + step));
      base.walkedTo(chart.root, i, show(stops[i], place.left + stops[i].x, place.top + stops[i].y));
    });
  }

  const ringAll = (variant) => rings.forEach((show) => show(variant));

  return { draw, mark, ringAll };
})();
