"use strict";
// The domains as objects: { level, i, number, name }, where `level` holds the columns of the page's data and `i` is the place in them.
const tree = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byName = new Map();
  const levels = data.levels;
  levels.forEach((level, depth) => {
    level.depth = depth;
    level.sum = level.tokens.reduce((a, b) => a + (b ?? 0), 0);
    level.nodes = level.domain.map((number, i) => ({ level, i, number, name: `${level.level}/${number}` }));
    for (const node of level.nodes) byName.set(node.name, node);
  });

  const find = (name) => byName.get(name) ?? null;
  const tokens = (node) => node.level.tokens[node.i] ?? 0;
  const documents = (node) => node.level.documents[node.i] ?? 0;
  const share = (node) => (node.level.sum ? tokens(node) / node.level.sum : 0);
  const terms = (node, most) => node.level.terms[node.i].slice(0, most).join(", ");
  const title = (node, most) => [node.name, terms(node, most)].filter(Boolean).join("  ");

  // The domain of a coarser level (or its own) that a domain lies in; null: that one is not in the page.
  const above = (node, level) => (level.depth > node.level.depth ? null : find(`${level.level}/${Math.floor(node.number / (node.level.level / level.level))}`));
  const parent = (node) => (node.level.depth ? above(node, levels[node.level.depth - 1]) : null);
  const children = (node) => {
    const finer = levels[node.level.depth + 1];
    return finer ? finer.nodes.filter((child) => parent(child) === node) : [];
  };
  // Whether one of the two lies in the other.
  const related = (a, b) => (a.level.depth <= b.level.depth ? above(b, a.level) === a : above(a, b.level) === b);

  const weight = (node, target, kind) => node.level.weights[kind][target][node.i] ?? 0;
  const natural = (node) => node.level.natural[node.i] ?? 0;
  const signal = (node, s) => node.level.signals[s]?.[node.i] ?? null;
  // Of all documents of a level: the mean of its domains, by documents.
  const means = new Map();
  function signalOfAll(level, s) {
    const key = `${level.level}/${s}`;
    if (!means.has(key)) {
      const known = level.nodes.filter((node) => signal(node, s) !== null), all = known.reduce((sum, node) => sum + documents(node), 0);
      means.set(key, all ? known.reduce((sum, node) => sum + signal(node, s) * documents(node), 0) / all : null);
    }
    return means.get(key);
  }
  // [name, share] of sites or languages; a site without a name is null.
  const shares = (flat) => Array.from({ length: flat.length / 2 }, (_, k) => [data.names[flat[2 * k]], flat[2 * k + 1] ?? 0]);
  const sources = (node) => shares(node.level.sources[node.i]);
  const languages = (node) => shares(node.level.languages[node.i]);
  const examples = (node) => node.level.examples[node.i].map(([kind, distance, source, id, snippet]) => ({ kind: data.kinds[kind], distance, source: data.names[source], id, snippet }));

  return { above, children, data, documents, examples, find, languages, levels, natural, parent, related, share, signal, signalOfAll, sources, terms, title, tokens, weight };
})();
