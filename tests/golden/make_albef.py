"""Make tests/golden/{albef,albef_retrieval}/ with the original ALBEF at a small random size.

    git clone https://github.com/salesforce/ALBEF && cd ALBEF && \
        git checkout b9727e43c3040491774d1b22cc27718aa7772fac
    python tests/golden/make_albef.py PATH/ALBEF

Made with torch 2.13.0 and tokenizers 0.23.3. The original needs transformers 4.8 and timm 0.4; what
it uses of them is replaced below. `albef` is the pretraining
model, with its momentum copies, queue and tied head as in the published file; it has a step's
losses and gradients, with the negatives and masks that were drawn. `albef_retrieval` has the names
of the fine-tuned ones, without a head for words.
"""

import sys
import types
from functools import partial

import torch
from golden_files import write
from old_libraries import stand_ins
from safetensors.torch import save_file
from small_models import folder, images, padded, pixel_values, redraw, wordpiece, write_json

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
SIZE = {"image_res": 24, "patch_size": 8, "vision_width": 12, "vision_depth": 2, "vision_heads": 3}
BERT = {
    "vocab_size": 96,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "fusion_layer": 1,
    "encoder_width": 12,
}
PRETRAIN = {"embed_dim": 12, "temp": 0.07, "queue_size": 14, "momentum": 0.9}
PRETRAIN |= {"alpha": 0.4, "mlm_probability": 0.3}
ALPHA, ROWS, LENGTH = 0.3, 7, 9


def original(path):
    """Its modules `vit`, `xbert` and `model_pretrain`, with stand-ins for the old libraries."""

    stand_ins()
    sys.path.insert(0, path)
    from models import model_pretrain, vit, xbert

    return model_pretrain, vit, xbert


def bert_config():
    """What xbert reads of a BertConfig."""
    others = {"chunk_size_feed_forward": 0, "use_return_dict": True, "add_cross_attention": False}
    others |= {"output_attentions": False, "output_hidden_states": False}
    return types.SimpleNamespace(**BERT, **others)


def image_encoder(vit):
    """A VisionTransformer of the small size, built as model_pretrain.py does."""
    return vit.VisionTransformer(
        img_size=SIZE["image_res"],
        patch_size=SIZE["patch_size"],
        embed_dim=SIZE["vision_width"],
        depth=SIZE["vision_depth"],
        num_heads=SIZE["vision_heads"],
        mlp_ratio=4,
        qkv_bias=True,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
    )


def tied(xbert):
    """BertForMaskedLM, whose output table transformers ties to the input's."""
    model = xbert.BertForMaskedLM(bert_config())
    model.cls.predictions.decoder.weight = model.bert.embeddings.word_embeddings.weight
    return model


def build(model_pretrain, vit, xbert):
    """An `ALBEF` with all that its constructor makes, without downloading BERT and DeiT."""
    model = model_pretrain.ALBEF.__new__(model_pretrain.ALBEF)
    torch.nn.Module.__init__(model)
    width, dim, queue = BERT["hidden_size"], PRETRAIN["embed_dim"], PRETRAIN["queue_size"]
    model.tokenizer = types.SimpleNamespace(pad_token_id=0, cls_token_id=2, mask_token_id=4)
    model.mlm_probability = PRETRAIN["mlm_probability"]
    for suffix in ("", "_m"):
        setattr(model, f"visual_encoder{suffix}", image_encoder(vit))
        setattr(model, f"text_encoder{suffix}", tied(xbert))
        setattr(model, f"vision_proj{suffix}", torch.nn.Linear(SIZE["vision_width"], dim))
        setattr(model, f"text_proj{suffix}", torch.nn.Linear(width, dim))
    model.itm_head = torch.nn.Linear(width, 2)
    model.temp = torch.nn.Parameter(torch.tensor(PRETRAIN["temp"]))
    model.queue_size, model.momentum = queue, PRETRAIN["momentum"]
    redraw(model, seed=3)
    with torch.no_grad():
        model.temp.fill_(0.11)
    model.model_pairs = []  # the momentum copies stay as they are in the file
    for name in ("image", "text"):
        unit = torch.nn.functional.normalize(torch.randn(dim, queue), dim=0)
        model.register_buffer(f"{name}_queue", unit)
    model.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
    return model


def layers(model, blocks, run):
    """The output of every block, [layers, B, L, D], of `run(model)`."""
    kept = []

    def keep(module, inputs, output):
        kept.append(output[0] if isinstance(output, tuple) else output)

    hooks = [block.register_forward_hook(keep) for block in blocks]
    run(model)
    for hook in hooks:
        hook.remove()
    return kept


def grad_cam(model, pixels, text, layer):
    """The notebook's maps of one fusion layer [B, L, rows, columns], of pairs with masks."""
    attention = model.text_encoder.bert.encoder.layer[layer].crossattention.self
    attention.save_attention = True
    image = model.visual_encoder(pixels)
    found = model.text_encoder.bert(
        text.input_ids,
        attention_mask=text.attention_mask,
        encoder_hidden_states=image,
        encoder_attention_mask=torch.ones(image.shape[:-1], dtype=torch.long),
        return_dict=True,
    )
    model.itm_head(found.last_hidden_state[:, 0])[:, 1].sum().backward()
    attention.save_attention = False
    mask = text.attention_mask.view(len(pixels), 1, -1, 1, 1)
    side, heads = SIZE["image_res"] // SIZE["patch_size"], BERT["num_attention_heads"]
    shape = (len(pixels), heads, -1, side, side)
    cams = attention.get_attention_map()[..., 1:].reshape(shape) * mask
    grads = attention.get_attn_gradients()[..., 1:].clamp(0).reshape(shape) * mask
    model.zero_grad()
    return (cams * grads).mean(1)


