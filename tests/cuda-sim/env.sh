# Makes CUDA programs run in this shell, on the GPU if there is one and else on the simulated device:
#
#     . tests/cuda-sim/env.sh
#
# For bash on Linux. It may be sourced from anywhere, and again. It changes these variables and nothing else:
#
#   LD_LIBRARY_PATH   finds libcuda.so.1 (the simulated one, unless there is a real driver with a device) and NVRTC
#   PATH              finds nvdisasm and cuobjdump, where they came with NVRTC
#   CUDA_SIM_NVRTC    the NVRTC library
#   CUDA_SIM_INCLUDE  the CUDA headers that belong to it (cuda_fp16.h, mma.h ...; the C++ ones in its cccl/)
#
# and it heeds these:
#
#   CUDA_SIM=1        the simulated device even where there is a real one
#   CUDA_SIM_NVRTC    an NVRTC library to take. Else the newest of $LD_LIBRARY_PATH, $CUDA_HOME, $CUDA_PATH,
#                     /usr/local/cuda*, the system's libraries and python3's packages is taken; if there is none (or it has
#                     no headers), requirements.txt beside this file is installed once, under the build directory
#   CUDA_SIM_INCLUDE  headers, for an NVRTC that has none beside it
#   CARGO_TARGET_DIR  as ever; everything that is built or installed goes there
#
# On failure it says why, returns 1 and has changed nothing.

# A child does the work and prints assignments, so that the caller gets neither options nor functions nor variables.
if [ -z "${BASH_VERSION:-}" ]; then
    echo "cuda-sim: env.sh is for bash" >&2
    return 1 2>/dev/null || exit 1
elif [ "${BASH_SOURCE[0]}" != "$0" ]; then
    eval "$(BASH_ENV='' bash --norc --noprofile "${BASH_SOURCE[0]}" --assignments || echo 'return 1')"
    return
elif [ "${1:-}" != --assignments ]; then
    echo "cuda-sim: env.sh is to be sourced: . ${BASH_SOURCE[0]}" >&2
    exit 1
fi

set -euo pipefail
shopt -s nullglob

