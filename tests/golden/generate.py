"""Writes generate.json beside golden.safetensors: `python3 generate.py [FOLDER...]`, all folders here without a name.

What transformers 4.37's generate() answers on top of pheye_torch.py: a list of

- `cases`: `config`, options by generate()'s names; `prompts`, each about picture `pictures[i]`, ascending; `ids`, the new tokens of
  each, every prompt answered alone in float64; `bf16`, whether bf16 must give the same.
- `distributions`: `config`, `prompt` and `picture`; `kept`, the ids that sampling may draw next, and `probabilities`, theirs in float64;
  `error` and `bf16_error`, the largest error of a probability in float32 and in bf16.

A prompt is in only if its answer is no matter of rounding: float32 gives it, and so does float64 when every logit of every step moves
at random by up to 1e-4, some hundred times the error of float32. Where `bf16` says so, also when they move by as much as plain bf16 is
off (`logits_bf16_error` of golden_bf16.safetensors), and each way of bf16.py to write the network in bf16 gives it.
"""
import json
import pathlib
import sys
from collections import Counter

import torch
import transformers
from safetensors import safe_open
from transformers import PretrainedConfig, PreTrainedModel
from transformers.generation import GenerationConfig
from transformers.modeling_outputs import CausalLMOutput

from bf16 import BF16, FORMULAS, Case, plain_bf16

NEW, EACH, POOL = 12, 3, 48
NOISE_F32, DRAWS = 1e-4, 6


def eos(**options):
    return dict(eos_token_id=True, **options)


# The folder's end token takes the place of True.
CASES = [
    dict(),
    eos(),
    eos(repetition_penalty=1.3, no_repeat_ngram_size=2),
    eos(min_new_tokens=7, repetition_penalty=0.8),
    dict(no_repeat_ngram_size=1),
    dict(num_beams=3),
    eos(num_beams=3),
    eos(num_beams=3, length_penalty=0.5, early_stopping=True),
    eos(num_beams=3, length_penalty=2.0, early_stopping="never"),
    eos(num_beams=5, length_penalty=2.0),
    eos(num_beams=5, length_penalty=1.0, early_stopping=True, num_return_sequences=2),
    eos(num_beams=5, length_penalty=0.5, early_stopping="never", no_repeat_ngram_size=2),
    eos(num_beams=3, repetition_penalty=1.5, min_new_tokens=5, length_penalty=0.0),
    eos(num_beams=4, length_penalty=-1.0, early_stopping="never"),
]

DISTRIBUTIONS = [
    dict(top_k=0),
    dict(),
    dict(temperature=0.5, top_k=5),
    dict(temperature=2.0, top_k=0, top_p=0.6),
    dict(temperature=0.7, top_k=20, top_p=0.8),
    dict(temperature=1.3, top_k=10, repetition_penalty=1.4, no_repeat_ngram_size=2),
]


class Oracle(PreTrainedModel):
    """pheye_torch.py's language model about one picture, as generate() wants it."""

    main_input_name = "input_ids"

    def __init__(self, lm, kvs):
        config = PretrainedConfig(vocab_size=lm.c.vocab_size, is_encoder_decoder=False)
        super().__init__(config)
        self.lm, self.kvs, self.noise = lm, kvs, 0.0

    def prepare_inputs_for_generation(self, input_ids, **_):
        return {"input_ids": input_ids}

    def forward(self, input_ids, **_):
        kvs = [kv if kv is None else repeated(kv, len(input_ids)) for kv in self.kvs]
        logits = self.lm(input_ids, kvs)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return CausalLMOutput(logits=logits + self.noise * (2 * torch.rand_like(logits) - 1))


def repeated(kv, rows):
    if isinstance(kv, torch.Tensor):
        return kv.expand(rows, *kv.shape[1:])
    return tuple(repeated(t, rows) for t in kv)