def main():
    model_pretrain, vit, xbert = original(sys.argv[1])
    model_pretrain.concat_all_gather = lambda x: x  # one process
    torch.manual_seed(0)
    model = build(model_pretrain, vit, xbert).train()  # without dropout, as the config says
    ids, mask = padded([9, 7, 3, 5, 9, 4, 6], LENGTH, 5, 90)
    ids[:, 0] = 2
    image = images(ROWS, SIZE["image_res"], SIZE["image_res"])
    pixels = pixel_values(image, MEAN, STD)
    text = types.SimpleNamespace(input_ids=ids, attention_mask=mask.long())
    bert = model.text_encoder.bert
    state = {k: x.clone() for k, x in model.state_dict().items()}

    # ---- layer by layer
    with torch.no_grad():
        blocks = model.visual_encoder.blocks
        image_layers = layers(model, blocks, lambda m: m.visual_encoder(pixels))
        tokens = model.visual_encoder(pixels)
        alone = {"attention_mask": text.attention_mask, "return_dict": True, "mode": "text"}
        text_layers = layers(model, bert.encoder.layer, lambda m: bert(ids, **alone))
        encoded = bert(ids, **alone).last_hidden_state
        together = {"attention_mask": text.attention_mask, "return_dict": True}
        together |= {"encoder_hidden_states": tokens}
        together |= {"encoder_attention_mask": torch.ones(tokens.shape[:-1], dtype=torch.long)}
        fusion_layers = layers(
            model,
            bert.encoder.layer[BERT["fusion_layer"] :],
            lambda m: bert(encoder_embeds=encoded, mode="fusion", **together),
        )
        match_logits = model.itm_head(fusion_layers[-1][:, 0])
        unit = torch.nn.functional.normalize
        embeds = {
            "image_embed": unit(model.vision_proj(tokens[:, 0]), dim=-1),
            "text_embed": unit(model.text_proj(encoded[:, 0]), dim=-1),
        }
    maps = grad_cam(model, pixels, text, BERT["fusion_layer"] + 1)

    # ---- a step of pretraining, with what it draws
    negatives, multinomial = [], torch.multinomial
    torch.multinomial = lambda p, n: negatives.append(multinomial(p, n)) or negatives[-1]
    drawn, mask_words = {}, model.mask

    def recorded(*args, **kwargs):
        drawn["ids"], drawn["labels"] = mask_words(*args, **kwargs)
        return drawn["ids"], drawn["labels"]

    model.mask = recorded
    head, seen = model.text_encoder, {}
    head.cls.register_forward_hook(lambda m, i, o: seen.update(text_prediction=o))
    losses = dict(zip(("masked_text", "contrastive", "matching"), model(pixels, text, ALPHA)))
    sum(losses.values()).backward()
    chosen = torch.cat(negatives).reshape(2, ROWS)  # images of the texts, then texts of the images
    grads = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    queue = {f"{k}_queue_after": getattr(model, f"{k}_queue").T for k in ("image", "text")}

    out = folder(__file__, "albef")
    wordpiece(out, BERT["vocab_size"] - 6)
    config = {"model_type": "albef", **SIZE, "bert_config": BERT}
    write_json(out / "config.json", config | PRETRAIN | {"mask_token_id": 4})
    save_file({k: x.contiguous() for k, x in state.items()}, out / "model.safetensors")
    save_file({k: x.contiguous() for k, x in grads.items()}, out / "gradients.safetensors")
    write(
        out,
        image=image,
        text=ids.int(),
        text_mask=mask,
        image_layers=torch.stack(image_layers),
        image_tokens=tokens,
        text_layers=torch.stack(text_layers),
        fusion_layers=torch.stack(fusion_layers),
        match_logits=match_logits,
        grad_cam=maps,
        text_corrupted=drawn["ids"].int(),
        text_masked=drawn["labels"] != -100,
        text_prediction=seen["text_prediction"],
        negative_image=chosen[0].int(),
        negative_text=chosen[1].int(),
        **losses,
        **embeds,
        **queue,
    )

    # ---- as fine-tuned for retrieval: BertModel instead of BertForMaskedLM
    out = folder(__file__, "albef_retrieval")
    wordpiece(out, BERT["vocab_size"] - 6)
    write_json(out / "config.json", config | {k: PRETRAIN[k] for k in ("embed_dim", "temp")})
    kept = {
        k.replace("text_encoder.bert.", "text_encoder."): x.half()
        for k, x in state.items()
        if x.is_floating_point() and ".cls." not in k and "_m." not in k and "queue" not in k
    }
    save_file({k: x.contiguous() for k, x in kept.items()}, out / "model.safetensors")
    for name, parameter in model.named_parameters():
        key = name.replace("text_encoder.bert.", "text_encoder.")
        if key in kept:
            parameter.data.copy_(kept[key].float())
    with torch.no_grad():
        tokens = model.visual_encoder(pixels)
        together["encoder_hidden_states"] = tokens
        fused = bert(ids, **together).last_hidden_state
        write(
            out,
            image=image,
            text=ids.int(),
            text_mask=mask,
            match_logits=model.itm_head(fused[:, 0]),
            image_embed=unit(model.vision_proj(tokens[:, 0]), dim=-1),
        )


if __name__ == "__main__":
    main()
