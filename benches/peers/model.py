"""The whole model in PyTorch, stage by stage: python model.py [--preset x2-672] [--device cpu] [--dtype f32] [--mode infer|train].

Random weights at full size. Prints one JSON line: seconds per stage, peak resident memory. --released repeats
what the released code does and we do not: keys and values of the image recomputed for every token. --compile runs the
vision tower and the language model, or the training step, through torch.compile; --repeat then needs to be above 1, so
that the compilation is in the warm-up.
"""
import argparse
import json
import os
import resource
import statistics
import sys
import time

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden"))
import pheye_torch as pt

PRESETS = {f"x{i}-{r}": (l, i) for i in (2, 4) for r, l in ((224, 1), (448, 2), (672, 3))}


def build(level, interval, dtype, device):
    for m in (torch.nn.Linear, torch.nn.Embedding, torch.nn.Conv2d):
        m.reset_parameters = lambda self: None
    torch.nn.init.normal_ = lambda t, **_: t
    c = pt.PheyeConfig(level=level, cross_interval=interval, local_rank=8, local_alpha=16)
    with torch.device(device):
        torch.set_default_dtype(dtype)
        model = pt.PheyeTorch(c)
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(-0.02, 0.02)
    return model


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--preset", default="x2-672", choices=PRESETS)
    ap.add_argument("--device", default="cpu")
    ap.add_argument("--dtype", default="f32", choices=("f32", "bf16"))
    ap.add_argument("--mode", default="infer", choices=("infer", "train"))
    ap.add_argument("--prompt", type=int, default=65)
    ap.add_argument("--new", type=int, default=16)
    ap.add_argument("--batch", type=int, default=1)
    ap.add_argument("--repeat", type=int, default=1)
    ap.add_argument("--released", action="store_true")
    ap.add_argument("--compile", action="store_true")
    a = ap.parse_args()
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[a.dtype]
    level, interval = PRESETS[a.preset]
    m = build(level, interval, dtype, a.device)
    sync = torch.cuda.synchronize if a.device.startswith("cuda") else (lambda: None)
    g = torch.randn(a.batch, 3, 224, 224, device=a.device, dtype=dtype)
    l = torch.randn(a.batch * level**2, 3, 224, 224, device=a.device, dtype=dtype) if level > 1 else None
    ids = torch.randint(5, 50000, (a.batch, a.prompt), device=a.device)
    out = {"preset": a.preset, "device": a.device, "dtype": a.dtype, "mode": a.mode, "batch": a.batch, "compile": a.compile, "threads": torch.get_num_threads()}

    def timed(f):
        sync()
        t = time.perf_counter()
        r = f()
        sync()
        return time.perf_counter() - t, r

    wrap = torch.compile if a.compile else (lambda f, **_: f)
    loss, encode = wrap(m.loss_sum), wrap(m.vision_encoder)
    # A decoding step has one key more each time.
    language = wrap(m.lang_encoder, dynamic=True)

    rows = []
    for _ in range(a.repeat + (a.repeat > 1)):
        row = {}
        if a.mode == "train":
            m.train()
            row["step"], _ = timed(lambda: loss(g, l, ids, ids)[0].backward())
            for p in m.parameters():
                p.grad = None
        else:
            m.eval()
            with torch.no_grad():
                lm = m.lang_encoder
                row["encode"], media = timed(lambda: encode(g, l))
                row["cross_kv"], kvs = timed(lambda: lm.cross_kv(media))
                cache = [{} for _ in lm.old_decoder_blocks]
                row["prefill"], logits = timed(lambda: language(ids, kvs, cache=cache, last_only=True))
                steps = []
                for _ in range(a.new):
                    def step():
                        k = lm.cross_kv(media) if a.released else kvs
                        return language(logits[:, -1].argmax(-1, keepdim=True), k, cache=cache)
                    s, logits = timed(step)
                    steps.append(s)
                row["decode_token"] = statistics.median(steps)
        rows.append(row)
    rows = rows[1:] if a.repeat > 1 else rows
    out.update({k: statistics.median(r[k] for r in rows) for k in rows[0]})
    out["peak_rss_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if a.device.startswith("cuda"):
        out["peak_gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
    print(json.dumps(out))


if __name__ == "__main__":
    main()
