"""Early fusion of features: each modality's pooled vector, concatenated, through an MLP."""

from collections.abc import Mapping

from mmjax.layers.activations import activation
from mmjax.layers.fusion.streams import Fused, Fusion, Stream
from mmjax.layers.linear import Linear


class EarlyFeatures(Fusion):
    """A transformer per modality; their pooled features [B, M · D] -> MLP -> [B, D]."""

    def fuse(self, streams: Mapping[str, Stream], train: bool) -> Fused:
        tokens, pooled = self.own_transformers(streams, train)
        width = pooled.shape[-1]
        # A kernel over [M, D] is a kernel over the concatenated vector.
        names = (None, "embed", "mlp")
        h = Linear((self.mlp_dim,), names, dtype=self.dtype, name="up")(pooled)
        h = activation(self.activation)(h)
        return Fused(Linear((width,), ("mlp", "embed"), dtype=self.dtype, name="down")(h), tokens)
