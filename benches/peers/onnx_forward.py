#!/usr/bin/env python3
"""Plain inference in ONNX Runtime, of a network of torchvision's that PyTorch exports: a peer of `intervene bench compare`.

    pip install onnxruntime onnx onnxscript torch torchvision numpy safetensors
    intervene bench compare --peer onnxruntime

The export runs in a process of its own, so that the memory that is measured is ONNX Runtime's alone.
"""

import argparse
import os
import subprocess
import sys
import tempfile

from protocol import Wire, peak_bytes, versions


def export(a):
    """The network with its normalisation, for the inputs' shape."""
    import torch

    import torch_ce

    net = torch_ce.Net(a.model, a.tap, a.nodes, a.weights, layout=torch.contiguous_format)
    x = torch_ce.tensors(a.inputs)["x"]
    torch.onnx.export(net.host(), (x,), a.export, input_names=["x"], output_names=["logits"])


def serve(a):
    wire = Wire()
    import numpy as np
    import onnxruntime
    from safetensors.numpy import load_file, save_file

    x = load_file(a.inputs)["x"]
    with tempfile.TemporaryDirectory() as directory:
        file = os.path.join(directory, "net.onnx")
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--export", file], check=True, stdout=sys.stderr)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = a.threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    run = lambda: session.run(None, {"x": x})[0]
    last = [run() for _ in range(2)][-1]  # warm-up
    wire.say(ready=True, variant="CPUExecutionProvider", versions=versions("onnxruntime", "numpy"))
    again = wire.serve(run)
    last = last if again is None else again
    peak = peak_bytes()
    if a.result:
        save_file({"result": last.astype(np.float64)}, a.result)
    wire.say(peak_bytes=peak, variant="CPUExecutionProvider", result=a.result)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("job", choices=["forward"])
    p.add_argument("--model", default="vgg16")
    p.add_argument("--tap", type=int, default=13)
    p.add_argument("--nodes", type=int, default=16)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--weights", required=True)
    p.add_argument("--inputs", required=True)
    p.add_argument("--serve", action="store_true", help="the one thing that it does")
    p.add_argument("--variant", help="there is one alone")
    p.add_argument("--compile", action="store_true", help="it always is")
    p.add_argument("--result", help="where the logits go")
    p.add_argument("--export", help="writes the network to this file, and does no more")
    a = p.parse_args()
    export(a) if a.export else serve(a)


if __name__ == "__main__":
    main()
