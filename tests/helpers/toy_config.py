"""Toy-sized configs for the tests."""

from mmjax import config as configs

TOWER = {"width": 16, "heads": 2, "mlp_dim": 32, "remat": "none"}
IMAGE = TOWER | {"patch_size": 4, "image_size": (8, 8)}
TEXT = TOWER | {"vocab_size": 64, "length": 8}


def shrink(config, dtype="float32", depth=1):
    """Reduce a config in place to batch size 8 and width 16 on images of 2 x 2 patches.

    What characterizes it is kept: pooling, loss, optimizer, frozen parts, dropout.
    """
    with config.unlocked(), config.ignore_type():
        config.batch_size, config.total_steps = 8, 10
        config.optim.warmup_steps = 2
        config.optim.learning_rate = 1e-2  # one for all: equal programs are compiled once
        config.model.dtype = dtype
        if config.model.get("given"):  # a CLIP on features
            stage = {"channels": 4, "depth": 1, "kernel": 3, "stride": 1, "expand": 1}
            config.model.embed_dim = 16
            if config.model.get("head"):
                config.model.head.inner = 8
            else:
                config.model.text_map = 8
            config.model.given = {"image_features": 16, "text_features": 16}
            config.model.image.update(stem=4, stages=(stage,), head=16, image_size=8)
            config.model.text.update(TEXT, depth=depth)
        elif config.model.name == "aligner":
            config.model.update(image_width=16, text_width=12, embed_dim=8, head={"inner": 8})
        elif config.model.name in ("clip", "noised_clip", "owlvit"):
            config.model.embed_dim = 16
            image = config.model.image
            if image.get("kind") == "frames":
                image.update(frames=2, depth=depth, heads=2, mlp_dim=32)
                image = image.image
            if image.get("kind") == "naflex":
                image.update(TOWER, depth=depth, patch_size=4, position_grid=(2, 2), max_patches=6)
            else:
                image.update(IMAGE, depth=depth)
            config.model.text.update(TEXT, depth=depth)
            if config.model.name == "owlvit":
                config.model.update(queries=3, boxes=2)
        elif config.model.name == "diffusion_prior":
            config.model.embed_dim = 16
            config.model.image.update(IMAGE, depth=depth)
            config.model.text.update(TEXT, depth=depth)
            config.model.prior.update(width=16, depth=depth, heads=2, remat="none")
        elif config.model.name == "clap":
            config.model.embed_dim = 16
            audio = {"frames": 30, "mels": 8, "image_size": 16, "width": 8, "window": 2}
            config.model.audio.update(audio, depths=(2, 1), heads=(1, 2), remat="none")
            config.model.text.update(TEXT, depth=depth)
        elif config.model.name == "audioclip":
            _shrink_three(config.model, depth)
        elif config.model.name == "albef":
            group = config.model.get("negative_group", 0)
            config.model.update(embed_dim=16, negative_group=group and 4)
            config.model.image.update(IMAGE, depth=depth)
            config.model.text.update(TEXT, depth=depth + 1, fusion_depth=1, mask_token=63)
            config.loss.queue_size = 12
        elif config.model.name == "audio_classifier":
            config.model.update(TOWER, depth=depth, frames=8, bins=4)
            square = config.model.patch_size[0] > 1
            sides = {"patch_size": (4, 4), "stride": (2, 2)} if square else {}
            config.model.update(sides or {"patch_size": (1, 4), "stride": (1, 4)})
        elif config.model.name == "avsr":
            _shrink_speech(config.model, depth)
        elif config.model.name == "multimodal":
            config.model.update({k: TOWER[k] for k in ("width", "heads", "mlp_dim")})
            config.model.encoder_depth = config.model.fusion.depth = depth
            config.model.image.update(image_size=(8, 8), patch_size=4)
            if "audio" in config.model:
                config.model.audio.update(frames=8, mels=4, patch_size=4)
            if "text" in config.model:
                config.model.text.update(vocab_size=TEXT["vocab_size"], length=TEXT["length"])
        elif config.model.name == "vqa":
            main = config.model.main
            main.update({k: TOWER[k] for k in ("width", "heads", "mlp_dim")})
            main.encoder_depth = main.fusion.depth = depth
            main.image.update(image_size=(8, 8), patch_size=4)
            main.text.update(vocab_size=TEXT["vocab_size"], length=TEXT["length"])
            config.model.question.update(TOWER, depth=depth, length=TEXT["length"])
        elif config.model.name == "blip":
            config.model.embed_dim = 16
            config.model.image.update(IMAGE, depth=depth)
            config.model.text.update(TEXT, depth=depth)
            config.model.update(encode_token=62, decode_token=63, negative_group=0)
        elif config.model.name == "blip_nlvr":
            config.model.image.update(IMAGE, depth=depth)
            config.model.text.update(TEXT, depth=depth + 1, merge_depth=1)
            config.model.encode_token = 63
        elif config.model.name == "vilt":
            config.model.update({k: TOWER[k] for k in ("width", "heads", "mlp_dim")}, depth=depth)
            config.model.image.update(image_size=(8, 8), patch_size=4)
            config.model.text.update(vocab_size=TEXT["vocab_size"], length=TEXT["length"])
            if config.model.image.get("padded_size"):
                config.model.image.update(padded_size=(8, 8), max_patches=None)
                config.loss.mask_id = 1
        elif config.model.name in ("captioner", "coca", "flamingo"):
            _shrink_writer(config.model, depth)
        elif config.model.name == "language_model":
            config.model.text.update({k: TEXT[k] for k in ("vocab_size", "width", "length")})
            config.model.text.decoder.update(depth=depth, heads=2, mlp_dim=32)
        elif config.model.name == "llava":
            _shrink_llava(config.model, depth)
        elif config.model.name == "video_vit":
            config.model.update(TOWER, depth=depth, frames=4, image_size=8, tubelet=(2, 4, 4))
            if "temporal_depth" in config.model:
                config.model.temporal_depth = 1
            if "decoder" in config.model:
                config.model.decoder.update(width=8, depth=depth, heads=2, mlp_dim=16)
        elif config.model.name == "image_tokenizer":
            _shrink_codes(config.model)
        elif config.model.name == "dalle":
            config.model.update(width=16)
            config.model.text.update(vocab_size=TEXT["vocab_size"], length=TEXT["length"])
            sizes = {"depth": depth, "heads": 2, "mlp_dim": 32, "remat": "none", "kernel": 3}
            config.model.decoder.update(sizes)
            _shrink_codes(config.model.image_tokenizer)
        elif config.model.name == "video_vq":
            config.model.update(frames=2, size=(8, 8), channels=(8, 8), temporal=1, blocks=1)
            config.model.update(codes=6, code_width=4)
        elif config.model.name == "videobert":
            names = ("vocab_size", "width", "heads", "mlp_dim", "length")
            config.model.text.update({k: TEXT[k] for k in names}, depth=depth)
            config.model.update(codes=10, frames=3, start=1, end=2, separator=62, mask=63)
            config.model.remat = "none"
            config.loss.update(mask_ratio=0.5, both=6.0)  # so that a small batch has all regimes
        elif config.model.name in ("diffusion", "glide", "unclip"):
            _shrink_diffusion(config.model, depth)
        elif config.model.name == "whisper":
            sizes = {"depth": depth, "heads": 2, "mlp_dim": 32, "remat": "none"}
            config.model.audio.update(mels=4, length=6, width=16, **sizes)
            config.model.text.update({k: TEXT[k] for k in ("vocab_size", "width", "length")})
            config.model.text.decoder.update(sizes)
        elif config.model.name == "relation_network":
            config.model.update(image_size=(8, 8), channels=8, layers=2, width=16)
            config.model.update({k: TEXT[k] for k in ("vocab_size", "length")})
        elif config.model.name == "sam":
            image = {"patch_size": 4, "image_size": 16, "window": 3, "global_blocks": (1,)}
            config.model.image.update(TOWER, depth=2, out_width=16, **image)
            config.model.decoder.update(depth=1, heads=2, mlp_dim=16, iou_width=8, remat="none")
            config.model.update(objects=2, clicks=2, test_clicks=2)
        elif config.model.name == "flava":
            config.model.update(embed_dim=16, codebook_size=10)
            if config.model.codebook.kind == "dvae":  # of 8 x 8 pixels
                config.model.codebook = {"kind": "dvae", "width": 8, "blocks": 1}
            else:
                config.model.codebook.patch_size = 8
            config.model.codebook.update(image_size=16, vocab_size=10)
            config.model.image.update(IMAGE, depth=depth)
            config.model.text.update(TEXT, depth=depth, mask_id=None)
            config.model.multimodal.update(TOWER, depth=depth)
            config.loss.update(mask_patches=2, mask_patches_min=1, mask_text=0.5)
            config.loss.matching_negatives = 0.1
        else:
            config.model.update(IMAGE, depth=depth)
    return config


