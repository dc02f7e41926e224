#!/usr/bin/env python3
"""Compiles kernels.py to the PTX beside it, and launches.json, which says how each is launched.

No GPU is needed:  pip install triton==3.9.0 && python tests/cuda-sim/tests/triton/make.py
The output is committed, so that the tests need neither Triton nor Python.
"""

import json
import linecache
import os
import re
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[3]
NAME = str((HERE / "kernels.py").relative_to(ROOT))


def kernels():
    """The module, compiled under its path in the repository: this name goes into the line information."""
    text = (HERE / "kernels.py").read_text()
    linecache.cache[NAME] = (len(text), None, text.splitlines(True), NAME)
    names = {"__name__": "kernels", "__file__": NAME}
    exec(compile(text, NAME, "exec"), names)
    return names


def build(kernel, variant, types, constants, **options):
    """`types` of the run-time arguments in order; a pointer (`*fp32`) and a number like `i32*` are multiples of 16."""
    signature, attrs = {}, {}
    run_time = iter(types.split())
    for i, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        kind = next(run_time)
        if kind.startswith("*") or kind.endswith("*"):
            attrs[(i,)] = [["tt.divisibility", 16]]
        signature[name] = kind.rstrip("*") if not kind.startswith("*") else kind
    source = ASTSource(kernel, signature, constants, attrs)
    compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"enable_fp_fusion": True, **options})
    ptx = compiled.asm["ptx"]
    assert str(ROOT) not in ptx
    (HERE / f"{variant}.ptx").write_text(ptx)
    entry = ptx[ptx.index(".entry"):ptx.index("\n{")]
    params = re.findall(r"\.param \.(\w+)", entry)
    arguments = [n for n, kind in signature.items() if kind != "constexpr"]
    # Triton appends pointers to scratch memory, which these kernels do not use.
    hidden = [f"scratch{i}" for i in range(len(params) - len(arguments))]
    assert compiled.metadata.global_scratch_size == 0 and compiled.metadata.profile_scratch_size == 0
    return {
        "file": f"{variant}.ptx",
        "kernel": compiled.metadata.name,
        "params": [f"{name}: {kind}" for name, kind in zip(arguments + hidden, params)],
        "threads": 32 * compiled.metadata.num_warps,
        "dynamic_shared": compiled.metadata.shared,
        "constants": constants,
    }


def main():
    os.chdir(ROOT)
    k = kernels()
    tile = {"BLOCK_SIZE_M": 64, "BLOCK_SIZE_N": 64, "BLOCK_SIZE_K": 32, "GROUP_SIZE_M": 8, "stride_ak": 1, "stride_bn": 1,
            "stride_cn": 1}
    sizes = "i32 i32 i32* i32* i32* i32*"  # M, N, K and the row strides
    launches = {"triton": triton.__version__, "kernels": [
        build(k["add"], "add", "*fp32 *fp32 *fp32 i32*", {"BLOCK_SIZE": 1024}),
        build(k["softmax"], "softmax", "*fp32 *fp32 i32 i32 i32 i32", {"BLOCK_SIZE": 256, "num_stages": 2}),
        build(k["layer_norm"], "layer_norm", "*fp16 *fp16 *fp32 *fp32 *fp32 *fp32 i32 i32 fp32", {"BLOCK_SIZE": 128}),
        build(k["matmul"], "matmul_tf32", f"*fp32 *fp32 *fp32 {sizes}", tile, num_warps=4, num_stages=3),
        build(k["matmul"], "matmul_fp16", "*fp16 *fp16 *fp16 i32 i32* i32* i32* i32* i32*", tile, num_warps=4, num_stages=3),
        build(k["matmul"], "matmul_bf16", f"*bf16 *bf16 *fp32 {sizes}", tile, num_warps=4, num_stages=3),
        build(k["attention"], "attention", "*fp16 *fp16 *fp16 *fp16 fp32 i32",
              {"HEAD_DIM": 64, "BLOCK_M": 64, "BLOCK_N": 32, "CAUSAL": True}, num_warps=4, num_stages=2),
        build(k["reduce"], "reduce", "*i32 *i32 *i32 *i32 *i32 *i32 i32", {"BLOCK_SIZE": 256}),
        build(k["dropout"], "dropout", "*fp32 *fp32 i32 fp32 i32", {"BLOCK_SIZE": 512}),
    ]}
    (HERE / "launches.json").write_text(json.dumps(launches, indent=1) + "\n")


main()
