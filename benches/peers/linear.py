"""Linears in PyTorch: F.linear, GELU behind or before it, and LoRA as peft does it, eager and compiled.

Without peft the same arithmetic is written out, so that a row exists: y = F.linear(x, W, b) + s * F.linear(F.linear(drop(x), A), B).
"""
import torch
import torch.nn.functional as F
from timing import Peers

try:
    import peft
except ImportError:
    peft = None


class Function(torch.nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


class Written(torch.nn.Module):
    """The arithmetic of peft's LoRA linear."""

    def __init__(self, base, r, dropout):
        super().__init__()
        self.base, self.drop = base, torch.nn.Dropout(dropout)
        device, dtype = base.weight.device, base.weight.dtype
        self.a = torch.nn.Linear(base.in_features, r, bias=False, device=device, dtype=dtype)
        self.b = torch.nn.Linear(r, base.out_features, bias=False, device=device, dtype=dtype)

    def forward(self, x):
        return self.base(x) + 2.0 * self.b(self.a(self.drop(x)))


GELU = {
    "quick": lambda x: x * torch.sigmoid(1.702 * x),
    "exact": F.gelu,
    "tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def base(p, k, n, trained):
    layer = torch.nn.Linear(k, n, device=p.device, dtype=p.dtype)
    layer.bias.requires_grad_(False)
    layer.weight.requires_grad_(trained)
    return layer


def lora(p, k, n, r, dropout):
    if peft is None:
        layer = Written(base(p, k, n, False), r, dropout)
    else:
        config = peft.LoraConfig(r=r, lora_alpha=2 * r, lora_dropout=dropout, target_modules=["0"])
        layer = peft.get_peft_model(torch.nn.Sequential(base(p, k, n, False)), config)
    for name, parameter in layer.named_parameters():
        if parameter.requires_grad:
            # B starts at zero, which is not data; adapters have the type of the layer, as under autocast.
            parameter.data = p.random(*parameter.shape, scale=0.02)
    return layer.train()


def rows(p):
    name = "peft" if peft else "LoRA as peft writes it"
    for row in p.rows():
        m, k, n, r = row["m"], row["k"], row["n"], row.get("r")
        trained = row.get("trained", False)
        shape = f"{m}x{k}x{n}" + (" trained" if trained else "")
        kept = row.get("kept")
        shape += f" {kept} W" if kept else ""
        x = p.random(m, k).requires_grad_()
        gelu = GELU.get(row.get("gelu"))
        if gelu:
            layer = base(p, k, n, trained)
            if row["op"] == "linear gelu":
                module = torch.nn.Sequential(layer, Function(gelu))
            else:
                module = torch.nn.Sequential(Function(gelu), layer)
            shape += f" {row['gelu']}"
            variants = [("eager", module), ("torch.compile", torch.compile(module))]
        elif "widths" in row:
            layers = [base(p, k, width, False) for width in row["widths"]]
            whole = base(p, k, n, False)  # the four put together by hand
            each = lambda x: [layer(x) for layer in layers]
            variants = [("F.linear, four times", each), ("F.linear of all", whole),
                        ("torch.compile", torch.compile(each))]
            layer = whole
        elif r is None:
            layer = base(p, k, n, trained)
            variants = [("F.linear", layer)]
            if kept == "bf16":
                # All in bf16; PyTorch has no product of f32 by bf16.
                half = base(p, k, n, trained).bfloat16()
                variants.append(("F.linear, bf16", lambda x: half(x.bfloat16()).float()))
            if kept == "int8":
                # x becomes int8 too.
                whole = torch.ao.quantization.quantize_dynamic(
                    torch.nn.Sequential(base(p, k, n, trained)), {torch.nn.Linear}, dtype=torch.qint8)
                variants.append(("quantize_dynamic", whole))
        else:
            dropout = row["dropout"]
            shape += f" r{r} p{dropout:g}" if dropout else f" r{r} p0"
            layer = lora(p, k, n, r, dropout)
            variants = [(f"{name}, eager", layer), (f"torch.compile({name})", torch.compile(layer))]
        learned = [q for q in layer.parameters() if q.requires_grad]
        for backend, module in variants:
            def forward():
                with torch.no_grad():
                    return module(x)
            if row["op"] != "gelu linear":
                p.row(row["op"], shape, "forward", backend, lambda: forward)
            if not row.get("forward_only"):
                make = lambda: p.backward(lambda: module(x), [x, *learned], (m, n))
                p.row(row["op"], shape, "backward", backend, make)


if __name__ == "__main__":
    p = Peers("linear")
    rows(p)
    p.done()
