#!/usr/bin/env bash
# On a machine with one GPU: run the GPU tests, measure rounds of FAT, and play the reproductions of
# scale `paper`. One call takes at most 25 minutes; call it again to go on.
#
#   bash benchmarks/gpu.sh [OUT]        OUT: where records go, results/gpu if left out
#
# PYTHON is the interpreter, python3 if not set. It must have PyTorch with CUDA, and fedrobust with what
# it needs. Where it has not, and there is no network, set WHEELS to a folder with the wheels, which a
# machine with a network fills: pip wheel --no-deps . and pip download of the packages below.
# FEDROBUST_DATA names folders that hold the data sets. MINUTES is the time for one call.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-results/gpu}
python=${PYTHON:-python3}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
ends=$((SECONDS + 60 * ${MINUTES:-25}))
mkdir -p "$out"

"$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' \
    || { echo "$python has no PyTorch that sees a GPU; set PYTHON"; exit 1; }
if [ -n "${WHEELS:-}" ]; then
    "$python" -m pip install --quiet --no-index --find-links "$WHEELS" \
        annotated-types cmaes contourpy filelock gymnasium jaxtyping jinja2 matplotlib numba numpy platformdirs \
        pooch POT psutil pydantic pytest rich ruamel.yaml safetensors scikit-learn scipy typer
    "$python" -m pip install --quiet --no-index --find-links "$WHEELS" --no-deps fedrobust
fi
"$python" -c 'from importlib.metadata import version; version("fedrobust"); import fedrobust.cli' \
    || { echo "fedrobust is not installed: pip install -e . or set WHEELS"; exit 1; }

# Run a step once, within the time that is left. A step that is cut off is begun again next time.
once() {
    local name=$1
    shift
    [ -e "$out/$name.done" ] && return
    [ $((ends - SECONDS)) -gt 0 ] || { echo "out of time before $name: call this again"; exit 0; }
    echo "== $name"
    local rc=0
    timeout --signal=INT --kill-after=30 $((ends - SECONDS)) "$@" || rc=$?
    case $rc in
        0) touch "$out/$name.done" ;;
        124 | 130 | 137) echo "out of time in $name: call this again"; exit 0 ;;
        *) echo "$name failed ($rc)"; exit "$rc" ;;
    esac
}

once tests "$python" -m pytest -p no:cacheprovider -o addopts= -q -m gpu tests/gpu
once rounds "$python" benchmarks/gpu.py --out "$out/gpu.json"
names=$("$python" -c 'from fedrobust.runs.reproduce import known
print(*(name for name, what in known().items() if "paper" in what.scales))')
for name in $names; do
    once "$name" "$python" -m fedrobust reproduce "$name" --scale paper --jobs 1 --out "$out/$name"
done
