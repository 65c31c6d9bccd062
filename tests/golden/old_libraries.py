"""What salesforce's ALBEF and BLIP use of transformers 4.x, timm 0.4 and fairscale, replaced."""

import sys
import types
from unittest.mock import MagicMock

import torch


def stand_ins():
    """Install them as modules; call before the original is imported."""

    class PatchEmbed(torch.nn.Module):
        def __init__(self, img_size, patch_size, in_chans, embed_dim):
            super().__init__()
            self.num_patches = (img_size // patch_size) ** 2
            self.proj = torch.nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)

        def forward(self, x):
            return self.proj(x).flatten(2).transpose(1, 2)

    def plain(*args, **kwargs):
        return lambda function: function

    class Output(dict):
        __getattr__ = dict.get

        def __getitem__(self, place):
            return [*self.values()][place]

    class PreTrainedModel(torch.nn.Module):
        dtype = torch.float32

        def __init__(self, config):
            super().__init__()
            self.config = config

        def init_weights(self):
            pass

        def get_head_mask(self, head_mask, layers):
            return [None] * layers

        def invert_attention_mask(self, mask):
            return (1.0 - mask[:, None, None, :].float()) * -10000.0

    def apply_chunking_to_forward(function, chunk_size, dim, *inputs):
        return function(*inputs)

    timm = {"_cfg": None, "PatchEmbed": PatchEmbed, "register_model": None}
    timm |= {"trunc_normal_": torch.nn.init.trunc_normal_, "DropPath": torch.nn.Identity}
    stubs = {
        "activations": {"ACT2FN": {"gelu": torch.nn.functional.gelu}},
        "file_utils": {
            **{f"add_{x}": plain for x in ("code_sample_docstrings", "start_docstrings")},
            "add_start_docstrings_to_model_forward": plain,
            "replace_return_docstrings": plain,
            "ModelOutput": Output,
        },
        "modeling_outputs": {},
        "modeling_utils": {
            "PreTrainedModel": PreTrainedModel,
            "apply_chunking_to_forward": apply_chunking_to_forward,
            "find_pruneable_heads_and_indices": None,
            "prune_linear_layer": None,
        },
        "utils": {"logging": MagicMock()},
        "models": {},
        "models.bert": {},
        "models.bert.configuration_bert": {"BertConfig": types.SimpleNamespace},
    }
    outputs = "BaseModelOutputWithPastAndCrossAttentions MaskedLMOutput TokenClassifierOutput "
    outputs += "BaseModelOutputWithPoolingAndCrossAttentions CausalLMOutputWithCrossAttentions "
    outputs += "MultipleChoiceModelOutput NextSentencePredictorOutput SequenceClassifierOutput "
    outputs += "QuestionAnsweringModelOutput"
    stubs["modeling_outputs"] |= dict.fromkeys(outputs.split(), Output)
    stubs = {
        "": {"logging": MagicMock(), "BertTokenizer": None},
        **{f".{k}": x for k, x in stubs.items()},
    }
    stubs = {f"transformers{k}": x for k, x in stubs.items()}
    timm |= dict.fromkeys(("named_apply", "adapt_input_conv", "download_cached_file"))
    stubs |= dict.fromkeys(("timm", "timm.models", "fairscale", "fairscale.nn"), {})
    parts = ("vision_transformer", "registry", "layers", "helpers", "hub")
    stubs |= {f"timm.models.{x}": timm for x in parts}
    stubs["fairscale.nn.checkpoint"] = {}
    stubs["fairscale.nn.checkpoint.checkpoint_activations"] = {"checkpoint_wrapper": None}
    for name, content in stubs.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(content)
