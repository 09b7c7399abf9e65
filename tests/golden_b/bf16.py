"""Writes golden_bf16.safetensors beside golden.safetensors: `python3 bf16.py [-v] FOLDER...`, all folders here without a name.

The bounds of bf16 for the systems of Appendix B, as `../golden/bf16.py` makes them for Pheye. golden.safetensors has every stage in
float64, so there is no `NAME_rest`.

- `NAME_bf16_error`: the largest error over the tensor of plain bf16, the worst of FORMULAS. Logits at padding do not count.
- `greedy_demanded`: 1 for each of the ids `greedy` that bf16 must choose after those before it, 0 where it may choose another,
  because one of FORMULAS does or is undecided.

Plain bf16: one operation after another as PyTorch does it. Weights of products and all activations are bf16, each operation
computes in float32 and rounds its result once. Norms, biases and tile positions stay float32, as do gradients of
parameters and the AdamW masters that products take rounded.
"""
import contextlib
import json
import math
import pathlib
import sys
from unittest import mock

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import appendix_b_torch as oracle
from appendix_b_torch import AppendixB, Config, Resampler, TextConfig, VisionConfig

STEPS, RATE, DECAY = 5, 1e-3, 0.01
VERBOSE = "-v" in sys.argv
BF16 = torch.bfloat16

# One run of bf16 is one draw of its rounding errors, and the largest of a few numbers can be small by luck. These ways to
# write the same formula round at other places; none is finer than a usual implementation.
FORMULAS = {
    "plain": {},
    "bias added to the rounded product": {"bias_apart": True},
    "queries scaled before their product": {"scale_queries": True},
    "scores kept in float32": {"float_scores": True},
    "bias apart, queries scaled": {"bias_apart": True, "scale_queries": True},
    "bias apart, scores in float32": {"bias_apart": True, "float_scores": True},
}


def rounded(w):
    """w's values in bf16, in float32, with the gradient that float32 accumulates."""
    return w + (w.to(BF16).float() - w).detach()


@contextlib.contextmanager
def plain_bf16(bias_apart=False, scale_queries=False, float_scores=False):
    """Makes the oracle's modules compute as described above."""

    def product(y, b):
        if b is not None and bias_apart:
            return (y.to(BF16).float() + b).to(BF16)
        return (y if b is None else y + b).to(BF16)

    def linear(self, x):
        return product(x.float() @ rounded(self.weight).T, self.bias)

    def conv1d(self, x):
        return product(x.float() @ rounded(self.weight), self.bias)

    def conv2d(self, x):
        return product(F.conv2d(x.float(), rounded(self.weight), None, self.stride), self.bias)

    def norm(self, x):
        return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps).to(BF16)

    def attend(q, k, v, heads, causal=False, keep=None):
        q, k, v = (t.view(t.shape[0], t.shape[1], heads, -1).transpose(1, 2) for t in (q, k, v))
        inner, scale = torch.float32 if float_scores else BF16, q.shape[-1] ** -0.5
        q, k, v = (t.to(inner) for t in (q, k, v))
        s = (q * scale) @ k.transpose(-1, -2) if scale_queries else (q @ k.transpose(-1, -2)) * scale
        if causal:
            see = torch.ones(s.shape[-2:], dtype=torch.bool).tril(s.shape[-1] - s.shape[-2])
            see = see if keep is None else see & keep[:, None, None, :]
            s = s.masked_fill(~see, torch.finfo(s.dtype).min)
        return (s.softmax(-1) @ v).to(BF16).transpose(1, 2).flatten(2)

    def gpt2(self, ids, mask, prefix=None, media=None):
        """Gpt2.forward, whose product with the head is written out there."""
        t, keep = self.transformer, mask.bool()
        x, p = t.wte.weight.to(BF16)[ids], 0
        if prefix is not None:
            p = prefix.shape[1]
            x = torch.cat([prefix.to(BF16), x], 1)
            keep = torch.cat([keep.new_ones(keep.shape[0], p), keep], 1)
        x = x + t.wpe.weight.to(BF16)[: x.shape[1]]
        for layer in t.h:
            x = layer(x, media, keep)
        return (t.ln_f(x[:, p:]).float() @ rounded(t.wte.weight).T).to(BF16)

    def vit(self, pixels, active=None):
        """ViT.forward with embeddings that are activations from the start."""
        e = self.embeddings
        x = oracle.call(e.patch_embedding, pixels, active).flatten(2).transpose(1, 2)
        x = torch.cat([e.class_embedding.to(BF16).expand(x.shape[0], 1, -1), x], 1) + e.position_embedding.weight.to(BF16)
        x = self.pre_layrnorm(x)
        for layer in self.encoder.layers:
            x = layer(x, active)
        return x

    def features(self, global_pixels, local_pixels=None):
        return real_features(self, global_pixels, local_pixels).to(BF16)

    def monkey(self, x):
        of_q, of_k = (t.float() for t in self.tables)
        a, x = self.attn, self.ln_kv(x)
        q = a.q_proj((self.ln_q(self.query).float() + of_q).to(BF16)).expand(x.shape[0], -1, -1)
        return a.out_proj(attend(q, a.k_proj((x.float() + of_k).to(BF16)), a.v_proj(x), self.heads))

    def perceiver(self, x):
        y = self.latents.to(BF16).expand(x.shape[0], -1, -1)
        for a, ff in self.layers:
            h = a.norm_latents(y)
            k, v = a.to_kv(torch.cat([a.norm_media(x), h], 1)).chunk(2, -1)
            y = y + a.to_out(attend(a.to_q(h), k, v, self.heads))
            y = y + ff(y)
        return self.norm(y)

    real_features = AppendixB.features
    with contextlib.ExitStack() as stack:
        for owner, name, new in (
            (nn.Linear, "forward", linear),
            (nn.Conv2d, "forward", conv2d),
            (nn.LayerNorm, "forward", norm),
            (oracle.Conv1D, "forward", conv1d),
            (oracle, "attend", attend),
            (oracle.Gpt2, "forward", gpt2),
            (oracle.ViT, "forward", vit),
            (oracle.Monkey, "forward", monkey),
            (oracle.Perceiver, "forward", perceiver),
            (AppendixB, "features", features),
        ):
            stack.enter_context(mock.patch.object(owner, name, new))
        yield


