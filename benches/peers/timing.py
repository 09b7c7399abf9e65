"""What the rivals share: rows from shapes.json, the clock, and one JSON line a row.

The rules are those of benches/common: random inputs, caches written before each run, a warm-up, the median. On a GPU the time
is that between two CUDA events around the replay of a graph.
"""
import argparse
import json
import os
import re
import statistics
import sys
import time

import torch
import torch._functorch.config

# A compiled backward is run again and again here.
torch._functorch.config.donated_buffer = False

HERE = os.path.dirname(os.path.abspath(__file__))
CACHES = 256 << 20


class Peers:
    def __init__(self, family):
        ap = argparse.ArgumentParser()
        ap.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
        ap.add_argument("--out", help="file to add lines to; otherwise they are printed")
        ap.add_argument("--shapes", default=os.path.join(HERE, "..", "shapes.json"))
        ap.add_argument("--seconds", type=float, default=0.5, help="spent on each row")
        ap.add_argument("--only", default="", help="rows whose name matches this regular expression somewhere")
        self.args = ap.parse_args()
        self.family = family
        self.device = self.args.device
        self.cuda = self.device.startswith("cuda")
        if self.cuda and not torch.cuda.is_available():
            sys.exit("error: torch sees no CUDA device")
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        self.cold = torch.ones(CACHES // 8, dtype=torch.int64, device=self.device)
        self.stream = torch.cuda.Stream() if self.cuda else None

    def rows(self):
        """The rows of this family for the device: on the CPU those with a `cpu` entry, changed as it says, and those only for it."""
        with open(self.args.shapes) as f:
            rows = json.load(f)[self.family]
        if self.cuda:
            return [r for r in rows if "only" not in r]
        return [{**r, **r["cpu"]} for r in rows if "cpu" in r]

    def random(self, *shape, scale=1.0, dtype=None):
        t = torch.empty(*shape, device=self.device, dtype=torch.float32).uniform_(-scale, scale)
        return t.to(dtype or self.dtype)

    def wanted(self, *name):
        return re.search(self.args.only, " ".join(map(str, name))) is not None

    def row(self, op, shape, direction, backend, make):
        """Times make(), a function without arguments; a rival that cannot run this row is left out with its reason."""
        if not self.wanted(op, shape, direction, backend):
            return
        try:
            times = self.times(make())
        except Exception as e:  # a rival may refuse a shape, a device or a mode
            reason = str(e).strip().splitlines() or [type(e).__name__]
            print(f"left out: {op} {shape} {direction} {backend}: {reason[0][:160]}", file=sys.stderr)
            return
        self.write(op, shape, direction, backend, median_us=statistics.median(times), min_us=min(times),
                   max_us=max(times), runs=len(times))

    def write(self, op, shape, direction, backend, **values):
        dtype = "bf16" if self.cuda else "f32"
        line = {"family": self.family, "op": op, "shape": shape, "dtype": dtype, "direction": direction,
                "backend": backend, "device": self.device, **values}
        text = json.dumps(line)
        if self.args.out:
            with open(self.args.out, "a") as f:
                f.write(text + "\n")
        if "median_us" in values:
            print(f"{op} {shape} {direction} {backend}: {values['median_us']:.1f} us", file=sys.stderr)
        if not self.args.out:
            print(text, flush=True)

    def times(self, run):
        """Microseconds of each run, at least ten."""
        return self.gpu_times(run) if self.cuda else self.cpu_times(run)

    def cpu_times(self, run):
        run(), run()
        times, end = [], time.perf_counter() + self.args.seconds
        while len(times) < 10 or (time.perf_counter() < end and len(times) < 200):
            self.cold.add_(1)
            start = time.perf_counter()
            run()
            times.append((time.perf_counter() - start) * 1e6)
        return times

    def gpu_times(self, run):
        # One stream for all: backward runs on the stream of its forward, and a graph records one stream.
        with torch.cuda.stream(self.stream):
            for _ in range(3):
                run()
            torch.cuda.synchronize()
            recorded = torch.cuda.CUDAGraph()
            with torch.cuda.graph(recorded, stream=self.stream):
                run()
            torch.cuda.synchronize()
            times, end = [], time.perf_counter() + self.args.seconds
            while len(times) < 10 or (time.perf_counter() < end and len(times) < 200):
                start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                self.cold.add_(1)
                start.record()
                recorded.replay()
                stop.record()
                stop.synchronize()
                times.append(start.elapsed_time(stop) * 1e3)
        return times

    def on_stream(self, make):
        """Calls `make` on the stream that is timed, where a backward has to find its forward."""
        if not self.cuda:
            return make()
        with torch.cuda.stream(self.stream):
            return make()

    def backward(self, forward, inputs, dy_shape):
        """A function that runs the backward of forward() to `inputs`; results, if several, have one shape."""
        def make():
            y = forward()
            y = y if isinstance(y, tuple) else (y,)
            dy = tuple(self.random(*dy_shape, dtype=y.dtype) for y in y)
            return lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True)
        return self.on_stream(make)

    def done(self):
        """The device's own best in this run: a copy, and a product through its library."""
        m, k, n = (8192,) * 3 if self.cuda else (1024, 2048, 2048)
        a, b = self.random(m, k), self.random(k, n)
        product = min(self.times(lambda: a @ b))
        source = torch.ones((512 << 20) // 8, dtype=torch.int64, device=self.device)
        to = torch.empty_like(source)
        copy = min(self.times(lambda: to.copy_(source)))
        self.write("roofline", "", "", f"torch {torch.__version__}", tflops=2 * m * k * n / product / 1e6,
                   gbps=2 * source.numel() * 8 / copy / 1e3)
