"""Configs that leave out what is usual, as the hub's do, describe models of the published size."""

import types
from pathlib import Path

import jax
import pytest

from mmjax.models.systems import make_system
from mmjax.system import memory_of, statistics_of
from mmjax.variables import abstract_variables
from mmjax.weights import image_processor
from mmjax.weights.families.blip import DECODER, ENCODER
from mmjax.weights.family import family
from mmjax.weights.published import Published

SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
}
GIANT = {"hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24}
LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
}


def clip_resnet(layers, width, side, embed_dim, text_width):
    """open_clip_config.json's content of one of OpenAI's residual networks."""
    vision = {"layers": layers, "width": width, "image_size": side}
    text = {"width": text_width, "heads": text_width // 64}
    return {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text}


def lite(variant, parameters):
    """A row of an EfficientNet-Lite with a head of 1,000 classes."""
    config, head = {"architecture": f"tf_efficientnet_{variant}"}, (1000, 1280)
    return "tf_efficientnet_lite", config, {"classifier.weight": head}, parameters


HEAD = (1000, 768)
FLAVA_HEAD = {"mim_head.decoder.weight": (8192, 768)}
FLAVA_CODEBOOK = {"image_codebook.blocks.input.weight": (256, 3, 7, 7)}
DVAE = 53_786_240  # the encoder
OWL_L14 = {
    "projection_dim": 768,
    "text_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
    },
    "vision_config": {**LARGE, "patch_size": 14, "image_size": 840},
}
LLAMA_1B = {  # Llama 3.2
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
    "tie_word_embeddings": True,
    "rope_theta": 500_000.0,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}
QWEN_HALF_B = {  # Qwen 2.5
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "sliding_window": 32768,
}


LLAMA_13B = {
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
}


def llava(vocab_size, **text):
    """config.json's content of a LLaVA-1.5, whose image tower is the default, CLIP L/14."""
    text = {"vocab_size": vocab_size, "max_position_embeddings": 4096, **text}
    return {"text_config": text, "image_token_index": 31999}


PALIGEMMA_3B = {
    "vision_config": {**SO400M, "patch_size": 14},
    "text_config": {
        "hidden_size": 2048,
        "intermediate_size": 16_384,
        "num_hidden_layers": 18,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "vocab_size": 257_216,
    },
}
GEMMA2_3B = {"model_type": "gemma2", "vocab_size": 257_216}
GEMMA2_9B = {
    "hidden_size": 3584,
    "intermediate_size": 14_336,
    "num_hidden_layers": 42,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
}
GEMMA2_27B = {
    "hidden_size": 4608,
    "intermediate_size": 36_864,
    "num_hidden_layers": 46,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "query_pre_attn_scalar": 144,
}
SMOLVLM_256M = {  # the decoder is SmolLM2-135M with a head of its own
    "vision_config": {"hidden_size": 768, "num_attention_heads": 12, "patch_size": 16}
    | {"image_size": 512},
    "text_config": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49280,
    },
    "image_token_id": 49190,
    "scale_factor": 4,
}
SAM_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "global_attn_indexes": [5, 11, 17, 23],
}
SAM_HUGE = {
    "hidden_size": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "global_attn_indexes": [7, 15, 23, 31],
}


