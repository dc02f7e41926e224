#!/usr/bin/env python3
"""The jobs of `intervene bench` as an expert would write them in PyTorch, and a check of our numbers against PyTorch's.

    pip install torch torchvision numpy safetensors      # torch.compile also needs g++
    python benches/peers/torch_ce.py sweep --model vgg16 --tap 13 --images 2 --threads 2     # one JSON line a variant
    python benches/peers/torch_ce.py --check runs/ce-... --data DIR   # effects.csv of `ce --effects csv` against PyTorch's

Jobs, all in inference mode but the trainings, the normalisation part of the net, classes and effects as `intervene` has them:
  sweep     E1 of every node on every image: front and code once, the nodes folded into the batch (the strong baseline)
  naive     the same, the whole net once more for every node, as a notebook would
  forward   plain inference
  attack    one FGSM step
  train     one Adam step of the whole net (without dropout, which draws other numbers everywhere)
  train-ae  one Adam step of the autoencoder at the tap, with the losses of src/train/autoencoder.rs
  start     nothing but the first answer of one image: the time is from the start of the process to the line it prints

A job has variants: eager in both memory formats, several block sizes, torch.compile with frozen weights. The fastest is
PyTorch's best, and what is compared. `--serve` speaks the protocol of `intervene bench compare` (benches/README.md).
"""

import argparse
import csv
import gzip
import json
import os
import pathlib
import shutil
import statistics
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

from protocol import Wire, peak_bytes, seconds, versions

FASHION = [0.2860], [0.3530]
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
ROOT = pathlib.Path(__file__).resolve().parents[2]
HIDDEN = 32
EPS = 0.3
LEARNING_RATE = 1e-3
# L = 0.1 interpretability + 0.5 shallow + 0.4 deep
LOSS_WEIGHTS = 0.1, 0.5, 0.4
JOBS = ["sweep", "naive", "forward", "attack", "train", "train-ae", "start"]


