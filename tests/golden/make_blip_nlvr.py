"""Make tests/golden/blip_nlvr/ with the original BLIP's model for NLVR2 at a small random size.

    git clone https://github.com/salesforce/BLIP && cd BLIP && \
        git checkout 056a169437371659074aa2732649d5de3bffb4a8
    python tests/golden/make_blip_nlvr.py PATH/BLIP

Made with torch 2.13.0 and tokenizers 0.23.3. What the original needs of transformers 4.15, timm 0.4
and fairscale is replaced (old_libraries.py). Its layers from the seventh on merge, so there are 8.
"""

import sys
import types

import torch
from golden_files import write
from old_libraries import stand_ins
from safetensors.torch import save_file
from small_models import folder, images, padded, pixel_values, redraw, wordpiece, write_json

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
SIZE = {"image_res": 24, "patch_size": 8, "vision_width": 12, "vision_depth": 2, "vision_heads": 3}
MED = {
    "vocab_size": 96,
    "hidden_size": 16,
    "num_hidden_layers": 8,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "encoder_width": 12,
    "add_cross_attention": True,
}
ROWS, LENGTH, ENCODE = 5, 9, 95


def original(path):
    """Its modules `blip_nlvr`, `nlvr_encoder` and `vit`."""
    stand_ins()
    sys.path.insert(0, path)
    from models import blip_nlvr, nlvr_encoder, vit

    return blip_nlvr, nlvr_encoder, vit


def build(blip_nlvr, nlvr_encoder, vit):
    """A `BLIP_NLVR` with all that its constructor makes, without downloading BERT."""
    model = blip_nlvr.BLIP_NLVR.__new__(blip_nlvr.BLIP_NLVR)
    torch.nn.Module.__init__(model)
    model.visual_encoder = vit.VisionTransformer(
        img_size=SIZE["image_res"],
        patch_size=SIZE["patch_size"],
        embed_dim=SIZE["vision_width"],
        depth=SIZE["vision_depth"],
        num_heads=SIZE["vision_heads"],
    )
    others = {"chunk_size_feed_forward": 0, "use_return_dict": True}
    others |= {"output_attentions": False, "output_hidden_states": False}
    config = types.SimpleNamespace(**MED, **others)
    model.text_encoder = nlvr_encoder.BertModel(config=config, add_pooling_layer=False)
    width = MED["hidden_size"]
    model.cls_head = torch.nn.Sequential(
        torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 2)
    )
    return redraw(model, seed=5)


def main():
    torch.manual_seed(0)
    model = build(*original(sys.argv[1]))
    ids, mask = padded([9, 7, 3, 5, 8], LENGTH, 5, 90)
    ids[:, 0] = 2
    image = torch.stack([images(ROWS, 24, 24, seed=i) for i in (0, 1)], 1)
    pixels = pixel_values(image.transpose(0, 1).flatten(0, 1), MEAN, STD)

    class Text(types.SimpleNamespace):
        def to(self, device):
            return self

    text = Text(input_ids=ids.clone(), attention_mask=mask.long())
    model.tokenizer = lambda texts, **how: text
    model.tokenizer.enc_token_id = ENCODE
    labels, kept = torch.tensor([1, 0, 0, 1, 1]), []
    for layer in model.text_encoder.encoder.layer:
        layer.register_forward_hook(lambda module, inputs, output: kept.append(output[0]))
    logits = model(pixels, None, labels, train=False)
    layers = torch.stack(kept)
    loss = model(pixels, None, labels, train=True)
    loss.backward()

    out = folder(__file__)
    wordpiece(out, MED["vocab_size"] - 6)
    config = {"model_type": "blip_nlvr", **SIZE, "enc_token_id": ENCODE, "med_config": MED}
    write_json(out / "config.json", config)
    state = {k: x.contiguous() for k, x in model.state_dict().items()}
    save_file(state, out / "model.safetensors")
    grads = {k: p.grad.contiguous() for k, p in model.named_parameters()}
    save_file(grads, out / "gradients.safetensors")
    write(
        out,
        image=image,
        text=ids.int(),
        text_mask=mask,
        label=labels.int(),
        text_layers=layers,
        logits=logits,
        loss=loss,
    )


if __name__ == "__main__":
    main()
