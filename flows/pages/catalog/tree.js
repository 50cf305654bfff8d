"use strict";
// Domains as objects { level, i, number, name }. `level` has the columns of the data, and `i` is
// the index in them.
const tree = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byName = new Map();
  const levels = data.levels;
  levels.forEach((level, depth) => {
    level.depth = depth;
    level.sum = level.tokens.reduce((a, b) => a + (b ?? 0), 0);
    level.nodes = level.domain.map((number, i) => ({
      level,
      i,
      number,
      name: `${level.level}/${number}`,
    }));
    for (const node of level.nodes) byName.set(node.name, node);
  });

  const find = (name) => byName.get(name) ?? null;
  const tokens = (node) => node.level.tokens[node.i] ?? 0;
  const documents = (node) => node.level.documents[node.i] ?? 0;
  const share = (node) => (node.level.sum ? tokens(node) / node.level.sum : 0);
  const terms = (node, count) => node.level.terms[node.i].slice(0, count).join(", ");
  const title = (node, count) => [node.name, terms(node, count)].filter(Boolean).join("  ");

  // The ancestor of a domain at a coarser level, the domain itself at its own level, or null if it
  // is not in the page.
  const above = (node, level) =>
    level.depth > node.level.depth
      ? null
      : find(`${level.level}/${Math.floor(node.number / (node.level.level / level.level))}`);
  const parent = (node) => (node.level.depth ? above(node, levels[node.level.depth - 1]) : null);
  const children = (node) => {
    const finer = levels[node.level.depth + 1];
    return finer ? finer.nodes.filter((child) => parent(child) === node) : [];
  };
  // Whether one of two domains contains the other.
  const related = (a, b) =>
    a.level.depth <= b.level.depth ? above(b, a.level) === a : above(a, b.level) === b;

  const weight = (node, target, kind) => node.level.weights[kind][target][node.i] ?? 0;
  const natural = (node) => node.level.natural[node.i] ?? 0;
  const signal = (node, s) => node.level.signals[s]?.[node.i] ?? null;
  // Mean of a signal over all documents of a level.
  const means = new Map();
  function signalOfAll(level, s) {
    const key = `${level.level}/${s}`;
    if (!means.has(key)) {
      const known = level.nodes.filter((node) => signal(node, s) !== null),
        all = known.reduce((sum, node) => sum + documents(node), 0);
      means.set(
        key,
        all ? known.reduce((sum, node) => sum + signal(node, s) * documents(node), 0) / all : null,
      );
    }
    return means.get(key);
  }
  // Pairs [name, share] of sources or languages. The name may be null.
  const shares = (flat) =>
    Array.from({ length: flat.length / 2 }, (_, k) => [
      data.names[flat[2 * k]],
      flat[2 * k + 1] ?? 0,
    ]);
  const sources = (node) => shares(node.level.sources[node.i]);
  const languages = (node) => shares(node.level.languages[node.i]);
  const examples = (node) =>
    node.level.examples[node.i].map(([kind, distance, source, id, snippet]) => ({
      kind: data.kinds[kind],
      distance,
      source: data.names[source],
      id,
      snippet,
    }));

  return {
    above,
    children,
    data,
    documents,
    examples,
    find,
    languages,
    levels,
    natural,
    parent,
    related,
    share,
    signal,
    signalOfAll,
    sources,
    terms,
    title,
    tokens,
    weight,
  };
})();
