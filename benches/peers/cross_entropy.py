"""Cross entropy with a frozen output head in PyTorch: F.linear and F.cross_entropy, eager and compiled; Liger's if installed."""
import torch
import torch.nn.functional as F
from timing import Peers

try:
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction as Liger
except ImportError:
    Liger = None


def plain(x, weight, bias, targets):
    return F.cross_entropy(F.linear(x, weight, bias).float(), targets, reduction="sum")


def liger(x, weight, bias, targets):
    loss = Liger.apply(x, weight, targets, bias, None, -100, 0.0, 0.0, "sum")
    return loss[0] if isinstance(loss, tuple) else loss


def rows(p):
    for row in p.rows():
        n, d, v = row["tokens"], row["d"], row["vocab"]
        shape = f"{n}x{d}x{v}"
        x = p.random(n, d).requires_grad_()
        weight, bias = p.random(v, d, scale=d**-0.5), p.random(v, scale=d**-0.5)
        targets = torch.arange(n, device=p.device) * 7919 % v
        variants = {"F.linear + F.cross_entropy": plain, "torch.compile": torch.compile(plain)}
        if Liger and p.cuda:
            variants["Liger"] = liger
        for backend, f in variants.items():
            def loss():
                with torch.no_grad():
                    return f(x, weight, bias, targets)

            def both():
                return torch.autograd.grad(f(x, weight, bias, targets), [x])

            p.row(row["op"], shape, "forward", backend, lambda: loss)
            p.row(row["op"], shape, "forward+backward", backend, lambda: both)


if __name__ == "__main__":
    p = Peers("cross_entropy")
    rows(p)
    p.done()
