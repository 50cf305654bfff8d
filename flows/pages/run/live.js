"use strict";
// Reload the page when its server has new results, but not while the page is in use.
(() => {
  const POLL_MILLISECONDS = 3000;
  const tag = JSON.parse(document.getElementById("data").textContent).tag,
    status = document.getElementById("live"),
    message = status.textContent;
  const busy = () =>
    document.hidden ||
    !document.getElementById("tip").hidden ||
    document.activeElement?.tagName === "INPUT" ||
    !getSelection().isCollapsed;
  const say = (words) => {
    if (status.textContent !== words) status.textContent = words;
  };
  async function look() {
    if (busy()) return;
    try {
      const answer = await fetch("data", { headers: { "If-None-Match": tag }, cache: "no-store" });
      if (answer.status !== 200) say(message);
      else if (!busy()) location.reload(); // it may have come into use since the question
    } catch {
      say("No longer live: the server has stopped. These are the last results.");
    }
  }
  setInterval(look, POLL_MILLISECONDS);
})();
