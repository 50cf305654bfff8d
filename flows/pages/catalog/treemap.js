"use strict";
// Treemap with areas proportional to tokens. Boxes of the coarsest level contain those of the
// selected level.
const treemap = (() => {
  const HEAD = 17,
    GAP = 2;

  // Squarified treemap (Bruls, Huizing, van Wijk 2000): a row along the shorter side ends before
  // its boxes get thinner. Items have a `size`.
  function squarify(items, box) {
    const all = items.filter((item) => item.size > 0).sort((a, b) => b.size - a.size),
      found = [];
    let { x, y, w, h } = box,
      rest = all.reduce((sum, item) => sum + item.size, 0);
    for (let first = 0; first < all.length;) {
      const side = Math.min(w, h),
        area = (w * h) / rest;
      let sum = 0,
        worst = Infinity,
        end = first;
      while (end < all.length) {
        const next = sum + all[end].size * area;
        const shape = Math.max(
          (side * side * all[first].size * area) / (next * next),
          (next * next) / (side * side * all[end].size * area),
        );
        if (shape > worst) break;
        [sum, worst, end] = [next, shape, end + 1];
      }
      const thick = side > 0 ? sum / side : 0;
      let along = 0;
      for (const item of all.slice(first, end)) {
        const length = thick > 0 ? (item.size * area) / thick : 0;
        found.push({
          ...item,
          ...(w >= h
            ? { x, y: y + along, w: thick, h: length }
            : { x: x + along, y, w: length, h: thick }),
        });
        along += length;
        rest -= item.size;
      }
      if (w >= h) [x, w] = [x + thick, Math.max(w - thick, 0)];
      else [y, h] = [y + thick, Math.max(h - thick, 0)];
      first = end;
    }
    return found;
  }

  // All domains, or those inside the domain `zoom` of the coarsest level.
  function layout(level, width, height, zoom) {
    const item = (node) => ({ node, size: tree.tokens(node) });
    const whole = { x: 0, y: 0, w: width, h: height },
      top = tree.levels[0];
    if (level === top) return { outer: [], inner: squarify(level.nodes.map(item), whole) };
    const shown = zoom ? [zoom] : top.nodes;
    const inside = new Map(shown.map((node) => [node, []]));
    for (const node of level.nodes) inside.get(tree.above(node, top))?.push(item(node));
    const outer = squarify(shown.map(item), whole).map((box) => ({
      ...box,
      head: box.w > 46 && box.h > 2.4 * HEAD ? HEAD : 0,
    }));
    const inner = outer.flatMap((box) =>
      squarify(inside.get(box.node), {
        x: box.x + GAP,
        y: box.y + GAP + box.head,
        w: Math.max(box.w - 2 * GAP, 0),
        h: Math.max(box.h - 2 * GAP - box.head, 0),
      }),
    );
    return { outer, inner };
  }

  function label(pen, box, ink) {
    const lines = Math.min(Math.floor((box.h - 4) / 15), 4),
      room = box.w - 8;
    if (box.w < 26 || lines < 1) return;
    const terms = box.node.level.terms[box.node.i],
      number = String(box.node.number),
      whole = terms.filter((word) => surface.width(pen, word, true) <= room),
      first = terms.length ? (whole.length ? [] : terms.slice(0, 1)) : [number];
    // Only whole words. If none fits, the first one gets a smaller font and loses its middle.
    if (!whole.length && first.length)
      return surface.small(pen, first[0], box.x + 4, box.y + 11, room, ink);
    whole
      .slice(0, lines)
      .forEach((word, i) =>
        surface.write(pen, word, box.x + 5, box.y + 11 + 15 * i, room, ink, i === 0),
      );
    if (whole.length < lines)
      surface.small(pen, number, box.x + 5, box.y + 11 + 15 * whole.length, room, ink);
  }

  // `view` is the state of the page: { level, mode, scale, selected, zoom, read }.
  function mount(host, view, open) {
    let boxes = { outer: [], inner: [] },
      laid = "";
    const has = (box, x, y) => x >= box.x && x < box.x + box.w && y >= box.y && y < box.y + box.h;
    const all = () => [...boxes.outer, ...boxes.inner];
    const boxOf = (node) => all().find((box) => box.node === node);
    const line = (pen, box, colour, thick) => {
      if (!box) return;
      pen.strokeStyle = colour;
      pen.lineWidth = thick;
      pen.strokeRect(
        box.x + thick / 2,
        box.y + thick / 2,
        Math.max(box.w - thick, 0),
        Math.max(box.h - thick, 0),
      );
    };
    return surface.mount(host, {
      label: "Treemap of the domains by tokens.",
      height: (width) => Math.max(360, Math.min(620, width * 0.62)),
      paint(pen, width, height) {
        const asked = [view.level.level, width, height, view.zoom?.name].join();
        // A change of colour does not move boxes.
        if (asked !== laid) [boxes, laid] = [layout(view.level, width, height, view.zoom), asked];
        pen.clearRect(0, 0, width, height);
        for (const box of boxes.outer) {
          pen.fillStyle = base.css("--line");
          pen.fillRect(box.x + 0.5, box.y + 0.5, box.w - 1, box.h - 1);
          if (box.head)
            surface.write(
              pen,
              tree.terms(box.node, 4) || `domain ${box.node.number}`,
              box.x + 5,
              box.y + 10,
              box.w - 10,
              base.css("--ink"),
              true,
            );
        }
        for (const box of boxes.inner) {
          const { fill, ink } = view.scale.shade(view.mode.of(box.node)),
            gap = Math.min(box.w, box.h) > 4 ? 0.5 : 0;
          pen.fillStyle = fill;
          pen.fillRect(box.x + gap, box.y + gap, box.w - 2 * gap, box.h - 2 * gap);
          label(pen, box, ink);
        }
      },
      overlay(pen, now) {
        if (view.selected) {
          const own = boxOf(view.selected);
          if (own) line(pen, own, base.css("--ink"), 3);
          else
            for (const box of boxes.inner)
              if (tree.related(box.node, view.selected)) line(pen, box, base.css("--ink"), 2);
        }
        if (now) line(pen, boxOf(now), base.css("--s1"), 2);
      },
      find: (x, y) =>
        (boxes.inner.find((box) => has(box, x, y)) ?? boxes.outer.find((box) => has(box, x, y)))
          ?.node ?? null,
      order: () => boxes.inner.map((box) => box.node),
      place: (node) => {
        const box = boxOf(node);
        return [box.x + box.w / 2, box.y + box.h / 2];
      },
      read: view.read,
      open,
    });
  }

  return { mount };
})();
