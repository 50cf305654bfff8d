"use strict";
// A canvas that fits its host and the screen's pixels, says what is under the pointer or the arrow keys, and opens it.
// Spec: label, height(width), paint(pen, width, height), overlay(pen), find(x, y), order() of the things for the keys,
// place(thing) in pixels, read(thing) to { title, rows }, open(thing).
const surface = (() => {
  const tip = document.getElementById("tip");

  function say(x, y, { title, rows }) {
    tip.replaceChildren();
    tip.appendChild(document.createElement("strong")).appendChild(document.createElement("bdi")).textContent = charts.short(title, 140);
    for (const [name, value] of rows) {
      const line = tip.appendChild(document.createElement("div"));
      line.appendChild(document.createElement("bdi")).textContent = name;
      line.appendChild(document.createElement("b")).appendChild(document.createElement("bdi")).textContent = charts.short(String(value), 40);
    }
    tip.hidden = false;
    const size = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, x + 14 + size.width > innerWidth ? x - size.width - 14 : x + 14)}px`;
    tip.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - size.height - 4))}px`;
  }

  function mount(host, spec) {
    const canvas = host.appendChild(document.createElement("canvas")), still = document.createElement("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${spec.label} Arrow keys walk through it, Enter opens.`);
    let width = 0, height = 0, now = null, waiting = false;

    // What rarely changes is drawn once, on the canvas behind: thousands of domains stay smooth under the pointer.
    function repaint() {
      width = Math.max(host.clientWidth, 200);
      height = Math.round(spec.height(width));
      const dots = devicePixelRatio || 1;
      for (const one of [canvas, still]) Object.assign(one, { width: Math.round(width * dots), height: Math.round(height * dots) });
      canvas.style.height = `${height}px`;
      const pen = still.getContext("2d");
      pen.setTransform(dots, 0, 0, dots, 0, 0);
      pen.font = "12px system-ui, 'Segoe UI', 'Noto Sans', sans-serif";
      pen.textBaseline = "middle";
      spec.paint(pen, width, height);
      refresh();
    }

    function refresh() {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        const pen = canvas.getContext("2d"), dots = devicePixelRatio || 1;
        pen.setTransform(1, 0, 0, 1, 0, 0);
        pen.clearRect(0, 0, canvas.width, canvas.height);
        pen.drawImage(still, 0, 0);
        pen.setTransform(dots, 0, 0, dots, 0, 0);
        spec.overlay(pen, now);
      });
    }

    function point(thing, x, y) {
      if (thing !== now) refresh();
      now = thing;
      canvas.style.cursor = thing ? "pointer" : "default";
      if (thing) say(x, y, spec.read(thing));
      else tip.hidden = true;
    }
    const under = (event) => {
      const box = canvas.getBoundingClientRect();
      return spec.find(event.clientX - box.left, event.clientY - box.top);
    };
    const leave = () => point(null);
    canvas.addEventListener("pointermove", (event) => point(under(event), event.clientX, event.clientY));
    canvas.addEventListener("pointerleave", leave);
    canvas.addEventListener("blur", leave);
    canvas.addEventListener("click", (event) => { const thing = under(event); if (thing) spec.open(thing); });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
      if (event.key === "Enter" && now) spec.open(now);
      if (event.key === "Escape") leave();
      if (!step) return;
      event.preventDefault();
      const things = spec.order(), next = things[now ? Math.max(0, Math.min(things.length - 1, things.indexOf(now) + step)) : 0];
      const box = canvas.getBoundingClientRect(), [x, y] = next ? spec.place(next) : [0, 0];
      if (next) point(next, box.left + x, box.top + y);
    });
    repaint();
    new ResizeObserver(() => requestAnimationFrame(() => { if (Math.max(host.clientWidth, 200) !== width) repaint(); })).observe(host);
    return { refresh, repaint };
  }

  // Text cut to its room; never painted outside it, however wide its glyphs are.
  function write(pen, text, x, y, room, ink, bold) {
    if (room < 14) return;
    pen.save();
    pen.beginPath();
    pen.rect(x, y - 9, room, 18);
    pen.clip();
    pen.fillStyle = ink;
    if (bold) pen.font = `600 ${pen.font}`;
    const wide = pen.measureText(text).width;
    pen.fillText(wide > room ? charts.short(text, Math.max(2, Math.floor(([...text].length * room) / wide) - 1)) : text, x, y);
    pen.restore();
  }

  return { mount, write };
})();
