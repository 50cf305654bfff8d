"use strict";
// Charts as SVG, redrawn for the width they get. Text from data only ever becomes text nodes.
const charts = (() => {
  const LABELS_FROM = 520; // pixels of width from which curves and bands carry their names
  const tip = document.getElementById("tip");
  const clipIds = { next: 0 };

  function svg(parent, tag, attributes, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }

  const count = (n) => {
    for (const [size, letter] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) if (Math.abs(n) >= size) return +(n / size).toPrecision(3) + letter;
    return String(+n.toPrecision(3));
  };
  const share = (p) => (p === 0 ? "0%" : p < 1e-6 ? (100 * p).toExponential(0) + "%" : +(100 * p).toPrecision(p < 0.1 ? 2 : 3) + "%");
  const short = (text, most) => ([...text].length > most ? [...text].slice(0, most - 1).join("") + "…" : text);

  // A name cut in the middle: those of runs often differ in their ends.
  const middle = (text, most) => {
    const letters = [...text], head = Math.ceil((most - 1) / 2);
    return letters.length > most ? `${letters.slice(0, head).join("")}…${letters.slice(letters.length - (most - 1 - head)).join("")}` : text;
  };

  function ticks(low, high, most) {
    const rough = (high - low) / Math.max(most, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
    const all = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) all.push(+(i * step).toPrecision(12));
    return all;
  }

  // Axes, grid and scales. Spec: height, left, right, x, y, log, xTitle, yTitle, yFormat, yTicks, rules, label.
  // `rules`: places on the x axis where something begins, each with its name.
  function frame(host, spec) {
    const width = Math.max(host.clientWidth, 200);
    const box = { left: spec.left || 50, right: width - (spec.right || 14), top: 26, bottom: spec.height - 42 };
    const root = svg(host, "svg", { height: spec.height, viewBox: `0 0 ${width} ${spec.height}`, role: "img", tabindex: 0, "aria-label": spec.label });
    const to = spec.log ? Math.log10 : (v) => v;
    const [x0, x1] = spec.x, [y0, y1] = spec.y.map(to);
    const X = (v) => box.left + ((v - x0) / (x1 - x0 || 1)) * (box.right - box.left);
    const Y = (v) => box.bottom - ((to(v) - y0) / (y1 - y0 || 1)) * (box.bottom - box.top);
    const yTicks = spec.yTicks || ticks(spec.y[0], spec.y[1], Math.max((box.bottom - box.top) / 46, 3));
    for (const v of yTicks) {
      svg(root, "line", { class: "grid", x1: box.left, x2: box.right, y1: Y(v), y2: Y(v) });
      svg(root, "text", { x: box.left - 8, y: Y(v) + 4, "text-anchor": "end" }, spec.yFormat(v));
    }
    for (const v of ticks(x0, x1, (box.right - box.left) / 84)) svg(root, "text", { x: X(v), y: box.bottom + 18, "text-anchor": "middle" }, count(v));
    svg(root, "text", { x: (box.left + box.right) / 2, y: spec.height - 6, "text-anchor": "middle" }, spec.xTitle);
    svg(root, "text", { x: 0, y: 13 }, spec.yTitle);
    for (const [v, name] of spec.rules || []) {
      svg(root, "line", { class: "rule", x1: X(v), x2: X(v), y1: box.top, y2: box.bottom });
      svg(root, "text", { x: X(v) - 5, y: box.top + 10, "text-anchor": "end" }, name);
    }
    const id = `clip${clipIds.next++}`;
    svg(svg(root, "clipPath", { id }), "rect", { x: box.left, y: box.top - 3, width: box.right - box.left + 4, height: box.bottom - box.top + 6 });
    return { root, box, X, Y, plot: svg(root, "g", { "clip-path": `url(#${id})` }) };
  }

  // Names beside the right edge, moved apart where they would overlap.
  function names(chart, entries) {
    const gap = 16, placed = entries.filter((e) => e.text).sort((a, b) => a.y - b.y);
    placed.forEach((e, i) => { e.at = Math.max(e.y, i ? placed[i - 1].at + gap : chart.box.top); });
    const over = placed.length ? placed[placed.length - 1].at - chart.box.bottom : 0;
    for (let i = placed.length - 1, most = chart.box.bottom; over > 0 && i >= 0; i--, most -= gap) placed[i].at = Math.min(placed[i].at, most);
    for (const e of placed) {
      const x = chart.box.right + 7;
      svg(chart.root, "path", { d: `M${chart.box.right} ${e.y}L${x} ${e.at}h7`, stroke: e.color, "stroke-width": 2.5, fill: "none" });
      svg(chart.root, "text", { class: "label", x: x + 11, y: e.at + 4 }, e.text);
    }
  }

  function legend(host, entries) {
    const list = document.createElement("div");
    list.className = "legend";
    for (const { color, text, toggle, off } of entries) {
      const item = list.appendChild(document.createElement(toggle ? "button" : "span"));
      if (toggle) item.setAttribute("aria-pressed", String(!off));
      if (toggle) item.addEventListener("click", toggle);
      const key = item.appendChild(document.createElement("span"));
      key.className = "key";
      key.style.background = color;
      item.appendChild(document.createElement("bdi")).textContent = text;
    }
    host.append(list);
  }

  function showTip(x, y, title, rows) {
    tip.replaceChildren(Object.assign(document.createElement("strong"), { textContent: title }));
    for (const row of rows) {
      const line = tip.appendChild(document.createElement("div"));
      if (row.color) Object.assign(line.appendChild(document.createElement("span")), { className: "key" }).style.background = row.color;
      line.appendChild(document.createElement("bdi")).textContent = short(row.name, 60);
      line.appendChild(document.createElement("b")).textContent = row.value;
    }
    tip.hidden = false;
    const size = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, x + 14 + size.width > innerWidth ? x - size.width - 14 : x + 14)}px`;
    tip.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - size.height - 4))}px`;
  }

  // Read-outs under the pointer, a finger, or the arrow keys: `at` holds the x of each stop (the y, if `down`), `read` says what is
  // there; it is told the pointer's y as well.
  function hover(chart, at, read, down) {
    const [across, along, low, high] = down ? ["y", "x", "left", "right"] : ["x", "y", "top", "bottom"];
    const rule = svg(chart.root, "line", { class: "rule", [along + 1]: chart.box[low], [along + 2]: chart.box[high], visibility: "hidden" });
    const dots = svg(chart.root, "g");
    let now = at.length - 1;
    const hide = () => { tip.hidden = true; rule.setAttribute("visibility", "hidden"); dots.replaceChildren(); };
    const show = (i, clientX, clientY, y) => {
      now = i;
      const { title, rows } = read(i, y);
      for (const side of [across + 1, across + 2]) rule.setAttribute(side, at[i]);
      rule.setAttribute("visibility", "visible");
      dots.replaceChildren();
      for (const row of rows) if (row.dot) svg(dots, "circle", { cx: row.dot[0], cy: row.dot[1], r: 4, fill: row.color, stroke: "var(--paper)" });
      showTip(clientX, clientY, title, rows);
    };
    chart.root.addEventListener("pointermove", (event) => {
      const place = chart.root.getBoundingClientRect(), y = event.clientY - place.top, v = down ? y : event.clientX - place.left;
      let best = 0;
      at.forEach((stop, i) => { if (Math.abs(stop - v) < Math.abs(at[best] - v)) best = i; });
      show(best, event.clientX, event.clientY, y);
    });
    chart.root.addEventListener("pointerleave", hide);
    chart.root.addEventListener("blur", hide);
    chart.root.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const place = chart.root.getBoundingClientRect(), i = Math.max(0, Math.min(at.length - 1, now + step));
      if (down) show(i, place.left + chart.box.left, place.top + at[i]);
      else show(i, place.left + at[i], place.top + chart.box.top);
    });
  }

  function heading(host, text) {
    host.appendChild(document.createElement("h3")).appendChild(document.createElement("bdi")).textContent = text;
  }

  function paragraph(host, text) {
    Object.assign(host.appendChild(document.createElement("p")), { className: "caption", textContent: text });
  }

  return { LABELS_FROM, count, frame, heading, hover, legend, middle, names, paragraph, share, short, svg, ticks };
})();
