"""torch.optim.AdamW, fused, and the norm of the gradients."""
import torch
from timing import Peers


def rows(p):
    for row in p.rows():
        count, size = row["params"], row["tensor"]
        sizes = [min(size, count - i) for i in range(0, count, size)]
        params = [torch.nn.Parameter(p.random(n, scale=0.1, dtype=torch.float32)) for n in sizes]
        for q in params:
            q.grad = p.random(*q.shape, dtype=torch.float32)
        if row["op"] == "gradient norm":
            grads = [q.grad for q in params]
            norm = lambda: torch.nn.utils.get_total_norm(grads)
            p.row(row["op"], str(count), "forward", "get_total_norm", lambda: norm)
            continue
        # Moments in bf16 beside parameters in f32 are not among PyTorch's optimizers: the rival keeps f32.
        shape = f"{count} bf16 moments" if row.get("bf16_moments") else str(count)

        def make(**options):
            hyper = dict(lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, capturable=p.cuda)
            return torch.optim.AdamW(params, **hyper, **options)

        fused = make(fused=True)
        p.row(row["op"], shape, "forward", "AdamW fused", lambda: fused.step)
        if p.cuda:
            halves = [q.detach().bfloat16() for q in params]
            values = [q.detach() for q in params]

            def step_and_copy():
                fused.step()
                torch._foreach_copy_(halves, values)

            # Ours writes the bf16 copy in the same launch.
            p.row(row["op"], shape, "forward", "AdamW fused, then the bf16 copy", lambda: step_and_copy)
        else:
            p.row(row["op"], shape, "forward", "AdamW foreach", lambda: make(foreach=True).step)


if __name__ == "__main__":
    p = Peers("adamw")
    rows(p)
    p.done()