class Folder:
    """Models of a folder in each precision, one for each picture."""

    def __init__(self, folder):
        self.case = Case(folder)
        with safe_open(folder / "golden_bf16.safetensors", "pt") as f:
            self.noise_bf16 = f.get_tensor("logits_bf16_error").item()
        self.exact, self.single = self.models(torch.float64), self.models(torch.float32)
        # float32 is off by luck in one run: also with every weight moved to a neighbour.
        self.moved = [self.models(torch.float32, torch.Generator().manual_seed(seed)) for seed in range(3)]
        self.halves = []
        for formula in FORMULAS.values():
            with plain_bf16(**formula):
                self.halves.append((formula, self.models(BF16)))
        self.vocab = self.case.config.text.vocab_size
        g = torch.Generator().manual_seed(1)
        lengths = torch.randint(3, 10, (POOL,), generator=g).tolist()
        self.pool = [torch.randint(1, self.vocab, (1, n), generator=g) for n in lengths]
        self.end = self.frequent()

    @torch.no_grad()
    def models(self, dtype, moved=None):
        self.case.dtype = dtype
        m = self.case.model()
        if moved is not None:
            for p in m.parameters():
                up = torch.rand(p.shape, generator=moved) < 0.5
                p.copy_(torch.nextafter(p, torch.where(up, torch.inf, -torch.inf)))
        pictures = range(len(self.case.golden["ids"]))
        return [Oracle(m.lang_encoder, m.lang_encoder.cross_kv(self.case.media(m, slice(i, i + 1)))).eval() for i in pictures]

    def frequent(self):
        """The token that most beams come upon: it ends answers."""
        seen = Counter()
        for prompt in self.pool[:20]:
            for row in self.answers(self.exact[0], prompt, dict(num_beams=3, num_return_sequences=3)):
                seen.update(set(row[2:]))
        return seen.most_common(1)[0][0]

    @torch.no_grad()
    def answers(self, model, prompt, options):
        options = dict(dict(max_new_tokens=NEW, pad_token_id=0), **options)
        out = model.generate(prompt, **options)[:, prompt.shape[1] :].tolist()
        end = options.get("eos_token_id")
        return [row[: row.index(end) + 1] if end in row else row for row in out]

    def firm(self, picture, prompt, options, expected, noise):
        """Whether the answer stands when logits move."""
        model = self.exact[picture]
        model.noise = noise
        torch.manual_seed(5)
        same = all(self.answers(model, prompt, options) == expected for _ in range(DRAWS))
        model.noise = 0.0
        return same

    def firm_bf16(self, picture, prompt, options, expected):
        for formula, models in self.halves:
            with plain_bf16(**formula):
                if self.answers(models[picture], prompt, options) != expected:
                    return False
        return True

    def find(self, options):
        """A case: prompts that bf16 must answer alike if there are enough, one of them at least to its end token."""
        options = {k: [self.end] if v is True and k == "eos_token_id" else v for k, v in options.items()}
        call = dict(options, eos_token_id=self.end) if "eos_token_id" in options else options
        found = {True: [], False: []}
        for i, prompt in enumerate(self.pool):
            picture = i % len(self.exact)
            ids = self.answers(self.exact[picture], prompt, call)
            ends = any(row[-1] == self.end for row in ids)
            wanted = "eos_token_id" in call and not any(e for *_, e in found[True])
            if len(found[True]) == EACH - 1 and wanted and not ends:
                continue
            if not self.firm(picture, prompt, call, ids, NOISE_F32) or self.answers(self.single[picture], prompt, call) != ids:
                continue
            firm = self.firm(picture, prompt, call, ids, self.noise_bf16) and self.firm_bf16(picture, prompt, call, ids)
            found[firm].append((picture, prompt[0].tolist(), ids, ends))
            if len(found[True]) == EACH:
                break
        bf16 = len(found[True]) == EACH
        chosen = found[True] if bf16 else sorted(found[True] + found[False], key=lambda c: not c[3])[:EACH]
        assert len(chosen) == EACH, f"{options}: only {len(chosen)} prompts have an answer that is no matter of rounding"
        chosen.sort(key=lambda c: c[0])
        print(" ", options, [len(row) for c in chosen for row in c[2]], "bf16" if bf16 else "f32 only", flush=True)
        return dict(
            config=dict(max_new_tokens=NEW, **options),
            prompts=[c[1] for c in chosen],
            pictures=[c[0] for c in chosen],
            ids=[row for c in chosen for row in c[2]],
            bf16=bf16,
        )

    @torch.no_grad()
    def probabilities(self, model, prompt, options):
        config = GenerationConfig(do_sample=True, **options)
        lists = model._get_logits_processor(config, prompt.shape[1], prompt, None, []), model._get_logits_warper(config)
        scores = model(prompt).logits[:, -1]
        for one in lists:
            scores = one(prompt, scores)
        return scores.double().softmax(-1)[0]

    def distribution(self, at, options):
        for i in range(at, len(self.pool)):
            picture, prompt = i % len(self.exact), self.pool[i]
            exact = self.probabilities(self.exact[picture], prompt, options)
            kept = exact > 0
            singles = [self.probabilities(m[picture], prompt, options) for m in [self.single, *self.moved]]
            if any(not torch.equal(p > 0, kept) for p in singles):
                continue
            halves = []
            for formula, models in self.halves:
                with plain_bf16(**formula):
                    halves.append(self.probabilities(models[picture], prompt, options))
            if any(not torch.equal(p > 0, kept) for p in halves) and i < len(self.pool) - 1:
                continue
            return dict(
                config=dict(do_sample=True, **options),
                prompt=prompt[0].tolist(),
                picture=picture,
                kept=kept.nonzero().flatten().tolist(),
                probabilities=exact[kept].tolist(),
                error=max((p - exact).abs().max().item() for p in singles),
                bf16_error=max((p - exact).abs().max().item() for p in halves),
            )
        raise AssertionError(f"{options}: rounding decides everywhere which tokens are kept")


def write(path):
    folder = Folder(path)
    print(path.name, "end token", folder.end, "bf16 noise", folder.noise_bf16)
    out = dict(
        transformers=transformers.__version__,
        cases=[folder.find(options) for options in CASES],
        distributions=[folder.distribution(2 * i, options) for i, options in enumerate(DISTRIBUTIONS)],
    )
    # A line for each entry: short, and a change shows where it is.
    lines = lambda entries: "[\n" + ",\n".join(json.dumps(e) for e in entries) + "\n]"
    text = ",\n".join(f'"{k}": {lines(v) if isinstance(v, list) else json.dumps(v)}' for k, v in out.items())
    (path / "generate.json").write_text("{\n" + text + "\n}\n")


if __name__ == "__main__":
    assert transformers.__version__.startswith("4.37."), "pip install transformers==4.37.2: its generate() is the definition"
    transformers.logging.set_verbosity_error()
    here = pathlib.Path(__file__).resolve().parent
    for folder in map(pathlib.Path, sys.argv[1:]) if sys.argv[1:] else sorted(p.parent for p in here.glob("*/golden.safetensors")):
        write(folder)
