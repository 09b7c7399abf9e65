"""Writes `gpt2.safetensors`: GPT-2's cross-attention in plain PyTorch, over three sequences whose images have different
numbers of tokens. The weights are [out, in], unlike those of a checkpoint of transformers, which `Conv1D` stores as [in, out].

    pip install torch safetensors
    python crates/xattn/tests/data/make.py
"""
import math
import pathlib
import sys

import torch
import torch.nn.functional as F

here = pathlib.Path(__file__).resolve().parent
sys.path.append(str(here.parents[2] / "testkit"))
from golden import around, write  # noqa: E402

WIDTH, HEADS, TEXT, MEDIA = 24, 3, [4, 1, 3], [5, 2, 7]


def formula(t, stored):
    def linear(name, x):
        return x @ t[f"h.0.crossattention.{name}.weight"].T + t[f"h.0.crossattention.{name}.bias"]

    ys = []
    for x, media in zip(t["x"].split(TEXT), t["media"].split(MEDIA)):
        h = stored(F.layer_norm(x, (WIDTH,), t["h.0.ln_cross_attn.weight"], t["h.0.ln_cross_attn.bias"], 1e-5))
        k, v = stored(linear("c_attn", media)).chunk(2, -1)
        o = []
        for q, k, v in zip(*(m.chunk(HEADS, -1) for m in (stored(linear("q_attn", h)), k, v))):
            scores = stored(q @ k.T / math.sqrt(WIDTH // HEADS))
            o.append(stored(scores.softmax(-1)) @ v)
        ys.append(stored(x + linear("c_proj", stored(torch.cat(o, -1)))))
    return torch.cat(ys)


if __name__ == "__main__":
    torch.manual_seed(1)
    t = {"x": around(0, 1, sum(TEXT), WIDTH), "media": around(0, 1, sum(MEDIA), WIDTH)}
    t |= {"h.0.ln_cross_attn.weight": around(1, 0.3, WIDTH), "h.0.ln_cross_attn.bias": around(0, 0.3, WIDTH)}
    for name, n in [("q_attn", WIDTH), ("c_attn", 2 * WIDTH), ("c_proj", WIDTH)]:
        t[f"h.0.crossattention.{name}.weight"] = around(0, WIDTH**-0.5, n, WIDTH)
        t[f"h.0.crossattention.{name}.bias"] = around(0, 0.3, n)
    write(here / "gpt2.safetensors", formula, t)
