#!/usr/bin/env bash
# Measure everything that needs a GPU, in less than nine minutes: bash benchmarks/gpu/run.sh [OPTION ...]
# The machine needs an NVIDIA GPU, PyTorch, transformers, sentence-transformers, pyarrow and scikit-learn.
# A few small packages are installed beside them if they are missing: from the folder of wheels $WHEELS if it
# is set, else from the index. Options are those of `python -m benchmarks.gpu`. `--device cpu` needs no GPU.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
PACKAGES=${PACKAGES:-$PWD/benchmarks/cache/gpu-packages}
export PYTHONPATH=$PWD:$PACKAGES

absent() {  # print the names, of those given as module=package, whose modules are missing
    "$PYTHON" - "$@" <<'PY'
import sys
from importlib.util import find_spec
print(*(name for module, name in (word.split("=") for word in sys.argv[1:]) if find_spec(module) is None))
PY
}

missing=$(absent torch=torch transformers=transformers sentence_transformers=sentence-transformers \
    pyarrow=pyarrow sklearn=scikit-learn)
if [ -n "$missing" ]; then
    echo "benchmarks/gpu/run.sh: not installed: $missing. Install these packages, or set PYTHON." >&2
    exit 2
fi
small=$(absent pydantic=pydantic pydantic_core=pydantic-core annotated_types=annotated-types \
    typing_inspection=typing-inspection jaxtyping=jaxtyping wadler_lindig=wadler_lindig \
    upath=universal-pathlib pathlib_abc=pathlib_abc)
if [ -n "$small" ]; then
    if [ -n "${WHEELS:-}" ]; then source=(--no-index --find-links "$WHEELS"); else source=(-c constraints.txt); fi
    # shellcheck disable=SC2086 # one word per package
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
        --target "$PACKAGES" "${source[@]}" $small
fi
exec "$PYTHON" -m benchmarks.gpu "$@"
