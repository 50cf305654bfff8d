"use strict";
// Load this page again when its server has something new, but not while the reader points at something or writes.
(() => {
  const EVERY = 3000; // milliseconds
  const shown = JSON.parse(document.getElementById("data").textContent).tag;
  const busy = () => document.hidden || !document.getElementById("tip").hidden || document.activeElement?.tagName === "INPUT" || !getSelection().isCollapsed;
  async function look() {
    if (busy()) return;
    try {
      const answer = await fetch("data", { headers: { "If-None-Match": shown }, cache: "no-store" });
      if (answer.status === 200) location.reload();
    } catch {
      // The server has gone: what is shown stays.
    }
  }
  setInterval(look, EVERY);
})();