class Case:
    """A folder's weights and inputs."""

    def __init__(self, folder):
        c = json.loads((folder / "config.json").read_text())
        pick = lambda kind, d: kind(**{k: v for k, v in d.items() if k in kind.__dataclass_fields__})
        resampler = pick(Resampler, c["resampler"]) if c.get("resampler") else None
        c |= {"vision": pick(VisionConfig, c["vision_config"]), "text": pick(TextConfig, c["text_config"]), "resampler": resampler}
        self.config = pick(Config, c)
        self.state = load_file(folder / "model.safetensors")
        with safe_open(folder / "golden.safetensors", "pt") as f:
            self.golden = {k: f.get_tensor(k) for k in f.keys()}

    def model(self, dtype=torch.float32):
        m = AppendixB(self.config).to(dtype)
        m.load_state_dict(self.state)
        return m

    def pixels(self, rows, dtype):
        local, tiles = self.golden.get("local_pixels"), self.config.tiles()
        local = None if local is None else local[rows.start * tiles : rows.stop * tiles].to(dtype)
        return self.golden["global_pixels"][rows].to(dtype), local

    def loss(self, logits, rows):
        """The summed cross entropy of `logits`, and its number of tokens."""
        target = self.golden["labels"][rows, 1:]
        logits = logits[:, :-1]
        logits = logits if logits.dtype == torch.float64 else logits.float()
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-100, reduction="sum")
        return loss, int((target != -100).sum())

    def stages(self, dtype=torch.float32):
        """Every stage by its name in golden.safetensors; gradients are those of the mean loss."""
        g, out, m = self.golden, {}, self.model(dtype)
        every = slice(0, len(g["ids"]))
        features = m.features(*self.pixels(every, dtype))
        media = m.media(features)
        if media.requires_grad:
            media.retain_grad()
        logits = m.logits(media, g["ids"], g["attention_mask"])
        loss, tokens = self.loss(logits, every)
        loss.backward()
        out.update(features=features, media=media, logits=logits, loss_sum=loss)
        if media.grad is not None:
            out["media_grad"] = media.grad.double() / tokens
        out.update({f"grad.{k}": p.grad.double() / tokens for k, p in m.trainable().items()})
        out["greedy"], out["greedy_leads"] = self.greedy(dtype)
        out["train_losses"] = self.train(dtype)
        return {k: v.detach() if k == "greedy" else v.detach().double() for k, v in out.items()}

    @torch.no_grad()
    def greedy(self, dtype):
        """The prompt, then for each of golden.safetensors' greedy ids the one chosen after those before it, and how far it leads."""
        m, ids = self.model(dtype), self.golden["greedy"]
        start = self.golden["greedy_prompt"].shape[1]
        media = m.media(m.features(*self.pixels(slice(0, 1), dtype)))
        top = m.logits(media, ids, torch.ones_like(ids))[0, start - 1 : -1].topk(2)
        return torch.cat([ids[:, :start], top.indices[None, :, 0]], 1), top.values[:, 0] - top.values[:, 1]

    def train(self, dtype):
        """Mean losses of five AdamW steps, each of one micro-batch a picture, with the tower at a tenth of the rate."""
        m = self.model(dtype)
        of_tower = lambda n: n.startswith("encoder.") and ".lora_" not in n
        groups = [[p for n, p in m.trainable().items() if of_tower(n) == tower] for tower in (False, True)]
        groups = [(g, share) for g, share in zip(groups, (1, 0.1)) if g]
        opt = torch.optim.AdamW([{"params": g} for g, _ in groups], lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=DECAY)
        losses = []
        for step in range(STEPS):
            for group, (_, share) in zip(opt.param_groups, groups):
                group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / STEPS)) * share
            opt.zero_grad()
            total, tokens = 0.0, 0
            for i in range(len(self.golden["ids"])):
                rows = slice(i, i + 1)
                logits = m.logits(m.media(m.features(*self.pixels(rows, dtype))), self.golden["ids"][rows], self.golden["attention_mask"][rows])
                loss, n = self.loss(logits, rows)
                loss.backward()
                total, tokens = total + loss.item(), tokens + n
            for p in m.trainable().values():
                p.grad /= tokens
            opt.step()
            losses.append(total / tokens)
        return torch.tensor(losses, dtype=torch.float64)


