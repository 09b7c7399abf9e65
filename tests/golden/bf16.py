"""Writes golden_bf16.safetensors beside golden.safetensors: `python3 bf16.py [-v] FOLDER...`, all folders here without a name.

It says where the truth lies, and how far from it the plain formulas are in bf16:

- `NAME_rest`: what the float64 result is above the float32 one in golden.safetensors, rounded to bf16 (their sum is off
  by 1/512 of float32's own error at most). Stages whose float64 result golden.safetensors holds have none.
- `NAME_bf16_error`: the largest error over the tensor of plain bf16, the worst of FORMULAS. Logits at padding do not count.
- `greedy_demanded`: 1 for each of the ids `greedy` that bf16 must choose after those before it, 0 where it may choose another,
  because one of FORMULAS does or is undecided.

Plain bf16: one operation after another as PyTorch does it. Weights of products and all activations are bf16, each
operation computes in float32 and rounds its result once. Norms, biases and the tile embeddings stay float32, as do
gradients of parameters and the AdamW masters that products take rounded.
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
from safetensors.torch import save_file
from torch import nn

import pheye_torch
from pheye_torch import PheyeConfig, PheyeTorch, PhiConfig, VisionConfig

STEPS = 5
VERBOSE = "-v" in sys.argv
BF16 = torch.bfloat16

# One run of bf16 is one draw of its rounding errors, and the largest of a few numbers can be small by luck. These ways to
# write the same formula round at other places; none is finer than a usual implementation.
FORMULAS = {
    "plain": {},
    "bias added to the rounded product": {"bias_apart": True},
    "queries scaled before their product": {"scale_queries": True},
    "scores kept in float32": {"float_scores": True},
    "attention and MLP summed first": {"branches_first": True},
}


def rounded(w):
    """w's values in bf16, in float32, with the gradient that float32 accumulates."""
    return w + (w.to(BF16).float() - w).detach()


@contextlib.contextmanager
def plain_bf16(bias_apart=False, scale_queries=False, float_scores=False, branches_first=False):
    """Makes torch's modules compute as described above."""

    def product(y, b):
        if b is not None and bias_apart:
            return (y.to(BF16).float() + b).to(BF16)
        return (y if b is None else y + b).to(BF16)

    def linear(self, x):
        return product(x.float() @ rounded(self.weight).T, self.bias)

    def conv(self, x):
        return product(F.conv2d(x.float(), rounded(self.weight), None, self.stride), self.bias)

    def attention(q, k, v, attn_mask=None, scale=None):
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        inner = torch.float32 if float_scores else BF16
        q, k, v = (t.to(inner) for t in (q, k, v))
        scores = (q * scale) @ k.transpose(-1, -2) if scale_queries else (q @ k.transpose(-1, -2)) * scale
        scores = scores if attn_mask is None else scores + attn_mask
        return (scores.softmax(-1) @ v).to(BF16)

    def phi_layer(self, x, *a):
        h = self.input_layernorm(x)
        return x + (self.self_attn(h, *a) + self.mlp(h))

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(nn.Linear, "forward", linear))
        stack.enter_context(mock.patch.object(nn.Conv2d, "forward", conv))
        stack.enter_context(mock.patch.object(F, "scaled_dot_product_attention", attention))
        if branches_first:
            stack.enter_context(mock.patch.object(pheye_torch.PhiLayer, "forward", phi_layer))
        yield


def lora_sets(shapes):
    """Rank and alpha of both LoRA sets, as `Config::load` has them: the ranks of the tensors, and alpha twice the rank."""
    sets = {}
    for part, adapter in (("global", "first"), ("local", "second")):
        a = f"vision_encoder.vision_model.base_model.model.embeddings.patch_embedding.lora_A.{adapter}.weight"
        if a in shapes:
            sets |= {f"{part}_rank": shapes[a][0], f"{part}_alpha": 2 * shapes[a][0]}
    return sets


