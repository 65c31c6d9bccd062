"""Make tests/golden/image_condition.safetensors: UnCLIPTextProjModel of diffusers, without text.

    pip install torch==2.13.0 transformers==5.23.0 diffusers==0.42.0
    python tests/golden/make_image_condition.py

Its tensors, image embeddings, and of these with and without guidance the four extra tokens, and
what is added to the embedding of the timestep but the text's part.
"""

from pathlib import Path

import torch
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from golden_files import randomize
from safetensors.torch import save_file

EMBED, TIME, WIDTH, ROWS, LENGTH = 6, 10, 8, 3, 5


def main() -> None:
    torch.manual_seed(0)
    model = randomize(
        UnCLIPTextProjModel(
            clip_embeddings_dim=EMBED, time_embed_dim=TIME, cross_attention_dim=WIDTH
        )
    )
    image, kept = torch.randn(ROWS, EMBED), dict(model.state_dict())
    kept["image_embed"] = image
    for guided in (False, True):
        rows = ROWS * (1 + guided)
        text = torch.randn(rows, EMBED)
        with torch.no_grad():
            tokens, added = model(
                image_embeddings=image,
                prompt_embeds=text,
                text_encoder_hidden_states=torch.randn(rows, LENGTH, EMBED),
                do_classifier_free_guidance=guided,
            )
            added = added - model.embedding_proj(text)
        name = "guided" if guided else "plain"
        kept |= {f"{name}.tokens": tokens[:, :-LENGTH], f"{name}.condition": added}
    kept = {k: x.detach().clone().contiguous() for k, x in kept.items()}
    save_file(kept, Path(__file__).parent / "image_condition.safetensors")


if __name__ == "__main__":
    main()
