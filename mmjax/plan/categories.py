"""What each instruction of a compiled training step is for: matrix products, attention, norms ...

From the HLO text: its opcodes, and the names that Linen's modules and `jax.named_scope` leave in
the metadata of every instruction, also of those of the backward pass. Importable without jax.
"""

import re

from mmjax.plan import compiled

CATEGORIES = ("matmul", "attention", "norm", "loss", "optimizer", "collectives", "other")
SCOPES = ("loss", "optimizer")  # the scopes in mmjax/step.py

_OP_NAME = re.compile(r'\bop_name="([^"]*)"')
_PRODUCTS = ("dot", "convolution", "ragged-dot")
_GEMM = re.compile(r'custom_call_target="[^"]*(gemm|matmul|conv|onednn)', re.IGNORECASE)
# Instructions whose time is that of what they run.
_RUNS_OTHERS = ("while", "conditional", "call", "async-start", "async-done")


def categories(text: str) -> tuple[str, dict[str, str | None]]:
    """The module's name, and instruction -> one of CATEGORIES, from `compiled.as_text()`.

    - `collectives`: communication between devices.
    - `attention`: what is in a module with "attention" or "attn" in its name, but for the matrix
      products of that module's own layers, its projections.
    - `matmul`: the other matrix products and convolutions, with what is fused into them.
    - `norm`: what is in a module whose name has "norm".
    - `loss`, `optimizer`: what is in those scopes.

    A fusion has the category of a product in it, else of its result. None is an instruction that
    only runs others, such as a loop.
    """
    module = re.match(r"\s*HloModule ([\w.\-]+)", text)
    _, computations = compiled.parse(text)

    def of(it) -> str | None:
        if it.opcode in _RUNS_OTHERS:
            return None
        if it.opcode == "fusion":
            inner = computations[it.called("calls")[0]].values()
            for one in inner:
                if (found := _special(one)) is not None:
                    return found
            own = _named(it)
            named = (_named(one) for one in reversed(list(inner)))
            return _by_name(own) if own else _by_name(next(filter(None, named), ""))
        return _special(it) or _by_name(_named(it))

    found = {it.name: of(it) for scope in computations.values() for it in scope.values()}
    return module[1] if module else "", found


def _special(it) -> str | None:
    """The category of a collective or a product; None: neither."""
    kind = it.opcode.removesuffix("-start").removesuffix("-done")
    if kind in compiled.COLLECTIVES:
        return "collectives"
    if it.opcode in _PRODUCTS or (it.opcode == "custom-call" and _GEMM.search(it.rest)):
        path = _named(it)
        if _by_name(path) in SCOPES:  # such as the logits of a contrastive loss
            return _by_name(path)
        return "attention" if _attends(path) else "matmul"
    return None


def _named(it) -> str:
    found = _OP_NAME.search(it.rest)
    return found[1] if found else ""


def _modules(path: str) -> list[str]:
    """Names of modules and scopes in an operation's name; its last part is the operation."""
    parts = re.sub(r"\b(?:jit|jvp|transpose|vmap|remat|checkpoint)\(|\)", "", path).split("/")
    return [part for part in parts[:-1] if part and "." not in part]


def _attends(path: str) -> bool:
    """Whether it is in a module of attention, and not in a layer of that module."""
    modules = [m for m in _modules(path) if m != "closed_call"]
    return bool(modules) and _is_attention(modules[-1])


def _is_attention(module: str) -> bool:
    return ("attention" in module or "attn" in module) and "norm" not in module


def _by_name(path: str) -> str:
    modules = _modules(path)
    for scope in SCOPES:
        if scope in modules:
            return scope
    if any("norm" in module.lower() for module in modules[-1:]):
        return "norm"
    if any(map(_is_attention, modules)):
        return "attention"
    return "other"
