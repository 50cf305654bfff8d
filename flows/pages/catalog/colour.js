"use strict";
// Colours of domains: a ramp for numbers, categories for sources. A mode is { key, name, group,
// of(node), text(value) }.
const colour = (() => {
  // Number of shades of the ramp; number of sources with their own colour.
  const STEPS = 64,
    CATEGORIES = 7;
  let ramp = [];

  const luminance = ([r, g, b]) =>
    0.2126 * (r / 255) ** 2.2 + 0.7152 * (g / 255) ** 2.2 + 0.0722 * (b / 255) ** 2.2;
  const LIGHT = 0.19; // minimum luminance at which dark text has more contrast than white text

  // Read the colours of the current theme. Call it again after a change of theme.
  function load() {
    const colours = base.ramp();
    ramp = Array.from({ length: STEPS }, (_, step) => shade(colours(step / (STEPS - 1))));
  }
  const shade = (rgb) => ({
    fill: `rgb(${rgb.join(" ")})`,
    ink: luminance(rgb) > LIGHT ? "#14171a" : "#ffffff",
  });
  const at = (p) => ramp[Math.round(Math.min(Math.max(p, 0), 1) * (STEPS - 1))];
  const named = (name) => shade(base.rgb(base.css(name)));

  // With `rooted`, colours follow the square root, because many important values are small.
  function numbers(values, show, rooted) {
    const known = values.filter((v) => v !== null && Number.isFinite(v)).sort((a, b) => a - b);
    const low = rooted ? 0 : (known[Math.floor(known.length * 0.02)] ?? 0),
      high = known[rooted ? known.length - 1 : Math.floor(known.length * 0.98)] ?? 0;
    const unit = (v) => (high > low ? Math.min(Math.max((v - low) / (high - low), 0), 1) : 0);
    const place = rooted ? (v) => Math.sqrt(unit(v)) : unit;
    const stops =
      high > low
        ? [0, 0.25, 0.5, 0.75, 1].map((p) => low + (high - low) * (rooted ? p * p : p))
        : [low];
    const legend = () =>
      stops.map((v, i) => ({
        color: at(place(v)).fill,
        text:
          show(v) +
          (!rooted && high > low && i === 0
            ? " or less"
            : !rooted && high > low && i === 4
              ? " or more"
              : ""),
      }));
    return {
      shade: (v) => (v === null || !Number.isFinite(v) ? named("--bar") : at(place(v))),
      legend: known.length ? legend : () => [{ color: named("--bar").fill, text: "unknown" }],
    };
  }

  function categories(level) {
    const sums = new Map();
    for (const node of level.nodes) {
      const main = mainSource(node);
      if (main !== null) sums.set(main, (sums.get(main) ?? 0) + tree.tokens(node));
    }
    const chosen = [...sums]
      .sort((a, b) => b[1] - a[1])
      .slice(0, CATEGORIES)
      .map(([name]) => name);
    const number = new Map(chosen.map((name, k) => [name, k]));
    const shadeOf = (name) => named(number.has(name) ? `--f${number.get(name)}` : "--bar");
    return {
      shade: shadeOf,
      legend: () => [
        ...chosen.map((name) => ({ color: shadeOf(name).fill, text: name })),
        { color: named("--bar").fill, text: "other or unknown" },
      ],
    };
  }

  const mainSource = (node) => tree.sources(node)[0]?.[0] ?? null;
  const fixed = (v) => (v === null ? "unknown" : v.toFixed(2));
  const part = (v) => (v === null ? "unknown" : base.share(v));
  const digits = (v) => (v === null ? "unknown" : String(+v.toPrecision(3)));
  const modes = [
    {
      key: "source",
      group: "Source",
      name: "main source",
      of: mainSource,
      text: (v) => v ?? "unknown",
      scale: categories,
    },
    {
      key: "distance",
      group: "Quality",
      name: "mean distance to the centroid",
      of: (n) => n.level.distance[n.i],
      text: fixed,
    },
    {
      key: "dropped",
      group: "Quality",
      name: "dropped share of its sources",
      of: (n) => n.level.dropped[n.i],
      text: part,
      rooted: true,
    },
    ...tree.data.signals.map((name, s) => ({
      key: `signal-${s}`,
      group: "Quality",
      name,
      of: (n) => tree.signal(n, s),
      text: digits,
    })),
    ...tree.data.targets.map((name, t) => ({
      key: `target-${t}`,
      group: "Weight in a target",
      name,
      of: (n) => tree.weight(n, t, "hard"),
      text: part,
      rooted: true,
    })),
  ];
  const scale = (mode, level) =>
    mode.scale ? mode.scale(level) : numbers(level.nodes.map(mode.of), mode.text, mode.rooted);

  load();
  return { at, load, modes, scale };
})();
