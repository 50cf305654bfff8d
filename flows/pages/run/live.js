"use strict";
// Load this page again when its server has something new, but not while the reader points at something or writes.
(() => {
  const EVERY = 3000; // milliseconds
  const shown = JSON.parse(document.getElementById("data").textContent).tag, status = document.getElementById("live"), said = status.textContent;
  const busy = () => document.hidden || !document.getElementById("tip").hidden || document.activeElement?.tagName === "INPUT" || !getSelection().isCollapsed;
  const say = (words) => { if (status.textContent !== words) status.textContent = words; };
  async function look() {
    if (busy()) return;
    try {
      const answer = await fetch("data", { headers: { "If-None-Match": shown }, cache: "no-store" });
      if (answer.status === 200) location.reload();
      else say(said);
    } catch {
      say("No longer live: the server has ended. This is what it said last.");
    }
  }
  setInterval(look, EVERY);
})();
