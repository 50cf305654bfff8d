"use strict";
// Search in terms, sources and examples of all domains. A result contains all words.
const search = (() => {
  const MAXIMUM_RESULTS = 40,
    CONTEXT = 48; // characters before a match
  // Scores of matches; later terms score slightly less.
  const SOURCE = 20,
    EXAMPLE = 5,
    NUMBER = 200,
    TERM = 100;
  let index = null;

  // The index is created by the first search.
  function entries() {
    index ??= tree.levels
      .flatMap((level) => level.nodes)
      .map((node) => ({
        node,
        terms: node.level.terms[node.i].map((term) => term.toLowerCase()),
        sources: tree.sources(node).map(([name]) => (name ?? "").toLowerCase()),
        examples: tree
          .examples(node)
          .map((example) => `${example.source ?? ""} ${example.snippet ?? ""}`),
        text: null,
      }));
    return index;
  }

  function score(entry, word) {
    if (word === entry.node.name || word === String(entry.node.number)) return NUMBER;
    const exact = entry.terms.indexOf(word);
    if (exact >= 0) return TERM - exact;
    if (entry.terms.some((term) => term.includes(word))) return TERM / 2;
    if (entry.sources.some((source) => source.includes(word))) return SOURCE;
    entry.text ??= entry.examples.join("\n").toLowerCase();
    return entry.text.includes(word) ? EXAMPLE : 0;
  }

  const split = (query) => query.toLowerCase().split(/\s+/).filter(Boolean).slice(0, 8);

  function run(words) {
    const found = [];
    for (const entry of entries()) {
      const scores = words.map((word) => score(entry, word));
      if (scores.every(Boolean)) found.push({ entry, score: scores.reduce((a, b) => a + b, 0) });
    }
    return found.sort(
      (a, b) => b.score - a.score || tree.tokens(b.entry.node) - tree.tokens(a.entry.node),
    );
  }

  // Append text with marked matches. Long text is cut to the first match and its context.
  function marked(host, text, words) {
    const lower = text.toLowerCase(),
      all = words.flatMap((word) => (lower.includes(word) ? [lower.indexOf(word)] : []));
    const first = all.length ? Math.min(...all) : 0,
      start = Math.max(0, first - CONTEXT);
    const shown =
      (start ? "…" : "") +
      text.slice(start, first + 2 * CONTEXT) +
      (first + 2 * CONTEXT < text.length ? "…" : "");
    const low = shown.toLowerCase(),
      place = host.appendChild(document.createElement("bdi"));
    // Some letters change their length in lower case. Positions are then unknown, and nothing is
    // marked.
    for (let at = 0; at < shown.length;) {
      const hits =
        low.length === shown.length
          ? words.map((word) => [low.indexOf(word, at), word.length]).filter(([i]) => i >= 0)
          : [];
      const [from, length] = hits.sort((a, b) => a[0] - b[0] || b[1] - a[1])[0] ?? [
        shown.length,
        0,
      ];
      place.append(shown.slice(at, from));
      if (length)
        place.appendChild(document.createElement("mark")).textContent = shown.slice(
          from,
          from + length,
        );
      at = from + Math.max(length, 1);
    }
  }

  // The text below a result: a source or an example with a word that the terms lack.
  function evidence(entry, words) {
    const missing = words.filter((word) => !entry.terms.some((term) => term.includes(word)));
    const holds = (text) => missing.some((word) => text.toLowerCase().includes(word));
    return (
      tree
        .sources(entry.node)
        .map(([name]) => name ?? "")
        .find(holds) ??
      entry.examples.find(holds) ??
      null
    );
  }

  function show(host, status, query, link) {
    const words = split(query),
      found = words.length ? run(words) : [];
    host.replaceChildren();
    host.hidden = !words.length;
    status.textContent = !words.length
      ? ""
      : found.length > MAXIMUM_RESULTS
        ? `${MAXIMUM_RESULTS} of ${found.length.toLocaleString("en")} domains`
        : found.length === 1
          ? "1 domain"
          : `${found.length} domains`;
    for (const { entry } of found.slice(0, MAXIMUM_RESULTS)) {
      const item = host
        .appendChild(document.createElement("li"))
        .appendChild(document.createElement("a"));
      item.href = link(entry.node);
      item.appendChild(document.createElement("b")).textContent = entry.node.name;
      marked(item, tree.terms(entry.node, 8), words);
      const more = evidence(entry, words);
      if (more !== null)
        marked(
          Object.assign(item.appendChild(document.createElement("span")), {
            className: "evidence",
          }),
          more,
          words,
        );
    }
  }

  // Arrow keys move between the search box and the results.
  function keys(box, host) {
    const step = (event, links, at) => {
      const next = { ArrowDown: at + 1, ArrowUp: at - 1 }[event.key];
      if (next === undefined || (at < 0 && next < 0)) return;
      event.preventDefault();
      (next < 0 ? box : links[Math.min(next, links.length - 1)])?.focus();
    };
    box.addEventListener("keydown", (event) => step(event, [...host.querySelectorAll("a")], -1));
    host.addEventListener("keydown", (event) => {
      const links = [...host.querySelectorAll("a")];
      step(event, links, links.indexOf(document.activeElement));
    });
  }

  return { keys, show };
})();