def _shrink_codes(tokenizer):
    sizes = {"width": 32, "blocks": 1, "groups": 2, "first": 8, "codes": 16, "code_width": 4}
    tokenizer.update(sizes, image_size=(8, 8))


def _shrink_speech(model, depth):
    block = {"depth": depth, "heads": 2, "mlp_dim": 32}
    model.update(width=16, frames=6, audio={"mels": 4})
    model.video.update(size=(8, 8), channels=(8,), blocks=1)
    model.encoder.update(block, kernel=3)
    model.fusion.update(block)
    model.text.update({k: TEXT[k] for k in ("vocab_size", "width", "length")})
    model.text.decoder.update(block)


def _shrink_diffusion(model, depth):
    if model.backbone.kind == "dit":
        model.latents = (8, 8, 4)
        model.backbone = {"kind": "dit", "width": 16, "depth": depth, "heads": 2, "patch_size": 4}
        return
    model.image_size = (8, 8)
    sizes = {"channels": (8, 8), "attention": (False, True), "head_dim": 4, "groups": 2}
    model.backbone.update(sizes, blocks=1)
    if model.name == "unclip":
        model.update(embed_dim=16, image_dropout=0.5)  # so that a small batch has both
        model.image.update(IMAGE, depth=depth)
    if model.name in ("glide", "unclip"):
        sizes = {"vocab_size": TEXT["vocab_size"], "length": TEXT["length"], "width": 16}
        model.text.update(sizes, depth=depth, heads=2, remat="none")
        if model.get("low_res"):
            model.low_res = 4