say() { printf 'cuda-sim: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# Whether the driver of a GPU is here, and the GPU.
real_driver() {
    if command -v nvidia-smi >/dev/null && [[ $(nvidia-smi -L 2>/dev/null) == GPU* ]]; then return 0; fi
    [[ -e /dev/nvidia0 && $(system_libraries)$'\n' == */libcuda.so.1$'\n'* ]]
}

# The paths of the libraries that the loader knows.
system_libraries() {
    { PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null || true; } | sed -n 's/.* => //p'
}

# Where python3 keeps packages.
python_packages() {
    if command -v python3 >/dev/null; then
        python3 -c 'import sys; print("\n".join(p for p in sys.path if p))' 2>/dev/null || true
    fi
}

# Every NVRTC in sight, the preferred first: by major version, then by place.
nvrtcs() {
    local dirs=() paths=() line dir major root
    IFS=: read -ra paths <<<"${LD_LIBRARY_PATH:-}"
    for dir in "${paths[@]}"; do [[ $dir == /* && $dir != "$home"/* ]] && dirs+=("$dir"); done
    for root in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda /usr/local/cuda-*; do
        [[ -n $root ]] && dirs+=("$root/lib64" "$root/lib")
    done
    while read -r line; do dirs+=("${line%/*}"); done < <(system_libraries | grep '/libnvrtc\.so' || true)
    while read -r line; do dirs+=("$line/nvidia/cu13/lib" "$line/nvidia/cuda_nvrtc/lib"); done < <(python_packages)
    for major in 13 12; do
        for dir in "${dirs[@]}"; do
            if [[ -e $dir/libnvrtc.so.$major ]]; then printf '%s\n' "$dir/libnvrtc.so.$major"; fi
        done
    done
}

# The directory of the headers of NVRTC $1: beside it, inside it, or the one that the user gave.
headers() {
    local dir=${1%/*} real place bundled
    real=$(readlink -f "$1")
    bundled=$home/include-$(cksum <<<"$real" | cut -d ' ' -f 1)
    for place in "$dir/../include" "${real%/*}/../include" "${real%/*}/../../../include" "$dir/../../cuda_runtime/include"; do
        if [[ -e $place/cuda_fp16.h ]]; then (cd "$place" && pwd -P); return; fi
    done
    if command -v python3 >/dev/null && python3 - "$real" "$bundled" <<'PYTHON' >/dev/null 2>&1
import ctypes, os, sys
library = ctypes.CDLL(sys.argv[1])
sys.exit(library.nvrtcInstallBundledHeaders(os.fsencode(sys.argv[2]), 0, None))
PYTHON
    then printf '%s\n' "$bundled"; return; fi
    if [[ -e ${CUDA_SIM_INCLUDE:-}/cuda_fp16.h ]]; then printf '%s\n' "$CUDA_SIM_INCLUDE"; return; fi
    return 1
}

# Installs requirements.txt, once for each version of the file.
install() {
    local list=$crate/requirements.txt to sum python=python3
    sum=$(sha256sum "$list")
    to=$home/python-${sum:0:12}
    if [[ ! -e $to ]]; then
        command -v python3 >/dev/null || die "NVRTC is missing, and installing it needs python3 with pip"
        mkdir -p "$home"
        partial=$(mktemp -d "$to.XXXXXX")
        log=$partial.log
        trap 'rm -rf "$partial" "$log"' EXIT
        if ! python3 -m pip --version >/dev/null 2>&1; then
            python3 -m venv "$partial/venv" >/dev/null 2>&1 || die "NVRTC is missing, and python3 has no pip to install it" \
                "(Debian and Ubuntu: apt install python3-pip)"
            python=$partial/venv/bin/python
        fi
        say "installing NVRTC and disassemblers (65 MB, once)"
        "$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
            --target "$partial/packages" --requirement "$list" >"$log" 2>&1 || { cat "$log" >&2; die "pip failed"; }
        # Another shell may have been faster: what it installed is the same.
        mv -T "$partial/packages" "$to" 2>/dev/null || [[ -e $to ]] || die "cannot write $to"
    fi
    printf '%s\n' "$to/nvidia/cu13/lib/libnvrtc.so.13"
}

# The list $2 without what we put there before, behind the list $1.
prepend() {
    local list=$1 rest=${2:+$2:} dir
    while [[ -n $rest ]]; do
        dir=${rest%%:*} rest=${rest#*:}
        [[ $dir == "$home"/* || :$1: == *":$dir:"* ]] || list=$list:$dir
    done
    printf '%s\n' "$list"
}

[[ $(uname -s) == Linux ]] || die "only Linux has a libcuda.so to simulate"
crate=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
manifest=$crate/Cargo.toml
command -v cargo >/dev/null || die "cargo is missing"
target=$(cd "$crate" && cargo metadata --manifest-path "$manifest" --locked --no-deps --format-version 1 |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
[[ -n $target ]] || die "cargo does not tell the build directory"
home=$target/cuda-sim

libraries=
if [[ ${CUDA_SIM:-} != 1 ]] && real_driver; then
    say "the GPU and its driver (CUDA_SIM=1 for the simulated device)"
else
    mkdir -p "$home"
    log=$(mktemp "$home/build.XXXXXX")
    built=$(cd "$crate" && cargo build --manifest-path "$manifest" --release --lib --locked \
        --message-format json-render-diagnostics 2>"$log") || { cat "$log" >&2; rm -f "$log"; die "cargo build failed"; }
    rm -f "$log"
    library=$(sed -n 's/.*"\([^"]*\/libcuda\.so\)".*/\1/p' <<<"$built" | tail -n 1)
    [[ -e $library ]] || die "cargo built no libcuda.so"
    mkdir -p "$home/lib"
    ln -sfn "$library" "$home/lib/libcuda.so"
    ln -sfn "$library" "$home/lib/libcuda.so.1"
    libraries=$home/lib
    # Cargo's own runs look into target/debug before: what a plain build left there may be older.
    rm -f "$target/debug/libcuda.so"
    say "a simulated device"
fi

nvrtc=
include=
given=${CUDA_SIM_NVRTC:-}
if [[ -n $given && ! ($given == "$home"/* && ! -e $given) ]]; then
    [[ -e $given ]] || die "CUDA_SIM_NVRTC=$given: no such file"
    nvrtc=$(cd "$(dirname "$given")" && pwd -P)/${given##*/}
    include=$(headers "$nvrtc") || say "no CUDA headers found for $nvrtc: set CUDA_SIM_INCLUDE for kernels that need them"
else
    while read -r found; do
        if include=$(headers "$found"); then nvrtc=$found; break; fi
    done < <(nvrtcs)
    if [[ -z $nvrtc ]]; then
        nvrtc=$(install)
        include=$(headers "$nvrtc") || die "$nvrtc has no headers"
    fi
fi
# Under its plain name it is found by programs that were built for another CUDA version, too.
mkdir -p "$home/nvrtc"
ln -sfn "$nvrtc" "$home/nvrtc/libnvrtc.so"
libraries=${libraries:+$libraries:}$home/nvrtc
[[ $'\n'$(system_libraries)$'\n' == *$'\n'"$nvrtc"$'\n'* ]] || libraries=$libraries:${nvrtc%/*}
tools=${nvrtc%/*/*}/bin
[[ -x $tools/nvdisasm ]] || tools=

quoted() { printf 'export %s=%q\n' "$1" "$2"; }
quoted LD_LIBRARY_PATH "$(prepend "$libraries" "${LD_LIBRARY_PATH:-}")"
[[ -z $tools ]] || quoted PATH "$(prepend "$tools" "$PATH")"
quoted CUDA_SIM_NVRTC "$nvrtc"
[[ -z $include ]] || quoted CUDA_SIM_INCLUDE "$include"
