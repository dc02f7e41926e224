#!/usr/bin/env bash
# What is too slow for every test run: the main job on all 10,000 test images, with the bundled weights and with weights
# trained anew, judged by the figures it must reach; the CUDA engine beside the CPU on 64 of them, and over 20 steps of
# training, on a GPU or the simulated device; what needs photographs, where $INTERVENE_PHOTOS names directories of them
# (ImageNet's classes, NIH's X-rays; joined by `:`); and every reference folder of the directory $INTERVENE_REFERENCES
# (tests/fixtures/make_more_references.sh makes some) on both devices. Prints a line a check and exits 1 if one fails.
#
#     tests/full.sh [DIR]    # DIR keeps the runs; default target/full, made anew
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-${CARGO_TARGET_DIR:-target}/full}
rm -rf "$out"
mkdir -p "$out"
cargo build --release --locked --package intervene
program=${CARGO_TARGET_DIR:-target}/release/intervene
failed=0

check() { # description, condition for awk, figures
    if awk "BEGIN { exit !($2) }"; then echo "ok      $1 ($3)"; else echo "FAILED  $1 ($3)"; failed=1; fi
}

# the value of a numeric key in pretty-printed JSON
key() { sed -n "s/^ *\"$2\": \([-0-9.e]*\),\{0,1\}$/\1/p" "$1" | head -n 1; }

judge() { # run directory, seconds, limit in seconds, name
    local agreement live rows dead
    agreement=$(sed -n '/"agreement": {/,/}/s/^ *"none": \([0-9.]*\),\{0,1\}$/\1/p' "$1/manifest.json")
    # columns: 5 node, 7 input, 8 reading, 9 estimand, 10 mean, 15 live_share, 16 n, 17 ci_lo, 18 ci_hi
    live=$(awk -F, '$7=="none" && $9=="e1" && ($10>1e-4 || $10<-1e-4)' "$1/summary.csv" | wc -l)
    dead=$(awk -F, '$7=="none" && $9=="e1" && $15==0 && $10==0' "$1/summary.csv" | wc -l)
    rows=$(awk -F, '$9=="e1" && $16==10000 && $17!="" && $18!="" && ($8=="Z0" || $8=="R1") && $7!="noise"' "$1/summary.csv" | wc -l)
    check "$4: in time" "$2 < $3" "$2 s, limit $3"
    check "$4: the autoencoder-inserted net agrees with its host on at least 96 % of the test images" "$agreement >= 0.96" "$agreement"
    check "$4: at least 8 live nodes" "$live >= 8" "$live live, $dead dead"
    check "$4: 16 nodes x {Z0, PWM, FGSM, BIM, PGD, JSMA} over 10,000 images with intervals" "$rows == 96" "$rows rows"
}

start=$SECONDS
"$program" reproduce fashion --quiet --out "$out/bundled" >"$out/bundled.txt"
judge "$out/bundled" $((SECONDS - start)) 300 bundled

start=$SECONDS
"$program" reproduce fashion --retrain --quiet --out "$out/retrained" >"$out/retrained.txt"
judge "$out/retrained" $((SECONDS - start)) 900 retrained
accuracy=$(key "$out/retrained/classifier/manifest.json" test_accuracy)
check "retrained: test accuracy at least 90.0 % at the lowest validation loss" "$accuracy >= 0.9" "$accuracy"
for file in classifier/fashion autoencoder/autoencoder; do
    bundled=weights/fashion$([ $file = classifier/fashion ] || echo -ae).safetensors
    if cmp -s <(tail -c 100000 "$out/retrained/$file.safetensors") <(tail -c 100000 "$bundled"); then
        echo "ok      retrained: $file has the bundled weights' bytes"
    else
        echo "note    retrained: $file differs from the bundled weights (another instruction set adds in another order)"
    fi
done

# the column of a name in a CSV file
column() { head -n 1 "$1" | tr , '\n' | grep -nx "$2" | cut -d : -f 1; }

. tests/cuda-sim/env.sh
for device in cpu cuda; do
    start=$SECONDS
    "$program" ce --device $device --limit 64 --masks 1 --no-control --effects csv --quiet --out "$out/$device" >"$out/$device.txt"
    echo "note    64 images on $device: $((SECONDS - start)) s"
