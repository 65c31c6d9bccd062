"""Parameter counts of the configs, published or added up by hand."""

import math

from mmjax import config as configs

# Published parameter counts. CLIP: the checkpoints of openai/CLIP and open_clip. SigLIP:
# google/siglip-base-patch16-224. AudioCLIP: its own code. CLAP, FLAVA, OWL-ViT, SAM: transformers'
# ClapModel, FlavaForPreTraining, OwlViTForObjectDetection, SamModel. DiT: Peebles and Xie 2022,
# without the fixed positions. The others: added up by hand, below.
PUBLISHED = {
    "clip_b32_laion400m": 151_277_313,
    "clip_b16_laion2b": 149_620_737,
    "clip_l14": 427_616_513,
    "siglip_b16": 203_155_970,
    "audioclip": 134_111_910,
    "clap_htsat": 153_507_530 - (512 - 77) * 768,  # texts of 77 tokens
    "dit_xl2": 674_834_720,
    "flava_pmd": 357_645_303 - (512 - 77) * 768,  # texts of 77 tokens
    "glide_3_5b": 3_554_414_086,
    "owlvit_b32": 153_231_879,
    "llava_1_5_7b": 7_062_902_784,
    "llava_1_5_7b_projector": 7_062_902_784,
    "smolvlm_256m": 256_484_928,
    "sam_vit_b_sa1b": 93_735_472,
    "sam_vit_h_sa1b": 641_090_608,
}


def load(name):
    """A config of configs/; the working directory is the repository."""
    return configs.load(f"configs/{name}.py", ())


def tower(depth, width, mlp):
    """A pre-LN transformer: two norms, attention and MLP a block, all with biases."""
    attention, mlps = 4 * (width * width + width), 2 * width * mlp + mlp + width
    return depth * (attention + mlps + 4 * width)