def largest(x):
    return x.abs().max().item()


def write(folder):
    case = Case(folder)
    golden, real = case.golden, case.golden["attention_mask"].bool()
    exact = case.stages(torch.float64)
    runs = []
    for formula in FORMULAS.values():
        with plain_bf16(**formula):
            runs.append(case.stages())

    out, stages = {}, [name for name in exact if not name.startswith("greedy")]
    for name in stages:
        pick = (lambda t: t[real]) if name == "logits" else (lambda t: t)
        errors = [largest(pick(run[name] - exact[name])) for run in runs]
        out[f"{name}_bf16_error"] = torch.tensor(max(errors), dtype=torch.float64)
        # Another order of additions in float64 is all that may differ. The gradient of a key's bias is rounding alone.
        off, size = largest(pick(exact[name] - golden[f"{name}_f64"])), largest(exact[name])
        assert off <= 1e-11 * size or name.endswith("k_proj.bias"), f"{folder.name}: {name} is not golden.safetensors' by {off}"
        if VERBOSE:
            print(f"{name:<80} {size:.2e} bf16", *(f"{e:.2e}" for e in errors))
    assert torch.equal(exact["greedy"], golden["greedy"]), f"{folder.name}: greedy ids"
    demanded = torch.ones_like(exact["greedy"][0])
    for run in runs:
        demanded &= run["greedy"][0] == exact["greedy"][0]
        demanded[-len(run["greedy_leads"]) :] &= run["greedy_leads"] > 0
    out["greedy_demanded"] = demanded
    save_file({k: v.contiguous() for k, v in out.items()}, folder / "golden_bf16.safetensors")
    print(f"{folder.name}: {len(stages)} stages; {int(demanded.sum())} of {len(demanded)} greedy ids demanded")


if __name__ == "__main__":
    here = pathlib.Path(__file__).resolve().parent
    named = [pathlib.Path(a) for a in sys.argv[1:] if a != "-v"]
    for folder in named or sorted(p.parent for p in here.glob("*/golden.safetensors")):
        write(folder)
