#!/usr/bin/env bash
# The whole way in one script: text, domains, a trained model, and a page that compares three mixtures.
#
#   bash examples/speedrun.sh            # from the top of the repository
#
# The corpus is the documentation of the Python packages on this machine. Times are of two quiet CPU
# cores. Started again, the script reuses what is finished. Delete catalogs/speedrun and
# runs/speedrun-* to start over.
set -euo pipefail
cd "$(dirname "$0")/.."

# Install everything into .venv. 2 minutes, once.
make install
export PATH="$PWD/.venv/bin:$PATH"

# Estimate the build before it runs. Seconds.
clustermix plan flows/cli/demo_build.toml --set out=catalogs/speedrun

# Read, filter, deduplicate, embed and cluster about 17,000 documents into 16 and 256 domains, and
# write them sorted by domain. 2 to 4 minutes; embedding takes most of them.
clustermix build flows/cli/demo_build.toml --set out=catalogs/speedrun

# Compare every file with the manifest. Seconds.
clustermix verify catalogs/speedrun

# The largest domains, and the domains that the target falls into. Seconds.
clustermix query catalogs/speedrun "SELECT domain, documents, tokens, terms[1:5] AS terms
    FROM domains WHERE level = 16 ORDER BY tokens DESC LIMIT 8"
clustermix query catalogs/speedrun "SELECT domain, round(weight, 3) AS weight
    FROM distributions WHERE name = 'statistics' AND kind = 'hard' AND level = 16
    ORDER BY weight DESC LIMIT 5"

# Train the same small model on three mixtures of the same catalog. About 1 minute each.
for mixer in natural importance dga; do
    clustermix train flows/cli/demo_train.toml --set catalog=catalogs/speedrun \
        --set mixture.mixer="$mixer" --set out="runs/speedrun-$mixer"
done

# Compare them on one page. Seconds.
clustermix report runs/speedrun-natural runs/speedrun-importance runs/speedrun-dga \
    --catalog catalogs/speedrun --out runs/speedrun.html
echo "Open runs/speedrun.html and catalogs/speedrun/report.html in a browser."
