"use strict";
// Places for names next to marks, such that names cover neither each other nor marks.
const labels = (() => {
  const HEIGHT = 15; // of a name, in pixels
  const DISTANCES = [9, 16, 26, 40, 58]; // of a name from its mark
  const DIRECTIONS = Array.from({ length: 16 }, (_, i) => (i * Math.PI) / 8);
  const CROSSING = 40, // what a name that crosses the frontier costs, in pixels of distance
    COVERING = 60; // what a line to a name costs if it crosses another name or mark

  const pen = document.createElement("canvas").getContext("2d");
  const widths = new Map();
  function width(text) {
    if (!widths.has(text)) {
      pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
      widths.set(text, pen.measureText(text).width + 4);
    }
    return widths.get(text);
  }

  const overlap = (a, b) =>
    a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const inside = (a, box) =>
    a.left >= box.left && a.right <= box.right && a.top >= box.top && a.bottom <= box.bottom;

  // Whether the segment from p to q meets a box (Liang and Barsky 1984).
  function meets([px, py], [qx, qy], box) {
    let [from, to] = [0, 1];
    for (const [delta, distance] of [
      [px - qx, px - box.left],
      [qx - px, box.right - px],
      [py - qy, py - box.top],
      [qy - py, box.bottom - py],
    ]) {
      if (delta === 0) {
        if (distance < 0) return false;
      } else if (delta < 0) from = Math.max(from, distance / delta);
      else to = Math.min(to, distance / delta);
    }
    return from <= to;
  }

  // The box of a name of width w in a direction from (x, y): beside it if the direction is rather
  // horizontal, above or below it otherwise.
  function boxAt({ x, y }, w, angle, distance) {
    const dx = Math.cos(angle),
      dy = Math.sin(angle),
      beside = Math.max(-1, Math.min(1, dx * 2));
    const left = x + dx * distance - (w * (1 - beside)) / 2,
      top = y + dy * distance - (HEIGHT * (1 - dy)) / 2;
    return { left, right: left + w, top, bottom: top + HEIGHT };
  }

  // Return the place of the name of each mark, or null where there is no free one. The first marks
  // choose first. A name that is far from its mark has a line to it.
  //   marks: [{ x, y, text, around: boxes that the mark and its error bars cover }]
  //   line: points of a line that names should not cross
  //   box: box that must contain the names
  //   faded: boxes of marks without names
  function place(marks, line, box, faded) {
    const covered = [...marks.flatMap((mark) => mark.around), ...faded];
    const taken = [],
      leaders = [];
    return marks.map((mark) => {
      const w = width(mark.text);
      let best = null;
      for (const distance of DISTANCES)
        for (const angle of DIRECTIONS) {
          const at = boxAt(mark, w, angle, distance);
          if (!inside(at, box)) continue;
          if (taken.some((other) => overlap(at, other)) || covered.some((c) => overlap(at, c)))
            continue;
          let cost = distance;
          const end = anchor(mark, at);
          for (let i = 1; i < line.length; i++)
            if (meets(line[i - 1], line[i], at)) cost += CROSSING;
          cost += COVERING * leaders.filter(([from, to]) => meets(from, to, at)).length;
          const far = distance > DISTANCES[1];
          if (far) {
            const others = [...taken, ...covered.filter((c) => !mark.around.includes(c))];
            const crossed = others.filter((other) => meets([mark.x, mark.y], end, other));
            cost += COVERING * crossed.length;
          }
          if (!best || cost < best.cost) best = { cost, at, end, far };
        }
      if (best) taken.push(best.at);
      if (best?.far) leaders.push([[mark.x, mark.y], best.end]);
      return best;
    });
  }

  // The point of a box that is nearest to a mark.
  const anchor = ({ x, y }, at) => [
    Math.max(at.left, Math.min(x, at.right)),
    Math.max(at.top, Math.min(y, at.bottom)),
  ];

  return { HEIGHT, place };
})();
