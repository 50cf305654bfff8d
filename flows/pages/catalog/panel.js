"use strict";
// Details of one domain, or the list of all domains. Untrusted text only becomes text nodes.
const panel = (() => {
  const EXAMPLES = {
    nearest: "Nearest to the centroid",
    typical: "At the median distance",
    boundary: "Farthest from the centroid",
  };

  const MEANINGS = {
    Hard: "Share of the target's documents whose nearest centroid is that of this domain.",
    "By distance":
      "Share by a softmax over the distances of the target's documents to the centroids.",
    "Hard / corpus":
      "How much more of the target than of the corpus lies in this domain. 1 means equally much.",
    "mean distance": "Mean distance of the documents to the centroid of the domain.",
    distance:
      "Distances of the documents to the centroid: a line from the 5th to the 95th percentile, a " +
      "box from the 25th to the 75th, and a mark at the median. All domains of a level share a scale.",
    radius: "Root mean square distance of the documents to the centroid of the domain.",
    "dropped share of its sources":
      "Share of documents that quality rules or deduplication dropped from the sources of this " +
      "domain. Dropped documents have no domain, so this is an estimate.",
  };

  const add = (host, tag, text, className) => {
    const node = host.appendChild(document.createElement(tag));
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const isolated = (host, text) => add(host, "bdi", text);
  const number = (n) => (n ?? 0).toLocaleString("en");
  const fixed = (v) => (v === null || v === undefined ? "–" : v.toFixed(3));

  function reference(host, node, link, count) {
    const a = host.appendChild(document.createElement("a"));
    a.href = link(node);
    isolated(a, tree.title(node, count));
    return a;
  }

  const term = (host, name) =>
    host.append(name in MEANINGS ? base.explained(name, MEANINGS[name]) : name);

  // Percentiles 5, 25, 50, 75 and 95 of the distances as a box on the scale of the level.
  function sparkline(level, i) {
    const five = level.quantiles[i];
    if (five.length < 5 || five.some((v) => v === null)) return "–";
    const most = Math.max(...level.quantiles.flat().filter((v) => v !== null), 1e-9);
    const at = five.map((v) => (100 * v) / most);
    const draw = (host, tag, attributes) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      return host.appendChild(node);
    };
    const both = document.createElement("span");
    both.className = "quantiles";
    const root = draw(both, "svg", { viewBox: "0 0 100 12", "aria-hidden": "true" });
    draw(root, "path", { d: `M${at[0]} 6H${at[4]}`, stroke: "var(--soft)" });
    draw(root, "rect", {
      x: at[1],
      y: 2,
      width: Math.max(at[3] - at[1], 0.5),
      height: 8,
      fill: "var(--s0)",
    });
    draw(root, "path", { d: `M${at[2]} 0V12`, stroke: "var(--ink)", "stroke-width": 2 });
    add(both, "bdi", `${five[0].toFixed(2)} to ${five[4].toFixed(2)}`);
    return both;
  }

  function facts(host, rows) {
    const list = add(host, "dl");
    for (const [name, value] of rows) {
      term(add(list, "dt"), name);
      const cell = add(list, "dd");
      if (value instanceof Node) cell.append(value);
      else isolated(cell, value);
    }
  }

  function head(host, names, texts) {
    const row = host.createTHead().insertRow();
    names.forEach((name, i) => {
      const cell = add(row, "th", undefined, texts.includes(i) ? "text" : undefined);
      cell.scope = "col";
      term(cell, name);
    });
    return host.createTBody();
  }

  function line(body, cells) {
    const row = body.insertRow();
    cells.forEach((cell, i) =>
      isolated(Object.assign(row.insertCell(), { className: i ? "" : "text" }), cell),
    );
    return row;
  }

  function weights(host, node) {
    if (!tree.data.targets.length) return;
    add(host, "h4", "Weight per target");
    const body = head(add(host, "table"), ["Target", "Hard", "By distance", "Hard / corpus"], [0]);
    const natural = tree.natural(node),
      hard = (t) => tree.weight(node, t, "hard");
    const order = tree.data.targets.map((_, t) => t).sort((a, b) => hard(b) - hard(a) || a - b);
    for (const t of order) {
      const ratio = natural > 0 ? `${+(hard(t) / natural).toPrecision(2)}×` : "–";
      line(body, [
        tree.data.targets[t],
        base.share(hard(t)),
        base.share(tree.weight(node, t, "distance")),
        ratio,
      ]);
    }
    line(body, ["corpus (natural)", base.share(natural), "", ""]).className = "soft";
  }

  function signals(host, node) {
    const known = tree.data.signals
      .map((name, s) => [name, tree.signal(node, s), tree.signalOfAll(node.level, s)])
      .filter(([, value]) => value !== null);
    if (!known.length) return;
    add(host, "h4", "Mean quality signals");
    const body = head(add(host, "table"), ["Signal", "Domain", "Corpus"], [0]);
    for (const [name, ...means] of known)
      line(body, [name, ...means.map((v) => String(+v.toPrecision(3)))]);
  }

  function shares(host, title, rows, unnamed) {
    if (!rows.length) return;
    add(host, "h4", title);
    const list = add(host, "ul", undefined, "shares");
    for (const [name, share] of rows) {
      const item = add(list, "li");
      isolated(item, name ?? unnamed);
      add(item, "b", base.share(+share.toPrecision(3)));
      Object.assign(add(item, "meter"), { min: 0, max: 1, value: share, ariaHidden: "true" });
    }
  }

  function examples(host, node, kinds) {
    const all = tree.examples(node);
    for (const kind of kinds) {
      const title = EXAMPLES[kind];
      const some = all.filter((example) => example.kind === kind);
      if (!some.length) continue;
      add(host, "h4", title);
      for (const { snippet, source, id, distance } of some) {
        const one = add(host, "figure");
        add(one, "blockquote", snippet ?? "").dir = "auto";
        const caption = add(one, "figcaption");
        isolated(caption, source ?? "unknown source");
        add(caption, "span", ` · distance ${fixed(distance)} · `);
        isolated(caption, id ?? "");
      }
    }
  }

  function relatives(host, node, link) {
    const parent = tree.parent(node),
      children = tree.children(node).sort((a, b) => tree.tokens(b) - tree.tokens(a));
    const path = add(host, "p", undefined, "path");
    Object.assign(add(path, "a", "all domains"), { href: "#all" });
    const above = parent ? [tree.parent(parent), parent].filter(Boolean) : [];
    for (const one of above) {
      add(path, "span", " › ");
      reference(path, one, link, 2);
    }
    return () => {
      if (children.length) {
        add(
          host,
          "h4",
          `${number(children.length)} child domains at level ${number(children[0].level.level)}`,
        );
        listed(host, children, link);
      } else if (tree.data.finer.length)
        add(
          host,
          "p",
          `Child domains at level ${tree.data.finer.map(number).join(", ")} are not on ` +
            'this page. Query the view "domains" instead.',
          "caption",
        );
    };
  }

  function listed(host, nodes, link) {
    const list = add(host, "ol", undefined, "listed");
    for (const node of nodes) {
      const item = add(list, "li");
      reference(item, node, link, 4);
      add(item, "b", base.share(+tree.share(node).toPrecision(3)));
    }
  }

  function one(host, node, link, word) {
    const { level, i } = node,
      rest = relatives(host, node, link);
    const heading = add(host, "h3"),
      words = tree.terms(node, 3);
    if (words) isolated(heading, words);
    add(heading, "small", `Domain ${node.number} of level ${number(level.level)}`);
    const chips = add(host, "p", undefined, "chips");
    for (const term of level.terms[i])
      isolated(Object.assign(add(chips, "a"), { href: word(term) }), term);
    for (const flag of level.flags[i])
      add(
        host,
        "p",
        `Flag ${flag}${flag in tree.data.flags ? `: ${tree.data.flags[flag]}` : ""}`,
        "flag",
      );
    examples(host, node, ["nearest"]);
    facts(host, [
      ["documents", number(tree.documents(node))],
      ["tokens", `${number(tree.tokens(node))} (${base.share(+tree.share(node).toPrecision(3))})`],
      ["mean distance", fixed(level.distance[i])],
      ["distance", sparkline(level, i)],
      ["radius", fixed(level.radius[i])],
      [
        "dropped share of its sources",
        level.dropped[i] === null ? "–" : base.share(+level.dropped[i].toPrecision(3)),
      ],
    ]);
    weights(host, node);
    signals(host, node);
    shares(host, "Sources", tree.sources(node), "unknown");
    shares(host, "Languages", tree.languages(node), "unknown");
    rest();
    examples(host, node, ["typical", "boundary"]);
  }

  function all(host, link) {
    const top = tree.levels[0];
    add(host, "h3", "All domains");
    add(
      host,
      "p",
      "Select a domain in the treemap, on the map, with the search, or here.",
      "caption",
    );
    facts(host, [
      ["tokens", number(top.sum)],
      ["levels", tree.levels.map((level) => number(level.level)).join(" → ")],
    ]);
    add(host, "h4", `${number(top.nodes.length)} domains of level ${number(top.level)}`);
    listed(
      host,
      [...top.nodes].sort((a, b) => tree.tokens(b) - tree.tokens(a)).slice(0, 300),
      link,
    );
  }

  // `wanted` is the name of a domain, or null for all. `link(node)` and `word(term)` return
  // fragments of the page's address.
  function show(host, wanted, link, word) {
    const node = wanted === null ? null : tree.find(wanted);
    host.replaceChildren();
    if (node) one(host, node, link, word);
    else if (wanted === null) all(host, link);
    else
      isolated(
        add(host, "p", undefined, "caption"),
        `There is no domain ${base.short(wanted, 60)} on this page.`,
      );
    host.scrollTop = 0;
  }

  return { show };
})();
