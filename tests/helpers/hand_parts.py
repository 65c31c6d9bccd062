"""Parameter counts of parts of models, added up by hand."""

import math


def tower(depth, width, mlp):
    """A pre-LN transformer: two norms, attention and MLP a block, all with biases."""
    attention, mlps = 4 * (width * width + width), 2 * width * mlp + mlp + width
    return depth * (attention + mlps + 4 * width)


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
