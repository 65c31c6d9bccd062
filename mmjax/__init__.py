"""mmjax: multimodal models in JAX/Flax, one loop, one config file an experiment."""


def __getattr__(name):
    """`mmjax.load` and its like, imported when used: commands start without jax."""
    if name in ("load", "save_pretrained"):
        from mmjax import pretrained

        return getattr(pretrained, name)
    raise AttributeError(f"module 'mmjax' has no attribute '{name}'")