def count_by_hand(name):
    if name in PUBLISHED:
        return PUBLISHED[name]
    if name == "vit_cifar10":  # patch, positions (no class token), blocks, norm, head
        return (48 * 192 + 192) + 64 * 192 + tower(12, 192, 768) + 2 * 192 + (192 * 10 + 10)
    if name in ("ast_audioset", "ast_esc10", "kwt_fsdd"):
        return audio_classifier(load(name).model)
    if name == "lit_b16":  # no image projection; the class token has a position of its own
        image = (768 * 768 + 768) + 768 + 197 * 768 + tower(12, 768, 3072) + 2 * 768
        text = 30_522 * 768 + 16 * 768 + tower(12, 768, 3072) + 2 * 768 + 768 * 768
        return image + text + 1
    if name == "fusion_digits":  # projection, positions, kind and placeholder of each modality
        patches = {"image": (7 * 7 * 3, 16), "audio": (16 * 16, 8)}
        each = [(p * 64 + 64) + n * 64 + 64 + 64 + tower(1, 64, 128) for p, n in patches.values()]
        return sum(each) + tower(2, 64, 128) + 2 * 64 + (64 * 10 + 10)
    if name == "fusion_openclipart":
        image = (8 * 8 * 3 * 96 + 96) + 64 * 96
        text = (4096 + 24) * 96
        # of each modality an embedding and a placeholder; late fusion has all else twice
        own = 2 * 96 + tower(1 + 2, 96, 192) + 2 * 96 + (96 * 96 + 96)
        return image + text + 2 * own + (96 * 14 + 14)
    if name == "dalle2_decoder_3_5b":  # a ViT-L/14 without biases of patches, two more norms
        image = (14 * 14 * 3 + 2 + 16 * 16) * 1024 + tower(24, 1024, 4096) + 4 * 1024
        longer = 2 * 128 * 2048  # texts of 256 tokens: their positions and padding
        return 3_554_414_086 + longer + decoder_tower(load(name).model, image)
    if name == "dalle2_prior":
        return count_by_hand("clip_l14") + prior(load(name).model, 768)
    if name.startswith("whisper"):
        return whisper(load(name).model)
    if name.startswith("avsr"):
        return speech(load(name).model)
    if name == "lit_photos":  # a MiniLM with texts of 64 tokens, and the map with its layer
        norm, pooler = 2 * 384, 384 * 384 + 384
        text = (30_522 + 64 + 2) * 384 + norm + tower(6, 384, 1536) + pooler
        return lite(load(name).model.image) + text + (384 * 1024 + 1024) + (1024 + 1) * 1280 + 1
    if name == "lit_emoji":  # and a head on each tower: a linear map, a perceptron, words
        norm, pooler = 2 * 384, 384 * 384 + 384
        text = (30_522 + 32 + 2) * 384 + norm + tower(6, 384, 1536) + pooler
        heads = sum(d * 512 + (d * 512 + 512) + 512 * 512 for d in (1280, 384))
        return lite(load(name).model.image) + text + heads + 30_522 * 512 + 1
    # Those on drawings are tuned: sizes as they stand.
    model = load(name).model
    if name.startswith("videobert"):  # one table of words and video tokens, and of the places
        text, width = model.text, model.text.width
        table = (text.vocab_size + model.codes + text.length + model.frames + 1 + 2) * width
        head = (width * width + width) + 2 * width + text.vocab_size + model.codes
        blocks = tower(text.depth, width, text.mlp_dim)
        return table + 2 * width + blocks + head + (width * width + width) + (2 * width + 2)
    if name == "clip4clip_wesnoth":  # over time positions and a block
        text = (512 + 16) * 96 + tower(2, 96, 384) + 2 * 96
        time = 4 * 96 + tower(1, 96, 384)
        return drawn_image(model.image.image) + time + text + 2 * 96 * 96 + 1
    if name == "vivit_b":  # two class tokens, positions of places and of times, two norms
        tokens = (2 * 16 * 16 * 3 + 1) * 768 + (14 * 14 + 16 + 4) * 768
        return tokens + tower(16, 768, 3072) + 2 * 2 * 768 + (768 * 400 + 400)
    if name == "dvae_emoji":
        return dvae(model)
    if name.startswith("dalle_"):
        text, words = model.text, model.text.vocab_size
        tokenizer, width = model.image_tokenizer, model.width
        size = tokenizer.image_size
        side = (size if isinstance(size, int) else size[0]) // 2 ** (tokenizer.groups - 1)
        embedded = 2 * (words + tokenizer.codes) + 2 * text.length + 2 * side
        blocks = tower(model.decoder.depth, width, model.decoder.mlp_dim)
        return embedded * width + blocks + 2 * width + dvae(tokenizer)
    if name == "video_vq_wesnoth":
        return video_vq(model)
    if name == "vqa_emoji":
        image, text = (8 * 8 * 3 * 96 + 96) + 36 * 96, (1024 + 16) * 96
        main = image + text + 2 * (2 * 96 + tower(2, 96, 256)) + tower(2, 96, 256) + 2 * 96
        question = text + tower(1, 96, 256) + 2 * 96
        return main + question + 2 * (96 * 42 + 42) + (96 + 1)
    if name == "sam_boards":
        return prompted(model)
    if name == "clap_esc10":
        return sounds_and_texts(model)
    if name == "audioclip_stamps":  # and a ViT of 19 x 5 patches, two tokens more and three scales
        text = (1024 + 12) * 128 + tower(2, 128, 512) + 2 * 128
        audio = (256 * 128 + 128) + (19 * 5 + 4) * 128 + tower(2, 128, 512) + 2 * 128
        return drawn_image(model.image) + text + audio + 128 * 128 + 3
    if name == "ddpm_mnist":
        return denoiser(model, 1, 1, model.num_classes + 1)
    if name in ("glide_emoji", "unclip_emoji"):
        text, width = model.text, model.text.width
        words = (text.vocab_size + 2 * text.length) * width + tower(text.depth, width, 4 * width)
        head = 2 * width + (width + 1) * 4 * model.backbone.channels[0]
        whole = denoiser(model, 3, 6, context=width) + words + head
        return (
            whole
            if name == "glide_emoji"
            else whole + decoder_tower(model, drawn_image(model.image))
        )
    if name.startswith("vilt"):
        return one_transformer(model)
    if name == "flava_emoji":
        return flava(model)
    if name in ("llava_emoji", "llava_smollm2", "nanovlm_222m"):
        return projected(model)
    if name in ("captioner_drawings", "coca_emoji", "flamingo_emoji"):
        return drawn_image(model.image) + writer(name)
    if name == "blip_b16_129m":  # three kinds of attention
        attention = 4 * (768 * 768 + 768) + 2 * 768
        image = (768 * 768 + 768) + 2 * 768 + 196 * 768 + tower(12, 768, 3072) + 2 * 768
        text = (30_524 + 30) * 768 + 2 * 768 + tower(12, 768, 3072) + 12 * attention
        head = (768 * 768 + 768) + 2 * 768 + 30_524
        return image + text + 12 * attention + head + 2 * (768 * 256 + 256) + 2 * 769 + 1
    if name == "blip_nlvr2":  # two kinds of cross-attention in a layer, and a map that merges
        attention = 4 * (768 * 768 + 768)
        image = (768 * 768 + 768) + (2 + 576) * 768 + tower(12, 768, 3072) + 2 * 768
        text = (30_524 + 60) * 768 + 2 * 768 + tower(12, 768, 3072)
        cross = 12 * (2 * attention + 2 * 768) + 6 * (2 * 768 * 768 + 768)
        return image + text + cross + (768 * 768 + 768) + (2 * 768 + 2)
    if name == "blip_emoji":  # with a class token; the decoder has its own self-attention
        attention = 4 * (128 * 128 + 128) + 2 * 128
        text = (1026 + 16) * 128 + 2 * 128 + tower(2, 128, 512) + 2 * attention
        head = (128 * 128 + 128) + 2 * 128 + 1026
        joint = 2 * (128 * 128 + 128) + (2 * 128 + 2) + 1
        return drawn_image(model.image) + 2 * 128 + text + 2 * attention + head + joint
    if name == "albef_14m":  # the paper's 123.7 M and 85.8 M, with positions of 25 tokens
        heads = 2 * (768 * 256 + 256) + (768 * 2 + 2) + 1
        return 123_697_722 + 85_844_736 - (512 - 25) * 768 + heads
    if name == "albef_emoji":
        norm, attention = 2 * 128, 4 * (128 * 128 + 128)
        image = drawn_image(model.image) + 2 * 128  # and the class token with its position
        embed = (1025 + 16 + 2) * 128 + norm
        text = embed + tower(4, 128, 512) + 2 * (attention + norm)
        head = 128 * 128 + 128 + norm + 1025
        return image + text + head + 2 * (128 * 128 + 128) + (2 * 128 + 2) + 1
    width = model.image.width
    words = (model.text.vocab_size + model.text.length) * width
    text = words + tower(model.text.depth, width, model.text.mlp_dim) + 2 * width
    projections = 2 * width * model.embed_dim
    if name == "owlvit_boards":  # plain patches and a class token; merged tokens' norm, heads
        image = (8 * 8 * 3 + 1) * width + (8 * 8 + 2) * width
        image += tower(model.image.depth, width, model.image.mlp_dim) + 2 * width
        heads = 2 * 2 * (width * width + width) + (4 + 1) * (width + 1)
        heads += (width + 1) * model.embed_dim + 2 * (width + 1)
        return image + text + projections + 1 + 2 * width + heads
    dual = drawn_image(model.image) + text + projections + 1
    if name == "prior_emoji":
        return dual + prior(model, width)
    return dual + (name == "siglip_emoji")