class Fashion(nn.Module):
    """The paper's small net, with torchvision's names."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(),
                                      nn.MaxPool2d(2))
        self.classifier = nn.Sequential(nn.Linear(1600, 256), nn.ReLU(), nn.Linear(256, 10))


def tensors(file):
    """Of a safetensors file, mapped."""
    from safetensors.torch import load_file

    return load_file(str(file))


def bare(arch):
    if arch == "fashion":
        return Fashion()
    import torchvision

    return getattr(torchvision.models, arch)(weights=None)


def autoencoder(channels, nodes, relu_out):
    def conv(i, o, k):
        return nn.Conv2d(i, o, k, padding=k // 2)

    encoder = nn.Sequential(conv(channels, HIDDEN, 3), nn.ReLU(), conv(HIDDEN, HIDDEN, 3), nn.ReLU(),
                            conv(HIDDEN, nodes, 1), nn.ReLU())
    decoder = nn.Sequential(conv(nodes, HIDDEN, 3), nn.ReLU(), conv(HIDDEN, channels, 3),
                            *([nn.ReLU()] if relu_out else []))
    return encoder, decoder


AE_KEYS = {"enc1": (0, 0), "enc2": (0, 2), "code": (0, 4), "dec1": (1, 0), "dec2": (1, 2)}


class Normalise(nn.Module):
    def __init__(self, arch):
        super().__init__()
        for name, values in zip(("mean", "std"), FASHION if arch == "fashion" else IMAGENET):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1))

    def forward(self, x):
        return (x - self.mean) / self.std


class Net:
    """A net cut behind `tap` children of `features`: front (with the normalisation), tail, and an autoencoder there."""

    def __init__(self, arch, tap, nodes, weights=None, ae=None, dtype=torch.float32, layout=torch.channels_last):
        state = {}
        for file in filter(None, (weights, ae)):
            state.update(tensors(file))
        # without a file the weights are torch's own random ones; with one, none are made only to be thrown away
        with torch.device("meta" if state else "cpu"):
            host = bare(arch)
        if state:
            for key in host.state_dict():
                if key.endswith("num_batches_tracked"):  # nothing reads it
                    state.setdefault(key, torch.zeros((), dtype=torch.long))
            host.load_state_dict({k: v for k, v in state.items() if not k.startswith("ae.")}, assign=True)
        children = list(host.features.children())
        relu_out = isinstance(children[tap - 1], nn.ReLU)
        if tap < len(children) and isinstance(children[tap], nn.ReLU):
            children[tap] = nn.ReLU()  # in place it would write into the tap, which the autoencoder reads too
        if arch.startswith("densenet"):
            head = [nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), host.classifier]
        else:
            head = [*([host.avgpool] if hasattr(host, "avgpool") else []), nn.Flatten(), host.classifier]
        self.front = nn.Sequential(Normalise(arch), *children[:tap])
        self.tail = nn.Sequential(*children[tap:], *head)
        self.front.eval()
        with torch.no_grad():
            channels = self.front(torch.zeros(1, 1 if arch == "fashion" else 3, 64, 64)).shape[1]
        self.encoder, self.decoder = coder = autoencoder(channels, nodes, relu_out)
        for name, (part, layer) in AE_KEYS.items():
            for kind in ("weight", "bias"):
                if f"ae.{name}.{kind}" in state:
                    getattr(coder[part][layer], kind).data = state[f"ae.{name}.{kind}"]
        for module in self.modules():
            module.eval().to(dtype=dtype, memory_format=layout).requires_grad_(False)

    def modules(self):
        return self.front, self.tail, self.encoder, self.decoder

    def host(self):
        return nn.Sequential(self.front, self.tail)


def weighted_effects(idle, done):
    """E1 of rows of logits, in f64."""
    p, q = (torch.softmax(logits.double(), -1) for logits in (idle, done))
    return (p * (q - p)).sum(-1)


def without(code, nodes):
    """The code with one node at 0 a row: node-major rows."""
    rows = code.unsqueeze(0).repeat(nodes, 1, 1, 1, 1)
    rows[torch.arange(nodes), :, torch.arange(nodes)] = 0
    return rows.flatten(0, 1).contiguous(memory_format=torch.channels_last)


def sweep(code_of, answer, x, rows, nodes):
    """Images x nodes; `rows` variants at a time go through decoder and tail."""
    out = []
    for part in x.split(max(1, rows // nodes)):
        code = code_of(part)
        done = torch.cat([answer(v) for v in without(code, nodes).split(rows)]).view(nodes, len(part), -1)
        out.append(weighted_effects(answer(code), done).T)
    return torch.cat(out)


def naive(code_of, answer, x, nodes):
    idle, effects = answer(code_of(x)), []
    for node in range(nodes):
        code = code_of(x).clone()
        code[:, node] = 0
        effects.append(weighted_effects(idle, answer(code)))
    return torch.stack(effects, 1)


def ae_loss(front, decoded, code, logits_orig, logits_ae):
    """0.1 (mean |z| + TV(z)) + 0.5 mean |F - D(E(F))| + 0.4 KL(p_orig || p_ae): means over images."""
    li, ls, ld = LOSS_WEIGHTS
    down, right = (code[:, :, 1:] - code[:, :, :-1]).abs().sum(), (code[..., 1:] - code[..., :-1]).abs().sum()
    interpretability = code.abs().mean() + (down + right) / code.numel()
    shallow = (front - decoded).abs().mean()
    deep = F.kl_div(torch.log_softmax(logits_ae, 1), torch.log_softmax(logits_orig, 1), reduction="batchmean",
                    log_target=True)
    return li * interpretability + ls * shallow + ld * deep


class Work:
    """A job on its inputs, in any of its variants."""

    def __init__(self, a):
        self.a = a
        self.size = a.size or (28 if a.model == "fashion" else 224)
        if a.inputs:
            inputs = tensors(a.inputs)
            self.x, self.labels = inputs["x"], inputs["labels"]
        else:
            torch.manual_seed(0)
            self.x = torch.rand(a.images, 1 if a.model == "fashion" else 3, self.size, self.size)
            self.labels = torch.randint(0, 10 if a.model == "fashion" else 1000, (a.images,))

    def variants(self):
        """Names, those to be compiled last, and why others are not run."""
        names = {"sweep": [f"eager rows {r}" for r in self.rows()], "naive": ["naive"], "start": ["eager"]}
        names = names.get(self.a.job, ["eager", "eager nchw"])
        if self.a.job == "sweep" and not self.a.blocks:
            names.append("naive")
        if not self.a.compile or self.a.job == "start":
            return names, {}
        if not (shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")):
            return names, {"compile": "torch.compile needs a C++ compiler, and there is no g++"}
        return [*names, "compile"], {}

    def rows(self):
        """Block sizes of a sweep: its speed moves by 1.6 with them."""
        if self.a.blocks:
            return self.a.blocks
        every = len(self.x) * self.a.nodes
        return [r for r in (4, 16, 80, 400, 1024) if r < every] + [every] if every <= 64 else [80, 400, 1024]

    def net(self, layout=torch.channels_last):
        return Net(self.a.model, self.a.tap, self.a.nodes, self.a.weights, layout=layout)

    def prepare(self, variant):
        """The job as a function without arguments."""
        words = variant.split()
        compiled, job = words[0] == "compile", self.a.job
        layout = torch.contiguous_format if "nchw" in words else torch.channels_last
        net = self.net(layout)
        x = self.x.contiguous(memory_format=layout)
        make = (lambda f: torch.compile(f, dynamic=False)) if compiled else (lambda f: f)
        if compiled:
            torch._dynamo.reset()  # what was compiled before must not make this one a general one
            torch._inductor.config.freezing = True  # weights as constants, packed: of no effect where gradients are kept
        # inference tensors are not for the compiler's tracing
        quiet = torch.no_grad if compiled else torch.inference_mode
        if job in ("sweep", "naive"):
            code_of = make(nn.Sequential(net.front, net.encoder))
            answer = make(nn.Sequential(net.decoder, net.tail))
            if "rows" in words:
                rows = int(words[-1])
                return quiet()(lambda: sweep(code_of, answer, x, rows, self.a.nodes))
            return quiet()(lambda: naive(code_of, answer, x, self.a.nodes))
        if job in ("forward", "start"):
            host = make(net.host())
            return quiet()(lambda: host(x))
        if job == "attack":
            return self.attack(net.host(), x, make)
        return self.train_ae(net, x, make) if job == "train-ae" else self.train(net, x, make)

    def attack(self, host, x, make):
        loss = make(lambda z: F.cross_entropy(host(z), self.labels, reduction="sum"))

        def step():
            z = x.detach().clone(memory_format=torch.preserve_format).requires_grad_(True)
            gradient, = torch.autograd.grad(loss(z), z)
            return (x + EPS * gradient.sign()).clamp_(0, 1)

        return step

    def train(self, net, x, make):
        host = net.host().requires_grad_(True).train()
        for module in host.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        return optimise(host.parameters(), make(lambda: F.cross_entropy(host(x), self.labels)))

    def train_ae(self, net, x, make):
        encoder, decoder = (m.requires_grad_(True) for m in (net.encoder, net.decoder))

        def loss():
            with torch.no_grad():
                front = net.front(x)
                orig = net.tail(front)
            code = encoder(front)
            decoded = decoder(code)
            return ae_loss(front, decoded, code, orig, net.tail(decoded))

        return optimise([*encoder.parameters(), *decoder.parameters()], make(loss))


def optimise(parameters, loss):
    adam = torch.optim.Adam(list(parameters), lr=LEARNING_RATE, fused=True)

    def step():
        adam.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        adam.step()
        return value.detach()

    return step


def best_of(job):
    """The least of up to five runs, as long as they take two seconds together."""
    times = []
    while len(times) < 5 and sum(times) < 2:
        times.append(seconds(job)[0])
    return min(times)


def choose(work):
    """Seconds of every variant that runs, and why others do not; a compiled sweep takes the best block size."""
    names, not_run = work.variants()
    tried = {}
    for name in names:
        if name == "compile" and work.a.job in ("sweep", "naive"):
            best = min((n for n in tried if "rows" in n), key=tried.get, default="naive")
            name = best.replace("eager", "compile") if "rows" in best else "compile naive"
        try:
            job = work.prepare(name)
            first, _ = seconds(job)
            # what is twice as slow as the best even after it warmed up will not win
            hopeless = tried and "compile" not in name and first > 3 * min(tried.values())
            tried[name] = first if hopeless else best_of(job)
        except Exception as e:  # a variant that this build of torch cannot run is no reason to run none
            not_run[name] = f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"
        del job
    return tried, not_run


def save(result, tensor):
    from safetensors.torch import save_file

    save_file({"result": tensor.detach().contiguous().double()}, str(result))


def serve(a):
    wire = Wire()
    torch.set_num_threads(a.threads)
    work = Work(a)
    if a.job == "start":
        variant, trained = "eager", []
        job = work.prepare(variant)
        last = job()
        best = int(last[0].argmax())
        wire.say(ready=True, variant=variant, versions=versions("torch", "torchvision", "numpy"), first={"class": best, "logit": float(last[0, best])})
    else:
        tried, not_run = ({}, {}) if a.variant else choose(work)
        variant = a.variant or min(tried, key=tried.get, default=None)
        if variant is None:
            raise SystemExit(f"no variant of {a.job} runs: {not_run}")
        job = work.prepare(variant)
        # warm-up; of a training also the loss before its first step and after it
        trained = [job() for _ in range(2)]
        last = trained[0]
        wire.say(ready=True, variant=variant, tried=tried, not_run=not_run, versions=versions("torch", "torchvision", "numpy"))
    again = wire.serve(job)
    last = last if again is None else again
    peak = peak_bytes()
    if a.result:
        save(a.result, torch.stack(trained) if a.job.startswith("train") else last)
    wire.say(peak_bytes=peak, variant=variant, result=a.result)


def bench(a):
    torch.set_num_threads(a.threads)
    work = Work(a)
    names, not_run = work.variants()
    for name in names:
        if name == "compile" and a.job == "sweep":
            name = f"compile rows {work.rows()[-1]}"
        job = work.prepare(name)
        job()
        times = sorted(seconds(job)[0] for _ in range(a.repeats))
        print(json.dumps({"peer": f"torch {torch.__version__}", "job": a.job, "variant": name, "model": a.model,
                          "tap": a.tap, "images": len(work.x), "nodes": a.nodes, "threads": a.threads, "device": "cpu",
                          "seconds_median": round(statistics.median(times), 5), "seconds_min": round(times[0], 5)}),
              flush=True)
    for name, why in not_run.items():
        print(f"{name} not run: {why}", file=sys.stderr)


def check(a):
    """Our clean-input effects (ece_node) against PyTorch's in float64 and float32, with the bundled weights."""
    import numpy as np

    raw = gzip.open(pathlib.Path(a.data) / "t10k-images-idx3-ubyte.gz").read()[16:]
    rows = [r for r in csv.DictReader(open(pathlib.Path(a.check) / "effects.csv")) if r["input"] == "none"]
    ids = sorted({int(r["image_id"]) for r in rows})[:a.images]
    images = np.frombuffer(raw, np.uint8).reshape(-1, 1, 28, 28)[ids].astype(np.float32) / 255
    ours = np.zeros((len(ids), 16))
    place = {image: i for i, image in enumerate(ids)}
    for r in rows:
        if int(r["image_id"]) in place:
            ours[place[int(r["image_id"])], int(r["node"].rsplit("ch", 1)[1])] = float(r["ece_node"])
    worst = 0.0
    for dtype in (torch.float64, torch.float32):
        net = Net("fashion", 2, 16, a.weights or ROOT / "weights" / "fashion.safetensors",
                  a.ae or ROOT / "weights" / "fashion-ae.safetensors", dtype=dtype)
        code_of, answer = nn.Sequential(net.front, net.encoder), nn.Sequential(net.decoder, net.tail)
        with torch.inference_mode():
            theirs = sweep(code_of, answer, torch.from_numpy(images).to(dtype), 400, 16).numpy()
        difference, largest = np.abs(ours - theirs).max(), np.abs(theirs).max()
        print(f"{dtype}: {len(ids)} images x 16 nodes, largest |effect| {largest:.4f}, largest difference {difference:.3e}")
        worst = max(worst, difference / largest)
    ok = bool(worst <= 1e-4)
    print("ok" if ok else "DIFFERS", f"(tolerance 1e-4 of the largest effect, used {worst / 1e-4:.3f} of it)")
    raise SystemExit(0 if ok else 1)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("job", nargs="?", choices=JOBS, default="sweep")
    p.add_argument("--model", default="fashion", choices=["fashion", "vgg16", "vgg19", "densenet121"])
    p.add_argument("--tap", type=int, default=2)
    p.add_argument("--images", type=int, default=256)
    p.add_argument("--nodes", type=int, default=16)
    p.add_argument("--size", type=int, help="side of an image; default 224, of fashion 28")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--blocks", type=int, nargs="+", help="sweep: rows that go through the tail at a time; the best counts")
    p.add_argument("--compile", action="store_true", help="torch.compile with frozen weights, too")
    p.add_argument("--weights", help="safetensors with torchvision's keys and the autoencoder's ae.*; default: random")
    p.add_argument("--ae", help="a file of the autoencoder's own (for --check)")
    p.add_argument("--inputs", help="safetensors: x (N,C,H,W in [0, 1]) and labels; default: random")
    p.add_argument("--serve", action="store_true", help="run on request, line by line (benches/README.md)")
    p.add_argument("--variant", help="with --serve: this one alone; default: the fastest")
    p.add_argument("--result", help="with --serve: where the job's result goes")
    p.add_argument("--check", metavar="RUN", help="a run directory of `intervene ce` or `reproduce fashion`")
    p.add_argument("--data", help="directory with t10k-images-idx3-ubyte.gz (for --check)")
    return p.parse_args()


def main():
    a = arguments()
    check(a) if a.check else serve(a) if a.serve else bench(a)


if __name__ == "__main__":
    main()
