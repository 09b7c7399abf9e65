"""LayerNorm and GELU in PyTorch, eager and compiled, and Liger's where it is installed."""
import torch
import torch.nn.functional as F
from timing import Peers

try:
    from liger_kernel.ops.layer_norm import LigerLayerNormFunction
except ImportError:
    LigerLayerNormFunction = None

ACTIVATIONS = {
    "gelu quick": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu exact": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def functions(p, row, trained):
    """Name and function of each rival, and what is trained besides x."""
    if row["op"] in ACTIVATIONS:
        f = ACTIVATIONS[row["op"]]
        return {"eager": f, "torch.compile": torch.compile(f)}, []
    weight, bias = (p.random(row["cols"]).requires_grad_(trained) for _ in range(2))
    norm = lambda x: F.layer_norm(x, (row["cols"],), weight, bias, 1e-5)
    all = {"F.layer_norm": norm, "torch.compile(F.layer_norm)": torch.compile(norm)}
    if LigerLayerNormFunction and p.cuda:
        all["Liger"] = lambda x: LigerLayerNormFunction.apply(x, weight, bias, 1e-5)
    return all, [weight, bias] if trained else []


def rows(p):
    for row in p.rows():
        trained = row.get("trained", False)
        dims = (row["rows"], row["cols"])
        shape = f"{dims[0]}x{dims[1]}" + (" trained" if trained else "")
        x = p.random(*dims).requires_grad_()
        all, learned = functions(p, row, trained)
        for backend, f in all.items():
            def forward():
                with torch.no_grad():
                    return f(x)
            p.row(row["op"], shape, "forward", backend, lambda: forward)
            p.row(row["op"], shape, "backward", backend, lambda: p.backward(lambda: f(x), [x, *learned], dims))


if __name__ == "__main__":
    p = Peers("rowwise")
    rows(p)
    p.done()