done
at=$(column "$out/cpu/effects.csv" ece_node)
read -r rows largest worst <<<"$(paste -d , <(cut -d , -f "$at" "$out/cpu/effects.csv") <(cut -d , -f "$at" "$out/cuda/effects.csv") |
    awk -F, 'NR > 1 { n++; a = $1 < 0 ? -$1 : $1; d = $1 - $2; d = d < 0 ? -d : d
        if (a > l) l = a; if (d > w) w = d; if ($1 != $1 + 0 || $2 != $2 + 0) w = "inf" } END { print n, l, w }')"
check "cuda: 64 images x 16 nodes x {Z0, PWM, FGSM}" "$rows == 64 * 16 * 3" "$rows rows"
check "cuda: effects within 1e-4 of the largest or 1e-6 of the CPU's" "$worst <= 1e-4 * $largest || $worst <= 1e-6" \
    "largest $largest, worst difference $worst"
for devices in 0 0,1; do
    CUDA_SIM_DEVICES=2 "$program" ce --device cuda:$devices --limit 300 --masks 1 --nodes 3,7 --attack none --no-control --quiet \
        --out "$out/devices-$devices" >/dev/null
done
if diff -r --exclude manifest.json "$out/devices-0" "$out/devices-0,1"; then
    echo "ok      cuda: two devices give the bytes of one (300 images)"
else
    echo "FAILED  cuda: two devices give other bytes than one"
    failed=1
fi
if INTERVENE_FULL_TESTS=1 cargo test --locked --package intervene --test cuda -- --nocapture >"$out/cuda-steps.txt" 2>&1; then
    echo "ok      cuda: 20 steps of training follow the CPU's losses ($(grep -c within "$out/cuda-steps.txt") trainings)"
else
    echo "FAILED  cuda: 20 steps of training, see $out/cuda-steps.txt"
    failed=1
fi

if [ -n "${INTERVENE_PHOTOS:-}" ]; then
    if cargo test --locked --package intervene --test published --test images --test datasets -- --nocapture >"$out/photos.txt" 2>&1 &&
        ! grep -q SKIPPED "$out/photos.txt"; then
        echo "ok      photographs ($(grep -h '^linear probe\|^conv5_3' "$out/photos.txt" | paste -sd ';'))"
    else
        echo "FAILED  photographs, see $out/photos.txt: $(grep SKIPPED "$out/photos.txt" | paste -sd ';')"
        failed=1
    fi
else
    echo "note    what needs photographs was not run: INTERVENE_PHOTOS names no directory of them"
fi

# two images of 96x80 through VGG19 take the simulated device half an hour of a core, larger ones hours
most_pixels=20000
# prints the line of folder $1 on device $2
validate() {
    local log verdict=ok worst
    log=$out/reference-$(basename "$1")-$2
    # without the simulated device's checks of memory, which other tests have, it is five times as fast
    CUDA_SIM_STRICT=0 "$program" validate --reference "$1" --device "$2" >"$log.txt" 2>"$log.log" || verdict=FAILED failed=1
    worst=$(awk '$7 == "%" && $6 + 0 >= most { most = $6 + 0; name = $1 } END { print most " %, by " name }' "$log.txt")
    printf '%-8s%s\n' $verdict "$(basename "$1") on $2: $(tail -n 1 "$log.txt") (of a tolerance, at most $worst)"
}
if [ -n "${INTERVENE_REFERENCES:-}" ]; then
    simulated=$("$program" devices | grep -c '^cuda:0.*simulated' || true)
    large=()
    for folder in "$INTERVENE_REFERENCES"/*/; do
        validate "$folder" cpu
        read -r images height width <<<"$(sed -En 's/.* ([0-9]+) images? of [0-9]+x([0-9]+)x([0-9]+),.*/\1 \2 \3/p' \
            "$out/reference-$(basename "$folder")-cpu.log")"
        if [ "$simulated" = 1 ] && [ $((${images:-0} * ${height:-0} * ${width:-0})) -gt $most_pixels ]; then
            large+=("$(basename "$folder")")
        else
            validate "$folder" cuda
        fi
    done
    echo "note    ${#large[@]} reference folders not on cuda: over $most_pixels pixels are too many for the simulated device ${large[*]}"
else
    echo "note    0 reference folders validated: INTERVENE_REFERENCES names no directory of them"
fi
exit $failed
