"use strict";
// Entry point of the page: the legend, the range of the charts, and the charts.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const ROLES = [
    ["learned", "Learned mixtures"],
    ["control", "Controls: replayed weights or shuffled scores"],
    ["fixed", "Fixed mixtures"],
  ];
  const view = { ...data, near: false, pinned: new Set() };

  function button(parent, pressed, press) {
    const made = parent.appendChild(document.createElement("button"));
    made.type = "button";
    made.setAttribute("aria-pressed", String(pressed));
    made.addEventListener("click", () => press(made));
    return made;
  }

  // Buttons with the mark and the name of each variant. A pressed one highlights its variant.
  function legend() {
    for (const [role, title] of ROLES) {
      const chosen = data.variants.map((v, i) => ({ v, i })).filter(({ v }) => v.role === role);
      if (!chosen.length) continue;
      const group = byId("legend").appendChild(document.createElement("div"));
      group.className = "legend";
      group.setAttribute("role", "group");
      group.setAttribute("aria-label", title);
      group.appendChild(document.createElement("span")).textContent = title;
      for (const { v, i } of chosen) {
        const made = button(group, false, (pressed) => {
          if (!view.pinned.delete(i)) view.pinned.add(i);
          pressed.setAttribute("aria-pressed", String(view.pinned.has(i)));
          charts.redrawAll();
        });
        const key = charts.svg(made, "svg", {
          class: "mark",
          viewBox: "-8 -8 16 16",
          "aria-hidden": "true",
        });
        frontier.mark(key, v);
        made.appendChild(document.createElement("bdi")).textContent = v.name;
        for (const [event, ringed] of [
          ["pointerenter", i],
          ["focus", i],
          ["pointerleave", null],
          ["blur", null],
        ])
          made.addEventListener(event, () => frontier.ringAll(ringed));
      }
    }
  }

  function zoom() {
    const roles = new Set(data.variants.map((v) => v.role));
    if (!roles.has("learned") || !roles.has("fixed")) return;
    byId("zoom-controls").hidden = false;
    const made = [false, true].map((near) => {
      const one = button(byId("zoom"), near === view.near, () => {
        view.near = near;
        made.forEach((other, i) => other.setAttribute("aria-pressed", String(!!i === near)));
        charts.redrawAll();
      });
      one.textContent = near ? "Learned, controls and baseline" : "All variants";
      return one;
    });
  }

  legend();
  zoom();
  for (const setting of data.settings)
    charts.mount(byId("charts").appendChild(document.createElement("div")), (host) =>
      frontier.draw(host, setting, view),
    );
  byId("differences-part").hidden = !data.differences.length;
  if (data.differences.length)
    charts.mount(byId("differences"), (host) => differences.draw(host, data, view));
  base.onTheme(charts.redrawAll);
})();
