"use strict";
// Centroids of one level on the first two principal axes, with the same scale on both axes.
const scatter = (() => {
  const SHARE = 0.09; // of the map's area that all circles cover together
  const NAMES = 48; // maximum number of names
  const CANDIDATES = 400; // only the largest circles are candidates for names

  function mount(host, view, open) {
    let circles = [];
    function place(width, height) {
      const placed = view.level.nodes.filter(
        (node) => tree.documents(node) > 0 && view.level.places[node.i].every(Number.isFinite),
      );
      const ends = [0, 1].map((axis) =>
        placed.reduce(
          ([low, high], node) => {
            const v = view.level.places[node.i][axis];
            return [Math.min(low, v), Math.max(high, v)];
          },
          [Infinity, -Infinity],
        ),
      );
      const radius = (node) =>
        Math.min(40, Math.max(2, Math.sqrt((tree.share(node) * width * height * SHARE) / Math.PI)));
      // Space for a circle and its name.
      const edge = Math.max(
        26,
        20 + placed.reduce((most, node) => Math.max(most, radius(node)), 0),
      );
      const span = ends.map(([low, high]) => high - low || 1e-9),
        middle = ends.map(([low, high]) => (low + high) / 2);
      const scale = Math.min((width - 2 * edge) / span[0], (height - 2 * edge) / span[1]);
      circles = placed
        .map((node) => {
          const [a, b] = view.level.places[node.i];
          return {
            node,
            r: radius(node),
            x: width / 2 + (a - middle[0]) * scale,
            y: height / 2 - (b - middle[1]) * scale,
          };
        })
        .sort((a, b) => tree.tokens(b.node) - tree.tokens(a.node)); // small circles on top
    }
    const ring = (pen, circle, colour, thick) => {
      pen.strokeStyle = colour;
      pen.lineWidth = thick;
      pen.beginPath();
      pen.arc(circle.x, circle.y, circle.r + thick / 2, 0, 2 * Math.PI);
      pen.stroke();
    };
    function names(pen, width) {
      const taken = [];
      pen.fillStyle = base.css("--ink");
      pen.strokeStyle = base.css("--paper");
      pen.lineWidth = 3;
      pen.lineJoin = "round";
      for (const { node, x, y, r } of circles.slice(0, CANDIDATES)) {
        if (taken.length >= NAMES) return;
        const text = base.short(tree.terms(node, 2) || node.name, 26),
          w = surface.width(pen, text);
        const box = { left: x - w / 2, right: x + w / 2, top: y + r + 1, bottom: y + r + 15 };
        const hits = (other) =>
          box.left < other.right + 4 &&
          box.right > other.left - 4 &&
          box.top < other.bottom &&
          box.bottom > other.top;
        if (box.left < 0 || box.right > width || taken.some(hits)) continue;
        taken.push(box);
        // An outline, because names may cover other circles.
        pen.strokeText(text, box.left, y + r + 8);
        pen.fillText(text, box.left, y + r + 8);
      }
    }
    return surface.mount(host, {
      label: "Map of the centroids of the domains.",
      height: (width) => Math.max(340, Math.min(560, width * 0.6)),
      paint(pen, width, height) {
        place(width, height);
        pen.clearRect(0, 0, width, height);
        for (const { node, x, y, r } of circles) {
          pen.globalAlpha = 0.85;
          pen.fillStyle = view.scale.shade(view.mode.of(node)).fill;
          pen.beginPath();
          pen.arc(x, y, r, 0, 2 * Math.PI);
          pen.fill();
          pen.globalAlpha = 0.5; // an outline separates pale circles from the background
          pen.lineWidth = 1;
          pen.strokeStyle = base.css("--soft");
          pen.stroke();
        }
        pen.globalAlpha = 1;
        names(pen, width);
      },
      overlay(pen, now) {
        for (const circle of circles) {
          if (view.selected && tree.related(circle.node, view.selected))
            ring(pen, circle, base.css("--ink"), 2.5);
          if (circle.node === now) ring(pen, circle, base.css("--s1"), 2.5);
        }
      },
      // Of overlapping circles, find the one with the nearest centre.
      find: (x, y) =>
        circles.reduce(
          (best, circle) => {
            const d = Math.hypot(circle.x - x, circle.y - y);
            return d <= circle.r + 4 && d < best.d ? { d, node: circle.node } : best;
          },
          { d: Infinity, node: null },
        ).node,
      order: () => circles.map((circle) => circle.node),
      place: (node) => {
        const circle = circles.find((one) => one.node === node);
        return [circle.x, circle.y];
      },
      read: view.read,
      open,
    });
  }

  return { mount };
})();
