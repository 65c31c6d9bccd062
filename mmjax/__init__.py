"""mmjax: multimodal models in JAX/Flax, one loop, one config file an experiment."""
