"""Make tests/golden/{karlo,karlo_variation}: small random pipelines of unCLIP in diffusers, with
every state of their samplers, whose tables are in float64.

    pip install torch==2.13.0 transformers==5.23.0 diffusers==0.42.0 pillow
    python tests/golden/make_karlo.py

karlo: a UnCLIPPipeline. karlo_variation: what a UnCLIPImageVariationPipeline has beside it; the
other folders are those of karlo. Images and states are [B, H, W, C]; `noise_X` and `states_X` [N,
B, ...] are of the N steps of a sampler, without noise in the last; `parts_X` are the outputs of the
blocks of a U-Net in its first call, with its inputs. Weights are in half precision.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    PriorTransformer,
    UnCLIPImageVariationPipeline,
    UnCLIPPipeline,
    UnCLIPScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.pipelines.deprecated.unclip import pipeline_unclip, pipeline_unclip_image_variation
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from diffusers.schedulers import scheduling_unclip
from golden_files import randomize, write
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

HERE = Path(__file__).parent
PROMPTS = ["a red bus!", "two small dogs run over the grass, and a cup of tea"]
WIDTH, LENGTH = 12, 9
DRAWS = []  # of the pipelines: starts and noise
SIMPLE = {"resnet_time_scale_shift": "scale_shift", "norm_num_groups": 2}
DECODER = {
    **SIMPLE,
    "sample_size": 6,
    "layers_per_block": 1,
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "block_out_channels": (4, 8),
    "in_channels": 3,
    "out_channels": 6,
    "cross_attention_dim": 10,
    "class_embed_type": "identity",
    "attention_head_dim": 4,
}
SUPER_RES = {
    "sample_size": 10,
    "layers_per_block": 1,
    "down_block_types": ("ResnetDownsampleBlock2D",) * 2,
    "up_block_types": ("ResnetUpsampleBlock2D",) * 2,
    "block_out_channels": (4, 6),
    "in_channels": 6,
    "out_channels": 3,
    "add_attention": False,
    "norm_num_groups": 2,
}
# Another one, so that it cannot be taken for the first; the published one has no sample_size.
LAST = SUPER_RES | SIMPLE | {"block_out_channels": (6, 4), "sample_size": None}


def drawn(shape, **_):
    """In place of randn_tensor: as it, and kept."""
    DRAWS.append(torch.randn(tuple(shape)))
    return DRAWS[-1]


class Kept(UnCLIPScheduler):
    """Keeps every state, and has its tables in float64."""

    def prepare(self):
        """The tables as float64: in float32 the last step multiplies its sample by 0.9995."""
        self.states = []
        steps = torch.linspace(0, 1, self.config.num_train_timesteps + 1, dtype=torch.float64)
        remaining = torch.cos((steps + 0.008) / 1.008 * torch.pi / 2) ** 2
        self.betas = (1 - remaining[1:] / remaining[:-1]).clamp(max=0.999)
        self.alphas = 1 - self.betas
        self.alphas_cumprod = torch.cumprod(self.alphas, 0)

    def step(self, *given, **named):
        """As it was."""
        found = super().step(*given, **named)
        self.states.append(found.prev_sample)
        return found


def last_channels(x):
    """[..., C, H, W] -> [..., H, W, C]; others as they are."""
    return x.movedim(-3, -1) if x.ndim > 3 else x


def keep_parts(model, name, kept):
    """Hooks that keep the inputs and the outputs of blocks of a U-Net's first call."""
    parts = [*model.down_blocks, model.mid_block, *model.up_blocks]
    for i, part in enumerate([*parts, model]):

        def keep(module, given, named, output, key=f"parts_{name}/part{i}"):
            x = output if isinstance(output, torch.Tensor) else output[0]
            kept.setdefault(key, last_channels(x))
            if module is model:
                x, time = named["sample"], named["timestep"].expand(len(named["sample"]))
                kept.setdefault(f"parts_{name}/x", last_channels(x))
                kept.setdefault(f"parts_{name}/time", time)

        part.register_forward_hook(keep, with_kwargs=True)


