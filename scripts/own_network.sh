#!/usr/bin/env bash
# Runs the network of your own from docs/artifacts.md through coreset, fit and evaluate, on generated surfaces: the program of
# that page as it stands, with random weights. Then wrong feature sets, each of which must be refused with its file, the place
# in it, and what to do.
#
#   python3 -m venv net-env && net-env/bin/pip install torch torchvision safetensors pillow numpy
#   PYTHON=net-env/bin/python scripts/own_network.sh [target/release/patchflow]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
program=$(realpath "${1:-$root/target/release/patchflow}")
# Not resolved: the link in a virtual environment is what makes it one.
python=$(cd "$(dirname "${PYTHON:?a Python with torch, torchvision, safetensors, pillow and numpy}")" && pwd)/$(basename "$PYTHON")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
touch patchflow.toml
mkdir net
awk '/^```python$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$root/docs/artifacts.md" > net/extract.py
grep -q 'torchvision.models' net/extract.py
cat > m.toml <<M
[experiment]
name = "own_network"
seed = 1
[grid.axes]
bank = ["single", "dual"]
[stages.surfaces]
kind = "download"
synthetic = { seed = 7, train_normal = 16, train_defect = 6, test_normal = 10, test_defect = 10, height = 128, width = 128 }
[stages.images]
kind = "preprocess"
input = "surfaces"
layout = "ksdd2"
[stages.net]
kind = "download"
path = "net"
[stages.features]
kind = "command"
run = ["$python", "inputs/net/extract.py"]
inputs = { net = "net", images = "images" }
outputs = { f = "feature_set" }
tools = ["$python --version"]
[stages.normal_bank]
kind = "coreset"
features = "features"
ratio = 0.1
[stages.defect_bank]
kind = "coreset"
features = "features"
select = { label = "defect" }
[stages.model]
kind = "fit"
bank = "\${bank}"
normal = "normal_bank"
defect = "defect_bank"
features = "features"
[stages.result]
kind = "evaluate"
model = "model"
features = "features"
images = "images"
M
"$program" run m.toml 2>log || { cat log; exit 1; }
"$program" run m.toml 2>>log | tail -2
cp net/extract.py sound.py

# refuses NAME PYTHON TEXT: with this line after the program, the run must fail and say TEXT.
refuses() {
  { cat sound.py; printf '%s\n' "$2"; } > net/extract.py
  if "$program" run m.toml --target features >out 2>&1; then
    echo "FALLS SHORT: $1 is accepted"
    exit 1
  fi
  if ! grep -q -- "$3" out || ! grep -q 'docs/artifacts.md' out; then
    echo "FALLS SHORT: $1:"
    cat out
    exit 1
  fi
  echo "refused, $1:"
  sed -n '/^error/,$p' out | grep -v '^ *log:\|^files:\|tasks\? for' | sed 's/^/    /'
}
last='block = max(output.rglob("*.safetensors"))'
refuses "features as [d, h, w]" "$last; save_file({'features': numpy.zeros((16, 4, 4, 1), 'float16')}, block)" 'features'
refuses "double precision" "$last; save_file({'features': numpy.zeros((4, 4, 24))}, block)" 'features'
refuses "another name of the tensor" "$last; save_file({'maps': numpy.zeros((4, 4, 24), 'float16')}, block)" 'features'
refuses "a number that is none" "$last; a = numpy.zeros((4, 4, 24), 'float16'); a[1, 2, 3] = numpy.nan; save_file({'features': a}, block)" 'row 1, column 2, channel 3'
refuses "a block of no image" "save_file({'features': numpy.zeros((4, 4, 24), 'float16')}, output / 'blocks/other.safetensors')" 'other'
refuses "an image without a block" "$last; block.unlink()" 'no block'
refuses "no description" "(output / 'features.json').unlink()" 'features.json'
echo "right: the network runs through every stage, and seven wrong feature sets are refused"
