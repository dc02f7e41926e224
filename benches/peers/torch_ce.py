#!/usr/bin/env python3
"""The jobs of `intervene bench` as an expert would write them in PyTorch, and a check of our numbers against PyTorch's.

    pip install torch numpy safetensors
    python benches/peers/torch_ce.py --images 256 --threads 2            # one JSON line a job
    python benches/peers/torch_ce.py --check runs/ce-...  --data DIR     # effects.csv of `ce --effects csv` against PyTorch's

Jobs: `sweep` is the strong baseline (front and code once, the nodes folded into the batch, best of several block sizes),
`forward` plain inference, `attack` one FGSM step, `train` one Adam step on a batch of 100. Channels-last, inference mode,
one warm-up, median and minimum of the repeats: the same protocol as `intervene bench`.
"""

import argparse
import csv
import gzip
import json
import pathlib
import statistics
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

TAP = 2
MEAN, STD = 0.2860, 0.3530
ROOT = pathlib.Path(__file__).resolve().parents[2]


def host():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1600, 256), nn.ReLU(), nn.Linear(256, 10))


def autoencoder(channels=32, hidden=32, nodes=16):
    def conv(i, o, k):
        return nn.Conv2d(i, o, k, padding=k // 2)

    encoder = nn.Sequential(conv(channels, hidden, 3), nn.ReLU(), conv(hidden, hidden, 3), nn.ReLU(),
                            conv(hidden, nodes, 1), nn.ReLU())
    decoder = nn.Sequential(conv(nodes, hidden, 3), nn.ReLU(), conv(hidden, channels, 3), nn.ReLU())
    return encoder, decoder


def load(net, encoder, decoder, weights, ae):
    """Our weights, by torchvision's keys, into the plain modules above."""
    from safetensors.numpy import load_file

    places = {"features.0": net[0], "features.3": net[3], "classifier.0": net[7], "classifier.2": net[9],
              "ae.enc1": encoder[0], "ae.enc2": encoder[2], "ae.code": encoder[4], "ae.dec1": decoder[0],
              "ae.dec2": decoder[2]}
    for file in (weights, ae):
        for key, value in load_file(str(file)).items():
            module, kind = key.rsplit(".", 1)
            getattr(places[module], kind).data.copy_(torch.from_numpy(value))


def timed(job, repeats):
    job()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), min(seconds)


class Sweep:
    def __init__(self, net, encoder, decoder):
        self.front, self.tail, self.encoder, self.decoder = net[:TAP], net[TAP:], encoder, decoder

    @torch.inference_mode()
    def effects(self, x, block, nodes=16):
        """E1 of every node: images x nodes; x is normalised."""
        out = []
        for part in x.split(block):
            code = self.encoder(self.front(part))
            p = torch.softmax(self.tail(self.decoder(code)).double(), 1)
            rows = code.unsqueeze(0).repeat(nodes, 1, 1, 1, 1)
            rows[torch.arange(nodes), :, torch.arange(nodes)] = 0
            rows = rows.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            q = torch.softmax(self.tail(self.decoder(rows)).double(), 1).view(nodes, len(part), -1)
            out.append((p * (q - p)).sum(-1).T)
        return torch.cat(out)


def bench(a):
    torch.manual_seed(0)
    torch.set_num_threads(a.threads)
    last = torch.channels_last
    net = host().eval().to(memory_format=last)
    encoder, decoder = (m.eval().to(memory_format=last) for m in autoencoder())
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    pixels = torch.rand(a.images, 1, 28, 28)
    x = pixels.contiguous(memory_format=last)
    sweep = Sweep(net, encoder, decoder)

    @torch.inference_mode()
    def forward():
        net((x - MEAN) / STD)

    def attack():
        z = pixels.clone().requires_grad_(True)
        logits = net((z - MEAN) / STD)
        gradient, = torch.autograd.grad(F.cross_entropy(logits, logits.argmax(1), reduction="sum"), z)
        (pixels + 0.3 * gradient.sign()).clamp_(0, 1)

    trained = host()
    optimizer = torch.optim.Adam(trained.parameters(), lr=1e-3)
    batch, labels = torch.rand(100, 1, 28, 28), torch.randint(0, 10, (100,))

    def train():
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(trained((batch - MEAN) / STD), labels).backward()
        optimizer.step()

    for job in a.jobs.split(","):
        extra = {}
        if job == "sweep":
            # the peer's best over block sizes: its speed moves by 1.6 with it
            found = {b: timed(lambda: sweep.effects(x, b), a.repeats) for b in a.blocks}
            best = min(found, key=lambda b: found[b][0])
            (median, low), extra = found[best], {"block": best}
        else:
            median, low = timed({"forward": forward, "attack": attack, "train": train}[job], a.repeats)
        print(json.dumps({"peer": f"torch {torch.__version__}", "job": job, "model": "fashion", "tap": TAP,
                          "images": 100 if job == "train" else a.images, "nodes": 16, "threads": a.threads,
                          "device": "cpu", "seconds_median": round(median, 5), "seconds_min": round(low, 5), **extra}),
              flush=True)


def check(a):
    """Our clean-input effects (ece_node) against PyTorch's in float64 and float32, with the bundled weights."""
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
        net, (encoder, decoder) = host(), autoencoder()
        load(net, encoder, decoder, a.weights, a.ae)
        modules = [m.eval().to(dtype) for m in (net, encoder, decoder)]
        theirs = Sweep(*modules).effects((torch.from_numpy(images).to(dtype) - MEAN) / STD, 25).numpy()
        difference, largest = np.abs(ours - theirs).max(), np.abs(theirs).max()
        print(f"{dtype}: {len(ids)} images x 16 nodes, largest |effect| {largest:.4f}, largest difference {difference:.3e}")
        worst = max(worst, difference / largest)
    ok = bool(worst <= 1e-4)
    print("ok" if ok else "DIFFERS", f"(tolerance 1e-4 of the largest effect, used {worst / 1e-4:.3f} of it)")
    raise SystemExit(0 if ok else 1)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--images", type=int, default=256)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--jobs", default="sweep,forward,attack,train")
    p.add_argument("--blocks", type=int, nargs="+", default=[5, 25, 64])
    p.add_argument("--check", metavar="RUN", help="a run directory of `intervene ce` or `reproduce fashion`")
    p.add_argument("--data", help="directory with t10k-images-idx3-ubyte.gz (for --check)")
    p.add_argument("--weights", default=ROOT / "weights" / "fashion.safetensors")
    p.add_argument("--ae", default=ROOT / "weights" / "fashion-ae.safetensors")
    a = p.parse_args()
    check(a) if a.check else bench(a)


if __name__ == "__main__":
    main()
