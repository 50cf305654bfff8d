"use strict";
// A canvas of items that can be explored with the pointer or the arrow keys, and opened.
// Spec: label, height(width), paint(pen, width, height), overlay(pen, item), find(x, y), order() of
// the items for the keys,
// place(item) in pixels, read(item) as { title, rows } of the tooltip, open(item).
const surface = (() => {
  const FAMILY = "system-ui, 'Segoe UI', 'Noto Sans', sans-serif",
    FONT = `12px ${FAMILY}`,
    CONDENSED = 1.25, // a word that is wider by at most this factor is condensed, not cut
    MINIMUM_LETTERS = 7, // of a word that is cut in its middle
    SMALL_FONT = `10px ${FAMILY}`;

  function mount(host, spec) {
    const canvas = host.appendChild(document.createElement("canvas")),
      still = document.createElement("canvas");
    base.walkable(canvas, `${spec.label} Press Enter to open a domain.`, 0);
    let width = 0,
      height = 0,
      now = null,
      waiting = false;

    // Items are painted once, on a second canvas, so that the overlay stays fast with thousands of
    // domains.
    function repaint() {
      width = Math.max(host.clientWidth, 200);
      height = Math.round(spec.height(width));
      const dots = devicePixelRatio || 1;
      for (const one of [canvas, still])
        Object.assign(one, { width: Math.round(width * dots), height: Math.round(height * dots) });
      canvas.style.height = `${height}px`;
      const pen = still.getContext("2d");
      pen.setTransform(dots, 0, 0, dots, 0, 0);
      pen.font = FONT;
      pen.textBaseline = "middle";
      spec.paint(pen, width, height);
      refresh();
    }

    function refresh() {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        const pen = canvas.getContext("2d"),
          dots = devicePixelRatio || 1;
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
      if (!thing) return base.hideTip();
      const { title, rows } = spec.read(thing);
      return base.showTip(x, y, title, rows);
    }
    const under = (event) => {
      const box = canvas.getBoundingClientRect();
      return spec.find(event.clientX - box.left, event.clientY - box.top);
    };
    const leave = () => point(null);
    canvas.addEventListener("pointermove", (event) =>
      point(under(event), event.clientX, event.clientY),
    );
    canvas.addEventListener("pointerleave", leave);
    canvas.addEventListener("blur", leave);
    canvas.addEventListener("click", (event) => {
      const thing = under(event);
      if (thing) spec.open(thing);
    });
    canvas.addEventListener("keydown", (event) => {
      const things = spec.order(),
        step = base.stride(event.key, things.length);
      if (event.key === "Enter" && now) spec.open(now);
      if (event.key === "Escape") leave();
      if (!step || !things.length) return;
      event.preventDefault();
      const i = now ? Math.max(0, Math.min(things.length - 1, things.indexOf(now) + step)) : 0;
      const box = canvas.getBoundingClientRect(),
        [x, y] = spec.place(things[i]);
      canvas.setAttribute("aria-valuemax", things.length - 1);
      base.walkedTo(canvas, i, point(things[i], box.left + x, box.top + y));
    });
    repaint();
    new ResizeObserver(() =>
      requestAnimationFrame(() => {
        if (Math.max(host.clientWidth, 200) !== width) repaint();
      }),
    ).observe(host);
    return { refresh, repaint };
  }

  // Measuring text is slow, so widths are cached.
  const widths = { plain: new Map(), bold: new Map() };
  function width(pen, text, bold) {
    const known = bold ? widths.bold : widths.plain;
    if (!known.has(text)) {
      pen.save();
      pen.font = bold ? `600 ${FONT}` : FONT;
      known.set(text, pen.measureText(text).width);
      pen.restore();
    }
    return known.get(text);
  }

  // Write text, cut and clipped to the available width.
  function write(pen, text, x, y, room, ink, bold) {
    if (room < 14) return;
    pen.save();
    pen.beginPath();
    pen.rect(x, y - 9, room, 18);
    pen.clip();
    pen.fillStyle = ink;
    if (bold) pen.font = `600 ${FONT}`;
    const wide = width(pen, text, bold);
    pen.fillText(
      wide > room
        ? base.short(text, Math.max(2, Math.floor(([...text].length * room) / wide) - 1))
        : text,
      x,
      y,
    );
    pen.restore();
  }

  // Write a word in a smaller font, condensed or cut in its middle if it is too wide.
  function small(pen, text, x, y, room, ink) {
    pen.save();
    pen.font = SMALL_FONT;
    pen.fillStyle = ink;
    const wide = pen.measureText(text).width;
    const letters = Math.floor(([...text].length * room) / wide);
    if (wide <= room * CONDENSED) pen.fillText(text, x, y, room);
    else if (letters >= MINIMUM_LETTERS) pen.fillText(base.middle(text, letters), x, y, room);
    pen.restore();
  }

  return { mount, small, width, write };
})();