def prior(model, text_width):
    """Maps of the timestep, the two embeddings and the tokens, a query, blocks and a head."""
    width, embed = model.prior.width, model.embed_dim
    maps = 2 * (width * width + width) + 2 * (embed * width + width) + (text_width + 1) * width
    tokens = (model.text.length + 4 + 1) * width
    blocks = tower(model.prior.depth, width, 4 * width) + 2 * width
    return maps + tokens + blocks + width * embed + embed


def lite(image):
    """An EfficientNet-Lite's convolutions, and four numbers per channel of each norm."""
    width = image.stem
    count = (27 + 4) * width
    for stage in image.stages:
        for _ in range(stage["depth"]):
            inner, channels = stage["expand"] * width, stage["channels"]
            count += (width + 4) * inner if stage["expand"] > 1 else 0
            count += (stage["kernel"] ** 2 + 4) * inner + (inner + 4) * channels
            width = channels
    return count + (width + 4) * image.head


def audio_classifier(model):
    """Patches, class token (AST: also that of distillation) and positions, blocks, norms, head."""
    if name_of_size := model.get("variant"):
        width, mlp = {"B": (768, 3072), "KWT-1": (64, 256)}[name_of_size]
    else:
        width, mlp = model.width, model.mlp_dim
    depth, classes = model.get("depth", 12), model.num_classes
    patch, stride = model.get("patch_size", (16, 16)), model.stride
    grid = [(n - p) // s + 1 for n, p, s in zip((model.frames, model.bins), patch, stride)]
    blocks = tower(depth, width, mlp)
    first, norms = 2, 4 * width
    if model.get("norm") == "post":  # KWT: no biases of queries, keys and values
        first, norms, blocks = 1, 0, blocks - depth * 3 * width
    tokens = (math.prod(patch) + 1) * width + (math.prod(grid) + 2 * first) * width
    return tokens + blocks + norms + width * classes + classes


def decoder_tower(model, image):
    """An image tower of so many parameters, its map, a learned embedding, and two maps of it."""
    width, embed = model.image.get("width", 1024), model.embed_dim
    maps = (embed + 1) * (4 * model.backbone.channels[0] + 4 * model.text.width)
    return image + width * embed + embed + maps


def denoiser(model, inputs, outputs, classes=0, context=0):
    """A U-Net of one block per level, of so many channels, with rows of classes or a context so
    wide; the second of two maps doubles for scale and shift."""
    net, (first, *_) = model.backbone, model.backbone.channels
    time = 4 * first

    def block(inputs, width):
        norms, maps = 2 * inputs + 2 * width, 9 * (inputs + width) * width + 2 * width
        skip = (inputs + 1) * width if inputs != width else 0
        return norms + maps + (time + 1) * 2 * width + skip

    def attention(width):
        added = 2 * (context + 1) * width if context else 0
        return 2 * width + 4 * (width * width + width) + added

    whole = (first + 1) * time + (time + 1) * time + classes * time
    # The first and last convolutions, a norm.
    whole += (9 * inputs + 1) * first + 9 * first * outputs + outputs + 2 * first
    width, skips = first, [first]
    for level, (channels, attends) in enumerate(zip(net.channels, net.attention)):
        whole += block(width, channels) + (attention(channels) if attends else 0)
        skips.append(channels)
        if level < len(net.channels) - 1:
            whole += block(channels, channels)
            skips.append(channels)
        width = channels
    whole += 2 * block(width, width) + attention(width)
    for level, channels in reversed(list(enumerate(net.channels))):
        for _ in range(2):
            whole += block(width + skips.pop(), channels)
            whole += attention(channels) if net.attention[level] else 0
            width = channels
        whole += block(width, width) if level else 0
    return whole


def video_vq(model):
    """Convolutions of 3 or 4 x 4 x 4, two groups of blocks with a norm after the first and before
    the second and last map, and maps to the pixels of a stride."""
    whole, inputs = 0, 3
    for stage, channels in enumerate(model.channels):
        time = stage >= len(model.channels) - model.temporal
        whole += (4 if time else 3) * 16 * inputs * channels + channels
        whole += (channels + 1) * inputs * (8 if time else 4)
        inputs = channels
    block = 27 * inputs**2 + inputs + (inputs**2 + inputs) + 4 * inputs
    codes = (inputs * model.code_width + model.code_width) + (model.code_width + 1) * inputs
    return whole + 2 * model.blocks * block + 4 * inputs + codes


def projected(model):
    """An image tower, a projector, and a Llama-style decoder with one table of words."""
    if model.image.get("kind") == "efficientnet":
        image, inputs = lite(model.image), model.image.head
    elif model.image.get("variant"):  # B/16 of 224 pixels
        inputs = 768
        image = (16 * 16 * 3 + 1) * inputs + 14 * 14 * inputs + tower(12, inputs, 3072)
        image += 2 * inputs
    else:
        image, inputs = drawn_image(model.image), model.image.width
    width, inputs = model.text.width, inputs * model.projector.get("shuffle", 1) ** 2
    projector = inputs * width
    if model.projector.kind == "mlp":
        projector += width + width * width + width
    decoder = model.text.decoder
    heads = decoder.heads + decoder.get("kv_heads", decoder.heads)  # of queries and out, keys, ...
    dim = decoder.get("head_dim", width // decoder.heads)
    layer = 2 * heads * dim * width + 3 * width * decoder.mlp_dim + 2 * width
    return image + projector + model.text.vocab_size * width + decoder.depth * layer + width


def whisper(model):
    """Two convolutions over three frames, fixed positions, and no biases of keys."""
    width, mlp, mels = model.audio.width, model.audio.mlp_dim, model.audio.mels
    convolutions = 3 * mels * width + width + 3 * width * width + width
    encoder = tower(model.audio.depth, width, mlp) + 2 * width
    words = (model.text.vocab_size + model.text.length) * width
    cross = 4 * (width * width + width) + 2 * width
    depth = model.text.decoder.depth
    decoder = words + tower(depth, width, mlp) + depth * cross + 2 * width
    return convolutions + encoder + decoder - (model.audio.depth + 2 * depth) * width


def speech(model):
    """Front ends, conformers, cross-attention both ways, and a decoder with cross-attention."""
    width, mlp, (first, *_) = model.width, model.encoder.mlp_dim, model.video.channels
    norm, attention = 2 * width, 4 * (width * width + width)
    mlps = 2 * width * mlp + mlp + width + norm
    square = width * width + width
    convolution = 2 * norm + 2 * square + (model.encoder.kernel + 1) * width + square
    block = 2 * mlps + norm + attention + convolution + norm
    audio = 3 * (model.audio.mels + width) * width + 2 * width
    video, inputs = 5 * 7 * 7 * first + 2 * first, first
    for stage, channels in enumerate(model.video.channels):
        video += 9 * (inputs + channels) * channels + 4 * channels
        video += (inputs * channels + 2 * channels) if stage else 0
        video += (model.video.blocks - 1) * (18 * channels * channels + 4 * channels)
        inputs = channels
    video += inputs * width + width
    each = model.frames * width + model.encoder.depth * block
    crossed = tower(model.fusion.depth, width, model.fusion.mlp_dim)
    crossed += model.fusion.depth * (attention + 2 * norm) + width + norm
    words = model.text
    text = (words.vocab_size + words.length) * words.width + 2 * words.width
    own = 4 * (words.width**2 + words.width) + 2 * words.width
    own += 2 * (width - words.width) * words.width  # keys and values of frames of another width
    text += tower(words.decoder.depth, words.width, words.decoder.mlp_dim)
    text += words.decoder.depth * own
    ctc = (width + 1) * (words.vocab_size + 1)
    return audio + video + 2 * (each + crossed) + text + ctc


def dvae(model):
    """Blocks of three 3x3 convolutions and a 1x1, before them a map where channels change; the
    codebook of vectors is no parameter."""
    coded, pixels = (model.codes, 6) if model.kind == "gumbel" else (model.code_width, 3)

    def block(before, channels, decoder):
        n = channels // 4
        kernels = (1, 9, 9, 9) if decoder else (9, 9, 9, 1)
        sizes = zip(kernels, (before, n, n, n), (n, n, n, channels))
        path = sum(k * a * b + b for k, a, b in sizes)
        return path + (before * channels + channels if before != channels else 0)

    def blocks(before, stages, decoder):
        total = 0
        for channels in stages:
            for _ in range(model.blocks):
                total += block(before, channels, decoder)
                before = channels
        return total

    stages = [model.width * 2**i for i in range(model.groups)]
    encoder = (49 * 3 + 1) * stages[0] + blocks(stages[0], stages, False)
    encoder += (stages[-1] + 1) * coded
    decoder = (coded + 1) * model.first + blocks(model.first, stages[::-1], True)
    return encoder + decoder + (stages[0] + 1) * pixels


def one_transformer(model):
    """Words with two segments and a norm, patches with a class token, a pooler, and a row for the
    words and for each image."""
    width, patch, images = model.width, model.image.patch_size, model.get("images", 1)
    grid = (model.image.image_size[0] // patch) ** 2
    words = (model.text.vocab_size + model.text.length + 2 + 1 + images) * width
    image = (3 * patch * patch + 1) * width + (grid + 2) * width
    whole = words + image + 2 * width + tower(model.depth, width, model.mlp_dim) + 2 * width
    whole += width * width + width
    if "num_classes" in model:
        inner, classes = 2 * width, model.num_classes
        return whole + (images * width * inner + inner) + 2 * inner + (inner * classes + classes)
    words = (width * width + width) + 2 * width + model.text.vocab_size
    return whole + words + 2 * width + 2


def prompted(model):
    """An encoder with relative positions and a neck, a prompt encoder, and a mask decoder."""
    image, wide = model.image, model.image.out_width
    width, grid, patch = image.width, image.image_size // image.patch_size, image.patch_size
    sides = [grid if i in image.global_blocks else image.window for i in range(image.depth)]
    blocks = tower(image.depth, width, image.mlp_dim)
    relative = sum(2 * (2 * side - 1) * width // image.heads for side in sides)
    neck = width * wide + 9 * wide * wide + 4 * wide
    encoder = (3 * patch * patch + 1) * width + grid * grid * width + blocks + relative + neck
    masks = (4 * 4 + 4) + 2 * 4 + (4 * 4 * 16 + 16) + 2 * 16 + (16 * wide + wide)
    square, half = wide * wide + wide, 3 * (wide + 1) * wide // 2 + wide * wide // 2 + wide
    mlp = 2 * wide * model.decoder.mlp_dim + model.decoder.mlp_dim + wide
    two_way = 4 * square + 2 * half + mlp + 4 * 2 * wide
    double = wide * wide + wide // 4 + 2 * wide // 4 + wide * wide // 8 + wide // 8
    mixers = 4 * (2 * square + wide * wide // 8 + wide // 8)
    inner = model.decoder.iou_width
    iou = wide * inner + inner + inner * inner + inner + 4 * inner + 4
    decoder = 5 * wide + 2 * two_way + half + 2 * wide + double + mixers + iou
    return encoder + masks + 6 * wide + decoder


def sounds_and_texts(model):
    """A Swin of 1, 1 and 2 blocks, 32 wide at first; a BERT of a block; two maps after each."""
    swin = 2 * 64 + (16 * 32 + 32) + 2 * 32
    for stage, depth in enumerate((1, 1, 2)):
        width, heads = 32 << stage, 2 << stage
        swin += depth * (tower(1, width, 4 * width) + 15 * 15 * heads)
        swin += 2 * 4 * width + 4 * width * 2 * width if stage < 2 else 2 * width
    text = (320 + 8 + 1) * 64 + 2 * 64 + tower(1, 64, 128) + (64 * 64 + 64)
    maps = (128 * 64 + 64) + (64 * 64 + 64) + 2 * (64 * 64 + 64)
    return swin + text + maps + 2


def flava(model):
    """Encoders of one width, four heads of words, a head of pairs, and the random quantizer."""
    width, codes, words = model.image.width, model.codebook_size, model.text.vocab_size
    square, norm = width * width + width, 2 * width
    image = (8 * 8 * 3 * width + width) + 36 * width + 3 * width
    text = (words + model.text.length + 2) * width + norm
    blocks = [tower(model[m].depth, width, model[m].mlp_dim) + norm for m in ENCODERS]
    maps = 2 * (width * model.embed_dim + model.embed_dim) + 2 * square
    heads = sum(2 * (square + norm + n * width + n) for n in (codes, words))
    pairs = square + 2 * width + 2
    codebook = 16 * (4 * 4 * 3 + codes)
    return image + text + width + sum(blocks) + maps + heads + pairs + codebook + 1


ENCODERS = ("image", "text", "multimodal")


def drawn_image(image):
    """Patch 8, so three stages of 3x3 convolutions, each twice as wide as the last, with a norm;
    no class token; a norm at the end."""
    width, patches = image.width, (image.image_size[0] // 8) ** 2
    channels = (3, width // 4, width // 2, width)
    stem = sum(9 * c * d + 2 * d for c, d in zip(channels, channels[1:])) + width * width + width
    return stem + patches * width + tower(image.depth, width, image.mlp_dim) + 2 * width


def writer(name):
    """What stands between an image's tokens and its text, all 128 wide but SmolLM2."""
    attention = 4 * (128 * 128 + 128)
    cross, norm = attention + 2 * 128, 2 * 128
    if name == "captioner_drawings":
        return (4096 + 16) * 128 + tower(3, 128, 512) + 3 * cross + norm
    if name == "coca_emoji":
        pools = (16 + 1) * 128 + 2 * (attention + 3 * norm)
        unimodal = (16 + 1) * 128 + tower(2, 128, 512) + norm
        multimodal = tower(2, 128, 512) + 2 * cross + norm
        return pools + 4096 * 128 + 128 + unimodal + multimodal + 2 * 128 * 128 + 1
    resampler = 16 * 128 + 2 * (4 * 128 * 128 + 3 * norm + 2 * 128 * 512 + 512 + 128) + norm
    swiglu = 3 * 576 * 1536
    gated = 2 * 576 * 576 + 128 * 2 * 576 + 2 * 576 + swiglu + 2
    return 134_515_008 + resampler + 5 * gated  # SmolLM2-135M as published