def run(pipe, folder, names, kept, **given):
    """One run of a pipeline, with its draws and the states of its schedulers."""
    DRAWS[:] = []
    schedulers = [getattr(pipe, f"{name}_scheduler") for name in names]
    for scheduler in schedulers:
        scheduler.__class__ = Kept
        scheduler.prepare()

    def keep_condition(module, given, output):
        kept["context"], kept["condition"] = output

    pipe.text_proj.register_forward_hook(keep_condition)
    torch.manual_seed(1)
    found = pipe(**given, output_type="np").images
    draws = list(DRAWS)
    for name, scheduler in zip(names, schedulers):
        count = len(scheduler.states)
        start, *noise = draws[:count]  # none in the last step
        draws = draws[count:]
        kept |= {f"start_{name}": last_channels(start)}
        kept |= {f"noise_{name}": last_channels(torch.stack(noise))}
        kept |= {f"states_{name}": last_channels(torch.stack(scheduler.states))}
    assert not draws
    write(folder, **kept, image=found)
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)


def fresh(name):
    """An empty golden folder."""
    shutil.rmtree(HERE / name, ignore_errors=True)
    return HERE / name


def main():
    """Both folders."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for module in (pipeline_unclip, pipeline_unclip_image_variation, scheduling_unclip):
        module.randn_tensor = drawn
    tower = {"hidden_size": WIDTH, "intermediate_size": 20, "projection_dim": WIDTH}
    tower |= {"num_hidden_layers": 2, "num_attention_heads": 3, "hidden_act": "quick_gelu"}
    text = CLIPTextConfig(
        **tower, vocab_size=555, max_position_embeddings=LENGTH, eos_token_id=554, bos_token_id=553
    )
    vocabulary = [str(HERE / "tokenizers" / f"clip_{x}") for x in ("vocab.json", "merges.txt")]
    words = CLIPTokenizer(*vocabulary, pad_token="!", model_max_length=LENGTH)
    prior = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        embedding_dim=WIDTH,
        num_embeddings=LENGTH,
    )
    shared = {
        "decoder": UNet2DConditionModel(**DECODER),
        "text_encoder": CLIPTextModelWithProjection(text),
        "text_proj": UnCLIPTextProjModel(
            clip_extra_context_tokens=3,
            clip_embeddings_dim=WIDTH,
            time_embed_dim=16,
            cross_attention_dim=10,
        ),
        "super_res_first": UNet2DModel(**SUPER_RES),
        "super_res_last": UNet2DModel(**LAST),
    }
    image = CLIPVisionModelWithProjection(
        CLIPVisionConfig(**tower | {"num_hidden_layers": 1}, image_size=10, patch_size=5)
    )
    for i, model in enumerate([prior, image, *shared.values()]):
        randomize(model, i).half().eval()
    shared |= {
        "tokenizer": words,
        "decoder_scheduler": UnCLIPScheduler(variance_type="learned_range"),
        "super_res_scheduler": UnCLIPScheduler(),
    }
    scheduler = UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0)
    texts = UnCLIPPipeline(prior=prior, prior_scheduler=scheduler, **shared)
    texts.set_progress_bar_config(disable=True)
    texts.save_pretrained(fresh("karlo"))
    images = UnCLIPImageVariationPipeline(
        **shared,
        feature_extractor=CLIPImageProcessorPil(size={"shortest_edge": 10}, crop_size=10),
        image_encoder=image,
    )
    images.set_progress_bar_config(disable=True)
    images.save_pretrained(fresh("karlo_variation"))
    for name in shared:
        shutil.rmtree(HERE / "karlo_variation" / name)
    parts = {}
    for name in ("decoder", "super_res_first", "super_res_last"):
        keep_parts(shared[name], name, parts)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 10, 10, 3), dtype=np.uint8)
    for pipe in (texts, images):
        pipe.to(torch.float32)
    run(
        texts,
        HERE / "karlo",
        ("prior", "decoder", "super_res"),
        prompt=PROMPTS,
        prior_num_inference_steps=5,
        decoder_num_inference_steps=6,
        super_res_num_inference_steps=4,
        kept=parts,
    )
    run(
        images,
        HERE / "karlo_variation",
        ("decoder", "super_res"),
        image=[Image.fromarray(x) for x in pixels],
        decoder_guidance_scale=1.0,
        decoder_num_inference_steps=3,
        super_res_num_inference_steps=2,
        kept={"pixels": pixels},
    )


if __name__ == "__main__":
    main()
