# Everything that CI runs; plain cargo underneath, so that CI needs no just.
check:
    bash .ci/run

test:
    cargo test --release

fmt:
    cargo fmt

bench:
    cargo bench

# libtorch for `--features torch`, into an ignored folder.
libtorch:
    bash scripts/libtorch.sh
