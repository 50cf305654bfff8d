"use strict";
// Functions shared by the scripts of all pages: numbers and names for readers, legends and
// tooltips. Untrusted text only becomes text
// nodes.
const base = (() => {
  const NAME = 60,
    TITLE = 240; // maximum characters of a line and of the title of a tooltip
  const tip = document.getElementById("tip");

  const count = (n) => {
    for (const [size, letter] of [
      [1e12, "T"],
      [1e9, "B"],
      [1e6, "M"],
      [1e3, "k"],
    ])
      if (Math.abs(n) >= size) return +(n / size).toPrecision(3) + letter;
    return String(+n.toPrecision(3));
  };
  const share = (p) =>
    p === 0
      ? "0%"
      : p < 1e-6
        ? (100 * p).toExponential(0) + "%"
        : +(100 * p).toPrecision(p < 0.1 ? 2 : 3) + "%";
  const short = (text, limit) =>
    [...text].length > limit ? [...text].slice(0, limit - 1).join("") + "…" : text;

  // Cut a name in the middle, because names of runs often differ at their ends.
  const middle = (text, limit) => {
    const letters = [...text],
      head = Math.ceil((limit - 1) / 2);
    return letters.length > limit
      ? [
          ...letters.slice(0, head),
          "…",
          ...letters.slice(letters.length - (limit - 1 - head)),
        ].join("")
      : text;
  };

  function legend(host, entries) {
    const list = document.createElement("div");
    list.className = "legend";
    for (const { color, text } of entries) {
      const item = list.appendChild(document.createElement("span")),
        key = item.appendChild(document.createElement("span"));
      key.className = "key";
      key.style.background = color;
      item.appendChild(document.createElement("bdi")).textContent = text;
    }
    host.append(list);
  }

  // Show a tooltip with rows { color, name, value }, and return its text for a screen reader.
  function showTip(x, y, title, rows) {
    const head = short(title, TITLE),
      lines = rows.map((row) => ({
        color: row.color,
        name: short(row.name, NAME),
        value: short(String(row.value), NAME),
      }));
    tip.replaceChildren();
    tip
      .appendChild(document.createElement("strong"))
      .appendChild(document.createElement("bdi")).textContent = head;
    for (const { color, name, value } of lines) {
      const line = tip.appendChild(document.createElement("div"));
      if (color)
        Object.assign(line.appendChild(document.createElement("span")), {
          className: "key",
        }).style.background = color;
      line.appendChild(document.createElement("bdi")).textContent = name;
      line
        .appendChild(document.createElement("b"))
        .appendChild(document.createElement("bdi")).textContent = value;
    }
    tip.hidden = false;
    const size = tip.getBoundingClientRect();
    const left = x + 14 + size.width > innerWidth ? x - size.width - 14 : x + 14;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - size.height - 4))}px`;
    return [head, ...lines.map(({ name, value }) => `${name}: ${value}`)].join("; ");
  }
  const hideTip = () => {
    tip.hidden = true;
  };

  // A word with a tooltip on its meaning, like the function `explained` of the server side.
  function explained(word, meaning) {
    const node = document.createElement("abbr");
    node.textContent = word;
    node.tabIndex = 0;
    node.setAttribute("aria-description", meaning);
    return node;
  }
  const describe = (event) => {
    const word = event.target.closest?.("abbr[aria-description]");
    if (!word) return;
    const box = word.getBoundingClientRect();
    showTip(box.left, box.bottom - 8, word.getAttribute("aria-description"), []);
  };
  const left = (event) => {
    if (event.target.closest?.("abbr[aria-description]")) hideTip();
  };
  for (const name of ["pointerover", "focusin"]) document.addEventListener(name, describe);
  for (const name of ["pointerout", "focusout"]) document.addEventListener(name, left);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") left(event);
  });

  // A chart that is explored with the arrow keys has the role of a slider, so that screen readers
  // announce the position.
  function walkable(node, label, last) {
    for (const [name, value] of Object.entries({
      role: "slider",
      tabindex: 0,
      "aria-label": label,
      "aria-valuemin": 0,
      "aria-valuemax": last,
      "aria-valuenow": 0,
      "aria-valuetext": "explore with the arrow keys",
    }))
      node.setAttribute(name, value);
  }
  function walkedTo(node, i, words) {
    node.setAttribute("aria-valuenow", i);
    node.setAttribute("aria-valuetext", words);
  }

  // Number of steps that a key moves among `length` items, undefined for other keys.
  const stride = (key, length) =>
    ({
      ArrowLeft: -1,
      ArrowUp: -1,
      ArrowRight: 1,
      ArrowDown: 1,
      PageUp: -10,
      PageDown: 10,
      Home: -length,
      End: length,
    })[key];

  // A colour of the current theme, cached because thousands of boxes use it.
  const known = new Map();
  function css(name) {
    if (!known.has(name))
      known.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
    return known.get(name);
  }
  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

  // The colour ramp of the current theme: a function from [0, 1] to [red, green, blue].
  function ramp() {
    const stops = [0, 1, 2, 3, 4].map((i) => rgb(css(`--r${i}`)));
    return (p) => {
      const at = Math.min(Math.max(p, 0), 1) * (stops.length - 1),
        low = Math.min(Math.floor(at), stops.length - 2);
      return stops[low].map((v, c) => Math.round(v + (stops[low + 1][c] - v) * (at - low)));
    };
  }

  // Repaint when the theme changes or the page is printed.
  function onTheme(paint) {
    for (const query of ["(prefers-color-scheme: dark)", "print"])
      matchMedia(query).addEventListener("change", () => {
        known.clear();
        paint();
      });
  }

  return {
    count,
    css,
    explained,
    hideTip,
    legend,
    middle,
    onTheme,
    ramp,
    rgb,
    share,
    short,
    showTip,
    stride,
    walkable,
    walkedTo,
  };
})();
