"""mmjax: multimodal models in JAX/Flax, one training loop, one config file per experiment."""


def __getattr__(name):
    """Import `load` and `save_pretrained` on first use, so that commands start without jax."""
    if name in ("load", "save_pretrained"):
        from mmjax import pretrained

        return getattr(pretrained, name)
    raise AttributeError(f"module 'mmjax' has no attribute '{name}'")
