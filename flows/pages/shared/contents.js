"use strict";
// Links to the sections of the page. Runs last, because other scripts hide sections without data.
(() => {
  const NARROW = 900; // width in pixels below which the contents are collapsed
  const titles = [...document.querySelectorAll("main section > h2[id]")].filter(
    (title) => title.getClientRects().length,
  );
  if (!titles.length) return;
  const details = document
    .getElementById("contents")
    .appendChild(document.createElement("details"));
  details.open = innerWidth >= NARROW;
  details.appendChild(document.createElement("summary")).textContent = "Contents";
  const list = details.appendChild(document.createElement("ol"));
  for (const title of titles) {
    const link = list
      .appendChild(document.createElement("li"))
      .appendChild(document.createElement("a"));
    link.href = `#${title.id}`;
    link.textContent = title.textContent;
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
      // The fragment of the address is the state of some pages, so it does not change.
      event.preventDefault();
      event.stopPropagation();
      title.tabIndex = -1;
      title.focus({ preventScroll: true });
      title.scrollIntoView({ block: "start" });
    });
  }
  matchMedia(`(min-width: ${NARROW}px)`).addEventListener("change", (wide) => {
    details.open = wide.matches;
  });
})();
