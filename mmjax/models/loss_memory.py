"""What the forms of a contrastive loss hold in memory: notes of a run, and leaner settings."""

from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from mmjax.losses.contrastive import CHUNK_SIZE, MEMORY_MB, choose, held_bytes
from mmjax.sharding import batch_parts


def notes(config: Mapping[str, Any], mesh: Mesh) -> list[str]:
    """The form of the contrastive loss on this mesh, and the memory that each form would need."""
    form, held = _loss_form(config, batch_parts(mesh))
    sizes = ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in held.items())
    loss = config["loss"]
    why = "as config.loss.implementation says"
    if loss.get("implementation", "auto") == "auto":
        why = f"budget {loss.get('memory_mb', MEMORY_MB):g} MB"
    n = config["batch_size"]
    return [f"contrastive loss of {n:,} pairs: {form} ({why}; a device would hold: {sizes})"]


def leaner_losses(config: Mapping[str, Any], devices: int) -> list[tuple[dict[str, Any], int]]:
    """Settings of `config.loss` that need less memory, and the bytes that each saves per device.

    First another form, then that form with smaller chunks; none with hard negatives, for which
    there is one form.

    Args:
      devices: shards of the batch.
    """
    if config["loss"].get("hard_negatives"):
        return []
    now, held = _loss_form(config, devices)
    form = min(("chunked", "ring"), key=held.get)
    chunk_size = max(1, config["loss"].get("chunk_size", CHUNK_SIZE) // 8)
    smaller = _held(config, devices, chunk_size)
    found = [
        ({"implementation": form}, held[now] - held[form]),
        ({"implementation": form, "chunk_size": chunk_size}, held[now] - smaller[form]),
    ]
    return [(settings, saved) for settings, saved in found if saved > 0]


def _loss_form(config: Mapping[str, Any], devices: int) -> tuple[str, dict[str, int]]:
    """The form of the loss, and the bytes that each form would need per device."""
    loss = config["loss"]
    held = _held(config, devices, loss.get("chunk_size", CHUNK_SIZE))
    form = "dense" if loss.get("hard_negatives") else loss.get("implementation", "auto")
    return (choose(held, loss.get("memory_mb", MEMORY_MB)) if form == "auto" else form), held


def _held(config: Mapping[str, Any], devices: int, chunk_size: int) -> dict[str, int]:
    return held_bytes(config["batch_size"], config["model"]["embed_dim"], chunk_size, devices)
