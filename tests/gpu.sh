#!/usr/bin/env bash
# Everything that has to be seen on a GPU, in one command: the tests that CI runs on the simulated device, compute-sanitizer, and
# the benchmarks. Prints a line a step, goes on after a failed one, and keeps machine, commands and raw output in
# benches/runs/<date>-<gpu>/, to be committed.
#
#     tests/gpu.sh [DIR]    # DIR instead of benches/runs/<date>-<gpu>; never overwritten
#
# Exits: 0 everything passed, 1 a step failed, 5 there is no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."

refuse() { echo "tests/gpu.sh: $*" >&2; exit 5; }

# before minutes are spent on a build
gpus=$(nvidia-smi -L 2>/dev/null || true)
[[ $gpus == GPU* || -e /dev/nvidia0 ]] ||
    refuse "there is no GPU: nvidia-smi lists none and there is no /dev/nvidia0 (the simulated device has its own run: .ci/run)"

unset CUDA_SIM
. tests/cuda-sim/env.sh # finds NVRTC and its disassembler
# Cargo's test runs look here before the system's libraries: a simulated driver must not be found.
rm -f "${CARGO_TARGET_DIR:-target}"/debug/{,deps/}libcuda.so
cargo build --release --locked --package intervene
program=${CARGO_TARGET_DIR:-target}/release/intervene
devices=$("$program" devices --json)
[[ $devices == *'"simulated":false'* ]] || refuse "no GPU can be used: $("$program" devices | grep '^cuda' || true)"

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 || true)
gpu=$(tr -cs 'A-Za-z0-9\n' - <<<"${gpu:-gpu}" | tr 'A-Z' 'a-z')
out=${1:-benches/runs/$(date -u +%F)-${gpu%-}}
[[ ! -e $out ]] || { echo "tests/gpu.sh: $out exists" >&2; exit 1; }
mkdir -p "$out"

{
    echo "$devices"
    git describe --always --dirty --abbrev=40 2>/dev/null || true
    rustc --version
    nvidia-smi 2>/dev/null || true
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit,ecc.mode.current --format=csv \
        2>/dev/null || true
    lscpu 2>/dev/null | sed -n '/^Model name/p;/^CPU(s)/p;/cache:/p' || true
    free -g 2>/dev/null | sed -n 2p || true
} >"$out/machine.txt"

failed=0
# step NAME COMMAND...: output to NAME.txt; what it is and how it ended to commands.txt
step() {
    local name=$1 start=$SECONDS result=ok
    shift
    "$@" >"$out/$name.txt" 2>&1 || { result="FAILED ($?)"; failed=1; }
    printf '%-12s %-24s %5d s   %s\n' "$result" "$name" $((SECONDS - start)) "$*" | tee -a "$out/commands.txt"
}

# The same assertions as in CI, on the GPU.
step launchers cargo test --locked --package intervene --lib -- backend::cuda
for test in conformance determinism causal_invariants attack_invariants attacks maps cuda_sizes masks winograd; do
    step "$test" cargo test --locked --package intervene --test "$test"
done
# registers and gates; counters are the simulated device's, and it says that they were not compared
step kernels_compile cargo test --locked --package intervene --test kernels_compile -- --nocapture

# Sanitizers: a study of eight images, and a step of training.
small=("$program" ce --limit 8 --nodes 3,7 --device cuda --quiet)
train=("$program" bench train --repeats 1 --device cuda --quiet)
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck; do
        scratch=$(mktemp -d)
        step "sanitizer_$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 "${small[@]}" --out "$scratch/run"
        for how in "--conv winograd" "--precision tf32" "--precision fp16" "--precision bf16"; do
            # shellcheck disable=SC2086 # a flag and its value
            step "sanitizer_${tool}_${how##* }" compute-sanitizer --tool "$tool" --error-exitcode 1 "${small[@]}" $how \
                --out "$scratch/${how##* }"
        done
        step "sanitizer_${tool}_train" compute-sanitizer --tool "$tool" --error-exitcode 1 "${train[@]}"
        rm -rf "$scratch"
    done
else
    echo "not run      compute-sanitizer is not in the PATH (it comes with the CUDA toolkit)" | tee -a "$out/commands.txt"
fi

# Speed.
step kernels "$program" bench kernels --device cuda --quiet
for precision in tf32 fp16 bf16; do
    step "kernels_$precision" "$program" bench kernels --device cuda --precision "$precision" --quiet
done
step kernels_json "$program" bench kernels --device cuda --json --quiet
for job in sweep forward attack; do
    step "bench_$job" "$program" bench "$job" --device cuda --images 1024 --repeats 9 --quiet
done
step bench_train "$program" bench train --device cuda --repeats 9 --quiet

# Kernels of others, known to be right on hardware, and the references that they are judged by. They build a simulated driver on
# the way: in a place of its own.
for test in tests/cuda-sim/tests/foreign_*.rs; do
    name=$(basename "$test" .rs)
    step "$name" env CUDA_SIM_TEST_DRIVER=1 CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/gpu" cargo test --locked --package cuda-sim --test "$name"
done

if [[ $failed = 0 ]]; then echo "everything passed: $out"; else echo "something FAILED: $out"; fi
exit $failed