def _shrink_three(model, depth):
    model.embed_dim = 16
    model.text.update(TEXT, depth=depth)
    if model.audio.get("kind") == "ast":
        model.image.update(IMAGE, depth=depth)
        audio = {"frames": 8, "bins": 4, "patch_size": (4, 4), "stride": (4, 4)}
        model.audio.update(TOWER, depth=depth, **audio)
        return
    one = (1, 1, 1, 1)
    model.image.update(layers=one, width=4, heads=2, features=16, image_size=32)
    model.audio.update(features=16, samples=900, fft=64, window=50, hop=20, width=4, layers=one)
    model.audio.update(groups=2, group_width=32)


def _shrink_writer(model, depth):
    model.image.update(IMAGE, depth=depth)
    model.text.update({k: TEXT[k] for k in ("vocab_size", "width", "length")})
    model.text.decoder.update(depth=2, heads=2, mlp_dim=32)  # CoCa's has two halves
    if model.name == "coca":
        model.update(embed_dim=16, caption_queries=3)
    if model.name == "flamingo":
        model.text.decoder.update(kv_heads=1, head_dim=8, cross_every=2)
        model.resampler.update(latents=2, depth=1, heads=2)
        model.update(max_images=2, max_length=None)


def _shrink_llava(model, depth):
    """Of an image of 2 x 2 patches, or of its last feature map, the text has one token or four."""
    if model.image.get("kind") == "efficientnet":
        stage = {"channels": 8, "depth": 1, "kernel": 3, "stride": 2, "expand": 2}
        model.image.update(stem=8, stages=(stage,), head=16, image_size=8)
    else:
        deep = depth + (model.image.get("feature_layer") is not None)
        model.image.update(IMAGE, depth=deep)
    model.projector.shuffle = min(2, model.projector.get("shuffle", 1))
    model.text.update({k: TEXT[k] for k in ("vocab_size", "width", "length")})
    heads = {"heads": 2, "kv_heads": 1, "head_dim": 8, "mlp_dim": 32, "remat": "none"}
    model.text.decoder.update(heads, depth=depth)
    model.update(max_images=1, image_token=63)


def config(system="clip", *, depth=2, loss=None, optim=None, model=None, **fields):
    """A toy config of a system; `fields` are other top-level settings."""
    config = configs.defaults()
    config.name = "toy"
    weigh = {"clip": "contrastive", "vit": "classification"}[system]
    towers = {"embed_dim": 16, "image": {}, "text": {}} if system == "clip" else {"num_classes": 5}
    config.model = {"name": system, **towers}
    config.loss = loss or {}
    config.loss_weights = {weigh: 1.0}
    # A large eps: where a gradient is zero but for rounding, Adam would amplify the rounding.
    config.optim = {"name": "adamw", "learning_rate": 1e-2, "schedule": "constant", "eps": 1e-2}
    shrink(config, depth=depth)
    config.optim.update(optim or {})
    config.model.update(model or {})
    with config.ignore_type():  # a schedule where the default is a number
        config.update(fields)
    return config.lock()