# Counted by transformers 5.23.0 on its meta device; a mask token is none of ours.
@pytest.mark.parametrize(
    ("model_type", "config", "heads", "parameters"),
    [
        ("siglip", {}, {}, 203_155_970),
        (
            "siglip",
            {
                "text_config": SO400M,
                "vision_config": {**SO400M, "image_size": 384, "patch_size": 14},
            },
            {},
            877_960_498,
        ),
        (
            "siglip",  # SigLIP 2
            {"text_config": {"vocab_size": 256_000}, "vision_config": {"image_size": 256}},
            {},
            375_234_050,
        ),
        ("siglip2", {"text_config": {"vocab_size": 256_000}}, {}, 375_234_050),  # NaFlex
        (
            "siglip2",
            {"text_config": {"vocab_size": 256_000, **SO400M}, "vision_config": SO400M},
            {},
            1_135_670_962,
        ),
        ("audioclip", {}, {}, 134_111_910),  # by its own code
        ("clap", {}, {}, 153_492_890),  # laion/clap-htsat-unfused
        ("clap", {"audio_config": {"enable_fusion": True}}, {}, 153_507_530),
        # Published with OpenAI's CLIP: RN50, RN101, RN50x4, RN50x16 and RN50x64.
        ("open_clip", clip_resnet([3, 4, 6, 3], 64, 224, 1024, 512), {}, 102_007_137),
        ("open_clip", clip_resnet([3, 4, 23, 3], 64, 224, 512, 512), {}, 119_688_033),
        ("open_clip", clip_resnet([4, 6, 10, 6], 80, 288, 640, 640), {}, 178_300_601),
        ("open_clip", clip_resnet([6, 8, 18, 8], 96, 384, 768, 768), {}, 290_979_217),
        ("open_clip", clip_resnet([3, 15, 36, 10], 128, 448, 1024, 1024), {}, 623_258_305),
        ("owlvit", {}, {}, 153_231_879),
        ("owlvit", OWL_L14, {}, 433_888_519),
        ("owlv2", {"vision_config": {"image_size": 960}}, {}, 154_966_792),
        # By timm 1.0.31, with the statistics of batch norms, which are parameters here.
        lite("lite0", 4_652_008 + 42_016),
        lite("lite1", 5_416_680 + 53_664),
        lite("lite2", 6_092_072 + 58_096),
        lite("lite3", 8_197_096 + 76_672),
        lite("lite4", 13_006_568 + 112_368),
        ("vilt", {}, {"pooler.dense.weight": (768, 768)}, 111_595_008),
        ("vit", {}, {"classifier.weight": HEAD}, 86_567_656),
        ("vit", {}, {"pooler.dense.weight": (768, 768)}, 86_389_248),
        (
            "deit",
            {},
            {"cls_classifier.weight": HEAD, "distillation_classifier.weight": HEAD},
            87_338_192,
        ),
        ("dinov2", {"image_size": 518}, {}, 86_580_480 - 768),
        ("dinov2", {"image_size": 518, "use_swiglu_ffn": True, **GIANT}, {}, 1_136_480_768 - 1536),
        ("dinov2_with_registers", {"image_size": 518, "patch_size": 14}, {}, 86_583_552 - 768),
        ("llama", LLAMA_1B, {}, 1_235_814_400),
        # The published count, and with 64 tokens more, as in the files of transformers.
        ("llava", llava(32000), {}, 7_062_902_784),
        ("llava", llava(32064), {}, 7_063_427_072),
        ("llava", llava(32000, **LLAMA_13B), {}, 13_350_839_296),
        ("mistral", {}, {"lm_head.weight": (32000, 4096)}, 7_241_732_096),
        ("mistral", {"architectures": ["MistralModel"]}, {}, 7_241_732_096 - 32000 * 4096),
        ("paligemma", PALIGEMMA_3B, {}, 2_923_466_480),
        ("paligemma", {**PALIGEMMA_3B, "text_config": GEMMA2_3B}, {}, 3_032_242_416),
        ("gemma", {}, {}, 8_537_680_896),
        ("gemma2", {}, {}, 2_614_341_888),
        ("gemma2", GEMMA2_9B, {}, 9_241_705_984),
        ("gemma2", GEMMA2_27B, {}, 27_227_128_320),
        ("qwen2", QWEN_HALF_B, {}, 494_032_768),
        ("gpt2", {}, {}, 124_439_808),
        ("smolvlm", SMOLVLM_256M, {}, 256_484_928),
        ("blip", {}, {DECODER: ()}, 223_971_644),
        ("blip", {}, {ENCODER: ()}, 223_744_258),
        ("blip", {}, {ENCODER: (), DECODER: ()}, 361_230_140),
        ("blip", {"vision_config": LARGE}, {DECODER: ()}, 446_290_492),
        ("flava", {}, {}, 241_356_288 + 1),  # and the logit scale
        ("flava", {}, FLAVA_HEAD, 357_645_303 - DVAE),
        ("flava", {}, FLAVA_HEAD | FLAVA_CODEBOOK, 357_645_303),
        ("flava_image_codebook", {}, FLAVA_CODEBOOK, DVAE),
        ("sam", {}, {}, 93_735_472),
        ("sam", {"vision_config": SAM_LARGE}, {}, 312_342_832),
        ("sam", {"vision_config": SAM_HUGE}, {}, 641_090_608),
    ],
)
def test_parameter_counts_are_the_published_ones(model_type, config, heads, parameters):
    tensors = types.SimpleNamespace(name="none", shapes=heads)
    found = Published(Path("none"), {"model_type": model_type, **config}, {}, tensors)
    theirs = family(model_type, "none")
    if hasattr(theirs, "prepare"):
        found, _ = theirs.prepare(found)
    if hasattr(theirs, "image_source"):
        found, _ = image_processor.complete(found, theirs.image_source(found))
    whole = {"model": theirs.model_config(found), "loss": {}}
    system = make_system(whole)
    model = system.model
    given = abstract_variables(model, system.spec)
    params, statistics = given["params"], statistics_of(memory_of(given))
    assert sum(x.size for x in jax.tree.leaves(params)) == parameters
    covered = [name for row in theirs.rows(model) for name in row.ours]
    assert len(covered) == len(jax.tree.leaves([params, statistics]))
    if hasattr(theirs, "image_source"):
        assert image_processor.read(found.preprocessor).transform.startswith(
            (
                "decode | resize",
                "decode | pad_square | resize",
                "decode | tiles",
                "decode | patches",
            )
        )


def test_the_decoder_and_the_prompts_of_sam_have_the_published_sizes():
    system = make_system({"model": {"name": "sam", "image": {"variant": "B/16"}, "decoder": {}}})
    found = abstract_variables(system.model, system.spec)["params"]["masks"]
    sizes = [sum(x.size for x in jax.tree.leaves(found[k])) for k in ("decoder", "prompts")]
    assert sizes == [4_058_340, 6_220]


def test_the_encoders_of_flava_have_the_published_sizes():
    tensors = types.SimpleNamespace(name="none", shapes={})
    found = Published(Path("none"), {"model_type": "flava"}, {}, tensors)
    theirs = family("flava", "none")
    system = make_system({"model": theirs.model_config(theirs.prepare(found)[0])})
    params = abstract_variables(system.model, system.spec)["params"]

    def count(name):
        parts = (name, f"{name}_norm", f"{name}_pooler")
        return sum(x.size for part in parts for x in jax.tree.leaves(params[part]))

    sizes = [count(name) for name in ("image", "text", "multimodal")]
    assert sizes == [86_390_016, 109_483_776, 43_120_128]
