#!/usr/bin/env bash
# Puts libtorch 2.13 where `cargo build --features torch` finds it: into the ignored folder `libtorch/`.
#
# libtorch comes from the PyTorch wheel of PyPI and, for two libraries that it is linked against, from two
# wheels of NVIDIA's; their digests are checked. 540 MB to download, 490 MB on disk. Runs on the CPU only:
# on a GPU machine build against the PyTorch that is installed there (LIBTORCH_USE_PYTORCH=1, see
# docs/backends.md). Needs Python 3 with pip; Linux on x86-64.
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=2.13.0 # torch-sys 0.26 fits this one
FOLDER=libtorch

if [ -n "${LIBTORCH_USE_PYTORCH:-}" ]; then
    echo "LIBTORCH_USE_PYTORCH is set: the build takes the PyTorch of \`python3\`, nothing to do"
    exit
fi
if [ -n "${LIBTORCH:-}" ]; then
    echo "LIBTORCH is set: the build takes $LIBTORCH, nothing to do"
    exit
fi
if [ "$(cat $FOLDER/build-version 2>/dev/null)" = $VERSION ]; then
    echo "$FOLDER/ holds libtorch $VERSION already"
    exit
fi
if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "no pinned wheels for $(uname -sm): install PyTorch $VERSION and set LIBTORCH_USE_PYTORCH=1" >&2
    exit 1
fi

scratch=$(mktemp -d ./.libtorch.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
# One wheel whatever the Python here: only its C++ libraries and headers are taken.
cat >"$scratch/wheels.txt" <<END
torch==$VERSION --hash=sha256:796633c4cdf0fe2cdced72d8f88f22e73dbcfce83132763162f6d4bff13b820b
nvidia-cuda-cupti==13.0.85 --hash=sha256:4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8
nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
END
echo "downloading libtorch $VERSION (540 MB)"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --no-cache-dir \
    --python-version 3.12 --implementation cp --abi cp312 \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux2014_x86_64 \
    --require-hashes --requirement "$scratch/wheels.txt" --dest "$scratch"

python3 - "$scratch" $VERSION <<'END'
import glob, os, shutil, sys, zipfile

scratch, version = sys.argv[1:]
root = os.path.join(scratch, "libtorch")
libraries = {"libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libcupti.so.13", "libcudart.so.13"}
os.makedirs(os.path.join(root, "lib"))
for wheel in glob.glob(os.path.join(scratch, "*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            folder, name = os.path.split(member)
            if name in libraries:
                target = os.path.join(root, "lib", name)
                libraries.discard(name)
            elif member.startswith("torch/include/") and not member.endswith("/"):
                target = os.path.join(root, member.removeprefix("torch/"))
            else:
                continue
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with archive.open(member) as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
if libraries:
    sys.exit(f"not in the wheels: {sorted(libraries)}")
# The library of that name in the wheel pulls in CUDA; a linker script under its name asks for the CPU library alone.
with open(os.path.join(root, "lib", "libtorch.so"), "w") as file:
    file.write("INPUT(-ltorch_cpu)\n")
# torch-sys reads this one and refuses another version than its own.
with open(os.path.join(root, "build-version"), "w") as file:
    file.write(version + "\n")
END
rm -rf $FOLDER
mv "$scratch/libtorch" $FOLDER
echo "$FOLDER/ holds libtorch $VERSION: cargo build --release --features torch"
