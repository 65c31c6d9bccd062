"""Parameter counts of the configs, published or added up by hand."""

from hand_parts import (
    audio_classifier,
    decoder_tower,
    denoiser,
    drawn_image,
    dvae,
    flava,
    lite,
    one_transformer,
    prior,
    projected,
    prompted,
    sounds_and_texts,
    speech,
    tower,
    video_vq,
    whisper,
    writer,
)

from mmjax import config as configs

# Published parameter counts. CLIP: the checkpoints of openai/CLIP and open_clip. SigLIP:
# google/siglip-base-patch16-224. AudioCLIP: its own code. CLAP, FLAVA, OWL-ViT, SAM: transformers'
# ClapModel, FlavaForPreTraining, OwlViTForObjectDetection, SamModel. DiT: Peebles and Xie 2022,
# without the fixed positions. CCT: its authors' code. The others: added up by hand, below.
PUBLISHED = {
    "clip_b32_laion400m": 151_277_313,
    "clip_b16_laion2b": 149_620_737,
    "clip_l14": 427_616_513,
    "siglip2_naflex_b16": 375_234_050,
    "siglip_b16": 203_155_970,
    "audioclip": 134_111_910,
    "cct_cifar10": 283_723,
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


def count_by_hand(name):
    if name in PUBLISHED:
        return PUBLISHED[name]
    if name == "vit_cifar10":  # patch, positions (no class token), blocks, norm, head
        return (48 * 192 + 192) + 64 * 192 + tower(12, 192, 768) + 2 * 192 + (192 * 10 + 10)
    if name == "char_gpt":  # of a block's biases only the norms' are left; the table is tied
        text = load(name).model.text
        biases = 4 * (5 * 128 + 512)  # of queries, keys, values, outputs, and two of the MLP
        return (text.vocab_size + text.length) * 128 + tower(4, 128, 512) - biases + 2 * 128
    if name in ("ast_audioset", "ast_esc10", "kwt_fsdd"):
        return audio_classifier(load(name).model)
    if name == "lit_b16":  # no image projection; the class token has a position of its own
        image = (768 * 768 + 768) + 768 + 197 * 768 + tower(12, 768, 3072) + 2 * 768
        text = 30_522 * 768 + 16 * 768 + tower(12, 768, 3072) + 2 * 768 + 768 * 768
        return image + text + 1
    if name == "align_emoji":  # of each tower's features a linear map and a perceptron; the scale
        return sum(d * 256 + (d * 512 + 512) + 512 * 256 for d in (1280, 384)) + 1
    # The same model in all: projection, positions, kind and placeholder of each modality.
    if name in ("fusion_digits", "curriculum_digits", "imbalanced_digits"):
        patches = {"image": (7 * 7 * 3, 16), "audio": (16 * 16, 8)}
        each = [(p * 64 + 64) + n * 64 + 64 + 64 + tower(1, 64, 128) for p, n in patches.values()]
        return sum(each) + tower(2, 64, 128) + 2 * 64 + (64 * 10 + 10)
    if name in ("fusion_stamps", "curriculum_stamps"):
        patches = {"image": (12 * 12 * 3, 16), "audio": (32 * 32, 12)}
        inputs = sum((p * 64 + 64) + n * 64 for p, n in patches.values()) + (1024 + 12) * 64
        each = 2 * 64 + tower(1, 64, 128)
        return inputs + 3 * each + tower(2, 64, 128) + 2 * 64 + (64 * 16 + 16)
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
    if name.startswith("videomae"):  # no biases of keys; positions are fixed
        width, small, (t, p, q) = model.width, model.decoder, model.tubelet
        pixels, norms = t * p * q * 3, 2 * small.width + 2 * width * (model.final_norm != "none")
        encoder = tower(model.depth, width, model.mlp_dim) - model.depth * width
        decoder = tower(small.depth, small.width, small.mlp_dim) - small.depth * small.width
        maps = (pixels + 1) * width + width * small.width + (small.width + 1) * pixels
        return encoder + decoder + maps + small.width + norms
    if name == "glip_boards":
        return count_by_hand("owlvit_boards") + 128 * 128
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
    if name == "sort_of_clevr":  # four convolutions with norms; cells with their coordinates
        image = (27 + 1) * 24 + 3 * (9 * 24 + 1) * 24 + 4 * 2 * 24
        related = 2 * (24 + 2) * 256 + (model.vocab_size + 1) * 256 + 3 * 257 * 256
        return image + related + 2 * 257 * 256 + 257 * 10
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
    if name in ("llava_boards", "llava_digits", "llava_emoji", "llava_smollm2", "nanovlm_222m"):
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
    if name == "naflex_emoji":  # patches, positions, blocks, norm, and the pooling block's query
        image = (8 * 8 * 3 + 1) * width + 6 * 6 * width + tower(4, width, 512) + 2 * width
        return image + tower(1, width, 512) - 2 * width + width + text + projections + 1
    dual = drawn_image(model.image) + text + projections + 1
    if name == "prior_emoji":
        return dual + prior(model, width)
    if name == "noised_clip_emoji":  # a class token for each time
        return dual + 1000 * width
    return dual + (name == "siglip_emoji")