def text_config(text):
    """The keys of a Phi configuration with the rotary ones where transformers had them before version 5."""
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    assert kind == "default", f"rotary positions of the kind {kind} are not in pheye_torch.py"
    return text | {k: rope[k] for k in ("rope_theta", "partial_rotary_factor") if k in rope}


class Case:
    """A folder's weights and inputs."""

    def __init__(self, folder):
        def read(name):
            return json.loads((folder / name).read_text())

        c, vision, text = read("config.json"), read("encoder/config.json")["vision_config"], read("decoder/config.json")
        # The wrapped model's names are a second set of the same weights.
        state = torch.load(folder / "checkpoint.pt", weights_only=True)
        self.state = {k: v for k, v in state.items() if not k.startswith("lang_encoder.model.layers.")}
        text = text_config(text)
        self.config = PheyeConfig(
            VisionConfig(**{k: v for k, v in vision.items() if k in VisionConfig.__dataclass_fields__}),
            PhiConfig(**{k: v for k, v in text.items() if k in PhiConfig.__dataclass_fields__}),
            c["level"], c["cross_interval"], c["from_layer"], c["reduce"], c["first_level"],
            **lora_sets({k: tuple(v.shape) for k, v in self.state.items()}),
        )
        with safe_open(folder / "golden.safetensors", "pt") as f:
            self.golden = {k: f.get_tensor(k) for k in f.keys()}
        self.dtype = torch.float64

    def model(self):
        m = PheyeTorch(self.config)
        m.load_state_dict(self.state)
        if self.dtype != BF16:
            return m.to(self.dtype)
        # Embeddings and the class token are activations from the start; other weights are rounded where they are used.
        tower = m.vision_encoder.vision_model.base_model.model.embeddings
        for p in (tower.class_embedding, tower.position_embedding.weight, m.lang_encoder.model.embed_tokens.weight):
            p.data = p.data.to(BF16)
        return m

    def media(self, m, rows):
        """Image features of the pictures `rows`."""
        gp, lp, tiles = self.golden["global_pixels"], self.golden.get("local_pixels"), self.config.level**2
        local = None if lp is None else lp[rows.start * tiles : rows.stop * tiles].to(self.dtype)
        return m.vision_encoder(gp[rows].to(self.dtype), local).to(self.dtype)

    def loss(self, logits, rows):
        """The summed cross entropy of `logits`, and its number of tokens."""
        target = self.golden["labels"][rows, 1:]
        # Statistics in float32 at least.
        logits = logits[:, :-1].to(torch.promote_types(self.dtype, torch.float32))
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-100, reduction="sum")
        return loss, int((target != -100).sum())

    def language(self, m, media, rows):
        return m.lang_encoder(self.golden["ids"][rows], m.lang_encoder.cross_kv(media), self.golden["attention_mask"][rows])

    def stages(self):
        """Every stage in this precision, by its name in golden.safetensors; gradients are those of the mean loss."""
        g, out, m = self.golden, {}, self.model()
        every = slice(0, len(g["ids"]))
        media = self.media(m, every)
        media.retain_grad()
        logits = self.language(m, media, every)
        loss, tokens = self.loss(logits, every)
        loss.backward()
        out.update(media=media, logits=logits, loss_sum=loss, media_grad=media.grad.double() / tokens)
        out.update({f"grad.{k}": p.grad.double() / tokens for k, p in m.trainable().items() if p.grad is not None})
        out["greedy"], out["greedy_leads"] = self.greedy()
        out["train_losses"] = self.train()
        return {k: v.detach() if k == "greedy" else v.detach().double() for k, v in out.items()}

    @torch.no_grad()
    def greedy(self):
        """The prompt, then for each of golden.safetensors' greedy ids the one chosen after those before it, and how far it leads."""
        m, ids = self.model(), self.golden["greedy"]
        start = self.golden["greedy_prompt"].shape[1]
        kvs, cache = m.lang_encoder.cross_kv(self.media(m, slice(0, 1))), [{} for _ in m.lang_encoder.old_decoder_blocks]
        chosen, step, leads = [ids[:, :start]], ids[:, :start], []
        for i in range(start, ids.shape[1]):
            top = m.lang_encoder(step, kvs, cache=cache, last_only=True)[:, -1].topk(2)
            chosen.append(top.indices[:, :1])
            leads.append(top.values[0, 0] - top.values[0, 1])
            step = ids[:, i : i + 1]
        return torch.cat(chosen, 1), torch.stack(leads)

    def train(self):
        """Mean losses of five AdamW steps, each of one micro-batch a picture."""
        m = self.model()
        params = list(m.trainable().values())
        opt = torch.optim.AdamW(params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
        losses = []
        for step in range(STEPS):
            opt.param_groups[0]["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * step / STEPS))
            opt.zero_grad()
            total, tokens = 0.0, 0
            for i in range(len(self.golden["ids"])):
                rows = slice(i, i + 1)
                loss, n = self.loss(self.language(m, self.media(m, rows), rows), rows)
                loss.backward()
                total, tokens = total + loss.item(), tokens + n
            for p in params:
                if p.grad is not None:
                    p.grad /= tokens
            opt.step()
            losses.append(total / tokens)
        return torch.tensor(losses, dtype=torch.float64)


def largest(x):
    return x.abs().max().item()


def demanded(exact, runs):
    """Which greedy ids bf16 must give: those of the prompt, and those that every formula chooses without a tie."""
    mask = torch.ones_like(exact["greedy"][0])
    for run in runs:
        mask &= run["greedy"][0] == exact["greedy"][0]
        mask[-len(run["greedy_leads"]) :] &= run["greedy_leads"] > 0
    return mask


def write(folder):
    case = Case(folder)
    golden, real = case.golden, case.golden["attention_mask"].bool()
    exact = case.stages()
    case.dtype, runs = BF16, []
    for formula in FORMULAS.values():
        with plain_bf16(**formula):
            runs.append(case.stages())

    out, error = {}, {}
    for name in exact:
        if name.startswith("greedy"):
            continue
        pick = (lambda t: t[real]) if name == "logits" else (lambda t: t)
        errors = [largest(pick(run[name] - exact[name])) for run in runs]
        error[name] = max(errors)
        out[f"{name}_bf16_error"] = torch.tensor(error[name], dtype=torch.float64)
        rest = exact[name] - golden[name].double()
        if f"{name}_f64" in golden:
            # Another order of additions in float64 is all that may differ.
            off = largest(pick(exact[name] - golden[f"{name}_f64"]))
            assert off <= 1e-11 * largest(exact[name]), f"{folder.name}: {name} is not golden.safetensors' by {off}"
        else:
            assert largest(rest) <= 1e-4 * largest(exact[name]), f"{folder.name}: {name} is not golden.safetensors'"
            out[f"{name}_rest"] = rest.to(BF16)
        if VERBOSE:
            print(f"{name:<100} {largest(exact[name]):.2e} f32 {largest(pick(rest)):.1e} bf16", *(f"{e:.2e}" for e in errors))
    assert torch.equal(exact["greedy"], golden["greedy"]), f"{folder.name}: greedy ids"
    out["greedy_demanded"] = demanded(exact, runs)
    save_file({k: v.contiguous() for k, v in out.items()}, folder / "golden_bf16.safetensors")
    print(f"{folder.name}: {len(error)} stages; {int(out['greedy_demanded'].sum())} of {exact['greedy'].shape[1]} greedy ids demanded")
    if VERBOSE:
        for run in (exact, *runs):
            print(run["greedy"].tolist(), "lead by", " ".join(f"{m:.3f}" for m in run["greedy_leads"]))


if __name__ == "__main__":
    here = pathlib.Path(__file__).resolve().parent
    named = [pathlib.Path(a) for a in sys.argv[1:] if a != "-v"]
    for folder in named or sorted(p.parent for p in here.glob("*/golden.safetensors")):
        write(folder)
