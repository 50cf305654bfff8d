"use strict";
// Charts as SVG, redrawn when their width changes. Untrusted text only becomes text nodes.
const charts = (() => {
  const LABELS_FROM = 520; // width in pixels from which names are next to curves and bands
  const clipIds = { next: 0 };
  const redraws = []; // a function per chart that redraws it

  // Draw now, and again whenever the width or the choices change. A collapsed element has no width
  // and is drawn later.
  function mount(host, draw) {
    let width = 0;
    const redraw = (force) => {
      if (!host.clientWidth || (host.clientWidth === width && !force)) return;
      width = host.clientWidth;
      base.hideTip();
      host.replaceChildren();
      draw(host);
    };
    redraws.push(() => redraw(true));
    redraw(false);
    // In the next frame, because drawing may add a scroll bar, which changes the width.
    new ResizeObserver(() => requestAnimationFrame(() => redraw(false))).observe(host);
  }

  const redrawAll = () => redraws.forEach((redraw) => redraw());
  // Digits after the decimal point for an axis of some length.
  const decimals = (span) => (span < 0.03 ? 4 : span < 0.3 ? 3 : span < 3 ? 2 : span < 30 ? 1 : 0);

  function svg(parent, tag, attributes, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }

  function ticks(low, high, maximum) {
    const rough = (high - low) / Math.max(maximum, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
    const all = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++)
      all.push(+(i * step).toPrecision(12));
    return all;
  }

  // A number with as many digits after the decimal point as the ticks of its axis need.
  function aligned(v, ticks) {
    const digits = ticks.map((tick) => (String(tick).split(".")[1] ?? "").length);
    return v.toFixed(Math.min(Math.max(...digits), 6));
  }

  // Axes, grid and scales. Spec: height, left, right, x, y, log, xTitle, yTitle, xFormat, yFormat,
  // yTicks, rules, label.
  // `rules` are vertical lines: pairs of a position on the x axis and a name.
  function frame(host, spec) {
    const width = Math.max(host.clientWidth, 200);
    const box = {
      left: spec.left || 50,
      right: width - (spec.right || 14),
      top: 26,
      bottom: spec.height - 42,
    };
    const root = svg(host, "svg", { height: spec.height, viewBox: `0 0 ${width} ${spec.height}` });
    const to = spec.log ? Math.log10 : (v) => v;
    const [x0, x1] = spec.x,
      [y0, y1] = spec.y.map(to);
    const X = (v) => box.left + ((v - x0) / (x1 - x0 || 1)) * (box.right - box.left);
    const Y = (v) => box.bottom - ((to(v) - y0) / (y1 - y0 || 1)) * (box.bottom - box.top);
    const yTicks =
      spec.yTicks || ticks(spec.y[0], spec.y[1], Math.max((box.bottom - box.top) / 46, 3));
    for (const v of yTicks) {
      svg(root, "line", { class: "grid", x1: box.left, x2: box.right, y1: Y(v), y2: Y(v) });
      svg(
        root,
        "text",
        { x: box.left - 8, y: Y(v) + 4, "text-anchor": "end" },
        spec.yFormat(v, yTicks),
      );
    }
    const xTicks = ticks(x0, x1, (box.right - box.left) / 84);
    for (const v of xTicks)
      svg(
        root,
        "text",
        { x: X(v), y: box.bottom + 18, "text-anchor": "middle" },
        (spec.xFormat || base.count)(v, xTicks),
      );
    svg(
      root,
      "text",
      { x: (box.left + box.right) / 2, y: spec.height - 6, "text-anchor": "middle" },
      spec.xTitle,
    );
    svg(root, "text", { x: 0, y: 13 }, spec.yTitle);
    for (const [v, name] of spec.rules || []) {
      svg(root, "line", { class: "rule", x1: X(v), x2: X(v), y1: box.top, y2: box.bottom });
      svg(root, "text", { x: X(v) - 5, y: box.top + 10, "text-anchor": "end" }, name);
    }
    const id = `clip${clipIds.next++}`;
    svg(svg(root, "clipPath", { id }), "rect", {
      x: box.left,
      y: box.top - 3,
      width: box.right - box.left + 4,
      height: box.bottom - box.top + 6,
    });
    base.walkable(root, spec.label, 0);
    return { root, box, X, Y, plot: svg(root, "g", { "clip-path": `url(#${id})` }) };
  }

  // Names next to the right edge, moved apart if they would overlap.
  function names(chart, entries) {
    const gap = 16,
      placed = entries.filter((e) => e.text).sort((a, b) => a.y - b.y);
    placed.forEach((e, i) => {
      e.at = Math.max(e.y, i ? placed[i - 1].at + gap : chart.box.top);
    });
    const over = placed.length ? placed[placed.length - 1].at - chart.box.bottom : 0;
    for (let i = placed.length - 1, limit = chart.box.bottom; over > 0 && i >= 0; i--, limit -= gap)
      placed[i].at = Math.min(placed[i].at, limit);
    for (const e of placed) {
      const x = chart.box.right + 7;
      svg(chart.root, "path", {
        d: `M${chart.box.right} ${e.y}L${x} ${e.at}h7`,
        stroke: e.color,
        "stroke-width": 2.5,
        fill: "none",
      });
      svg(chart.root, "text", { class: "label", x: x + 11, y: e.at + 4 }, e.text);
    }
  }

  // Tooltips for the pointer and the arrow keys. `at` has the x of each stop, or its y if `down`.
  // `read(i, y)` returns the tooltip of
  // stop i, given the y of the pointer.
  function hover(chart, at, read, down) {
    const [across, along, low, high] = down
      ? ["y", "x", "left", "right"]
      : ["x", "y", "top", "bottom"];
    const rule = svg(chart.root, "line", {
      class: "rule",
      [along + 1]: chart.box[low],
      [along + 2]: chart.box[high],
      visibility: "hidden",
    });
    const dots = svg(chart.root, "g");
    let now = at.length - 1;
    chart.root.setAttribute("aria-valuemax", now);
    const hide = () => {
      base.hideTip();
      rule.setAttribute("visibility", "hidden");
      dots.replaceChildren();
    };
    const show = (i, clientX, clientY, y) => {
      now = i;
      const { title, rows } = read(i, y);
      for (const side of [across + 1, across + 2]) rule.setAttribute(side, at[i]);
      rule.setAttribute("visibility", "visible");
      dots.replaceChildren();
      for (const row of rows)
        if (row.dot)
          svg(dots, "circle", {
            cx: row.dot[0],
            cy: row.dot[1],
            r: 4,
            fill: row.color,
            stroke: "var(--paper)",
          });
      return base.showTip(clientX, clientY, title, rows);
    };
    chart.root.addEventListener("pointermove", (event) => {
      const place = chart.root.getBoundingClientRect(),
        y = event.clientY - place.top,
        v = down ? y : event.clientX - place.left;
      let best = 0;
      at.forEach((stop, i) => {
        if (Math.abs(stop - v) < Math.abs(at[best] - v)) best = i;
      });
      show(best, event.clientX, event.clientY, y);
    });
    chart.root.addEventListener("pointerleave", hide);
    chart.root.addEventListener("blur", hide);
    chart.root.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hide();
      const step = base.stride(event.key, at.length);
      if (!step) return;
      event.preventDefault();
      const place = chart.root.getBoundingClientRect(),
        i = Math.max(0, Math.min(at.length - 1, now + step));
      base.walkedTo(
        chart.root,
        i,
        down
          ? show(i, place.left + chart.box.left, place.top + at[i])
          : show(i, place.left + at[i], place.top + chart.box.top),
      );
    });
  }

  function heading(host, text) {
    const title = host.appendChild(document.createElement("h3"));
    title.appendChild(document.createElement("bdi")).textContent = text;
    return title;
  }

  // A cell of a CSV file. A name that a spreadsheet would evaluate as a formula gets an apostrophe.
  function cell(value) {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return `"${safe.replaceAll('"', '""')}"`;
  }

  // A link that saves the points of a chart as CSV, with a row per point.
  function download(title, spec) {
    if (!spec.series.some((s) => s.points.length)) return;
    const link = title.appendChild(document.createElement("a"));
    link.className = "download";
    link.textContent = "CSV";
    link.href = "#";
    link.download = `${spec.title.replace(/[^\w]+/g, "-").slice(0, 60)}.csv`;
    link.setAttribute("aria-label", `Save the points of ${spec.title} as CSV`);
    link.addEventListener("click", () => {
      const rows = spec.series.flatMap((s) =>
        s.points.map(([x, y, error]) => [s.name, x, y, error]),
      );
      const head = ["series", spec.xTitle || "training tokens", spec.yTitle || "value", "error"];
      const text = [head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n");
      link.href = `data:text/csv;charset=utf-8,${encodeURIComponent(text.toWellFormed())}`;
    });
  }

  function paragraph(host, text) {
    Object.assign(host.appendChild(document.createElement("p")), {
      className: "caption",
      textContent: text,
    });
  }

  return {
    LABELS_FROM,
    aligned,
    decimals,
    download,
    frame,
    heading,
    hover,
    mount,
    names,
    paragraph,
    redrawAll,
    svg,
  };
})();
