"""Writes the golden data in this folder: each resampler as plain PyTorch, over three images of different lengths.

    pip install torch safetensors
    python crates/resample/tests/data/make.py
"""
import math
import pathlib
import sys

import torch
import torch.nn.functional as F

here = pathlib.Path(__file__).resolve().parent
sys.path.append(str(here.parents[2] / "testkit"))
from golden import around, write  # noqa: E402

WIDTH, QUERIES, TOKENS = 24, 5, 10


def linear(t, name, x):
    y = x @ t[f"{name}.weight"].T
    return y + t[f"{name}.bias"] if f"{name}.bias" in t else y


def norm(t, name, x, eps):
    return F.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], eps)


def attention(q, k, v, heads, stored):
    """softmax(q kT / sqrt(head_dim)) v of one image, for each head."""
    out = []
    for q, k, v in zip(*(x.chunk(heads, -1) for x in (q, k, v))):
        scores = stored(q @ k.T / math.sqrt(q.shape[-1]))
        out.append(stored(scores.softmax(-1)) @ v)
    return stored(torch.cat(out, -1))


def positions(n, like):
    """0 for the class token, then for each cell of the grid its column and its row, each as sines and cosines."""
    side, quarter = math.isqrt(n - 1), WIDTH // 4

    def encode(p):
        angles = [p / 10000 ** (i / quarter) for i in range(quarter)]
        return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]

    rows = [[0.0] * WIDTH] + [encode(column) + encode(row) for row in range(side) for column in range(side)]
    return torch.tensor(rows, dtype=torch.float64).to(like.dtype)


def monkey(heads, lengths):
    def formula(t, stored):
        ys = []
        for x in t["x"].split(lengths):
            h = stored(norm(t, "resampler.ln_q", stored(t["resampler.query"]), 1e-6))
            q = stored(linear(t, "resampler.attn.q_proj", stored(h + stored(positions(QUERIES, h)))))
            h = stored(norm(t, "resampler.ln_kv", x, 1e-6))
            keys = stored(h + stored(positions(TOKENS, h)).repeat(len(x) // TOKENS, 1))
            k = stored(linear(t, "resampler.attn.k_proj", keys))
            v = stored(linear(t, "resampler.attn.v_proj", h))
            ys.append(stored(linear(t, "resampler.attn.out_proj", attention(q, k, v, heads, stored))))
        return torch.stack(ys)

    return formula


def perceiver(depth, heads, lengths):
    def formula(t, stored):
        ys = []
        for x in t["x"].split(lengths):
            y = stored(t["resampler.latents"])
            for i in range(depth):
                attn, ff = f"resampler.layers.{i}.0", f"resampler.layers.{i}.1"
                h = stored(norm(t, f"{attn}.norm_latents", y, 1e-5))
                both = torch.cat([stored(norm(t, f"{attn}.norm_media", x, 1e-5)), h])
                k, v = stored(linear(t, f"{attn}.to_kv", both)).chunk(2, -1)
                o = attention(stored(linear(t, f"{attn}.to_q", h)), k, v, heads, stored)
                y = stored(y + linear(t, f"{attn}.to_out", o))
                u = stored(linear(t, f"{ff}.1", stored(norm(t, f"{ff}.0", y, 1e-5))))
                y = stored(y + linear(t, f"{ff}.3", stored(F.gelu(u))))
            ys.append(stored(norm(t, "resampler.norm", y, 1e-5)))
        return torch.stack(ys)

    return formula


def linears(sizes, bias):
    """Parameters of linears from k to n, with which no part of the network is idle."""
    t = {}
    for name, (k, n) in sizes.items():
        t[f"{name}.weight"] = around(0, k**-0.5, n, k)
        if bias:
            t[f"{name}.bias"] = around(0, 0.3, n)
    return t


def norms(*names):
    t = {}
    for name in names:
        t |= {f"{name}.weight": around(1, 0.3, WIDTH), f"{name}.bias": around(0, 0.3, WIDTH)}
    return t


def write_monkey(name, bias):
    heads, lengths = 3, [TOKENS, 3 * TOKENS, 2 * TOKENS]
    t = {"x": around(0, 1, sum(lengths), WIDTH), "resampler.query": around(0, 1, QUERIES, WIDTH)}
    t |= norms("resampler.ln_q", "resampler.ln_kv")
    t |= linears({f"resampler.attn.{n}_proj": (WIDTH, WIDTH) for n in ("q", "k", "v", "out")}, bias)
    write(here / name, monkey(heads, lengths), t)


def write_perceiver(name, depth, bias):
    heads, inner, hidden, lengths = 2, 16, 2 * WIDTH, [7, 1, 12]
    t = {"x": around(0, 1, sum(lengths), WIDTH), "resampler.latents": around(0, 1, QUERIES, WIDTH)}
    for i in range(depth):
        attn, ff = f"resampler.layers.{i}.0", f"resampler.layers.{i}.1"
        t |= norms(f"{attn}.norm_media", f"{attn}.norm_latents", f"{ff}.0")
        sizes = {f"{attn}.to_q": (WIDTH, inner), f"{attn}.to_kv": (WIDTH, 2 * inner), f"{attn}.to_out": (inner, WIDTH)}
        t |= linears(sizes | {f"{ff}.1": (WIDTH, hidden), f"{ff}.3": (hidden, WIDTH)}, bias)
    t |= norms("resampler.norm")
    write(here / name, perceiver(depth, heads, lengths), t)


if __name__ == "__main__":
    torch.manual_seed(1)
    write_monkey("monkey.safetensors", True)
    write_monkey("monkey_without_bias.safetensors", False)
    write_perceiver("perceiver.safetensors", 2, False)
    write_perceiver("perceiver_with_bias.safetensors", 1, True)
