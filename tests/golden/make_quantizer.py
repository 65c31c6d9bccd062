"""Make tests/golden/quantizer.safetensors: five steps of vector-quantize-pytorch's VectorQuantize.

    pip install torch==2.13.0 vector-quantize-pytorch==1.32.0
    python tests/golden/make_quantizer.py

Of each step the input [B, L, D], the mask of the valid vectors, and, with the codebook before it,
what the quantizer gives, its commitment loss, the gradient of sum(output * weight) + loss, and the
codebook after it. Codes that are not used are left alone.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from vector_quantize_pytorch import VectorQuantize

STEPS, ROWS, LENGTH, WIDTH, SIZE = 5, 3, 7, 5, 11


def main() -> None:
    torch.manual_seed(0)
    layer = VectorQuantize(
        dim=WIDTH,
        codebook_size=SIZE,
        decay=0.8,
        commitment_weight=1.0,
        threshold_ema_dead_code=0,
        rotation_trick=False,  # the library's default is no longer the straight-through gradient
    )
    book = layer._codebook
    kept = {"start": book.embed[0].clone(), "sum": book.embed_avg[0].clone()}
    kept["count"] = book.cluster_size[0].clone()
    found = {}
    for _ in range(STEPS):
        x = torch.randn(ROWS, LENGTH, WIDTH, requires_grad=True)
        mask = torch.rand(ROWS, LENGTH) < 0.8
        weight = torch.randn(ROWS, LENGTH, WIDTH)
        vectors, codes, loss = layer.train()(x, mask=mask)
        ((vectors * weight * mask[..., None]).sum() + loss).backward()
        step = {"x": x, "mask": mask, "weight": weight, "vectors": vectors, "codes": codes}
        step |= {"loss": loss.reshape(()), "gradient": x.grad, "embed": book.embed[0]}
        step |= {"cluster_size": book.cluster_size[0], "embed_avg": book.embed_avg[0]}
        for name, value in step.items():
            found.setdefault(name, []).append(value.detach().clone())
    kept |= {name: torch.stack(values) for name, values in found.items()}
    save_file(kept, Path(__file__).parent / "quantizer.safetensors")


if __name__ == "__main__":
    main()
