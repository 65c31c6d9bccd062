"""Transforms of one example, and the one-line language that chains them.

`parse("decode | random_resized_crop(64, scale=(0.6, 1)) | flip | choose_caption | tokenize(32)")`
gives a function of (example, rng). Step names are listed in the tables at the end of this file;
arguments are Python literals. Arguments that are not in the config (the tokenizer, the class names)
are keyword-only and come from `parse`'s own keywords.
"""

from mmjax.data.transforms.audio_steps import (
    add_noise,
    chromagram,
    kaldi_fbank,
    log_mel,
    mfcc,
    spec_augment,
    speed,
    standardize,
    time_shift,
    waveform,
    whisper_mel,
)
from mmjax.data.transforms.batch_steps import mixup
from mmjax.data.transforms.chain import make_chain
from mmjax.data.transforms.clap_steps import clap_input
from mmjax.data.transforms.converse import ask, converse
from mmjax.data.transforms.image_steps import (
    auto_augment,
    center_crop,
    codebook_image,
    color_jitter,
    decode,
    flip,
    pad_corner,
    pad_square,
    rand_augment,
    random_affine,
    random_crop,
    random_erasing,
    random_grayscale,
    random_resized_crop,
    resize,
    resize_between,
    resize_long,
    resize_short,
    resize_smoothed,
    trim,
)
from mmjax.data.transforms.interleave import interleave
from mmjax.data.transforms.on_image import finish
from mmjax.data.transforms.pair_steps import swap_images
from mmjax.data.transforms.patch_steps import pack, patches
from mmjax.data.transforms.query_steps import name_queries
from mmjax.data.transforms.region_steps import regions, write_boxes
from mmjax.data.transforms.speech_steps import decode_video, sound, speech_mel
from mmjax.data.transforms.text_steps import (
    answer,
    choose_caption,
    choose_features,
    drop_words,
    first_caption,
    first_features,
    hard_negative,
    label,
    label_words,
    longest_caption,
    multi_hot,
    running_text,
    tokenize,
    transcript,
)
from mmjax.data.transforms.tile_steps import tiles
from mmjax.data.transforms.video_steps import (
    dense_frames,
    each_frame,
    frames_as_images,
    middle_frames,
    random_frames,
    uniform_frames,
)
from mmjax.data.transforms.video_tokens import join_next, video_tokens


def parse(spec, **context):
    """The transform that a chain of steps describes.

    Args:
      spec: steps joined by `|`; the empty string is the identity.
      **context: values for the steps' keyword-only arguments, e.g. `tokenizer=`, `class_names=`.

    Returns:
      `transform(example: dict, rng: np.random.Generator) -> dict`; the input is not changed.

    Raises:
      ValueError: bad syntax, an unknown step, wrong arguments, or a missing context value.
    """
    steps = make_chain(spec, TRANSFORMS, context)
    return lambda example, rng: finish(steps(example, rng))


def parse_batch(spec, **context):
    """As `parse`, for steps that work on a whole batch (`mixup`, `interleave`)."""
    return make_chain(spec, BATCH_TRANSFORMS, context)


TRANSFORMS = {
    f.__name__: f
    for f in (
        decode,
        resize,
        resize_short,
        resize_long,
        resize_between,
        pad_square,
        pad_corner,
        resize_smoothed,
        center_crop,
        trim,
        tiles,
        patches,
        pack,
        random_crop,
        random_resized_crop,
        codebook_image,
        flip,
        random_affine,
        color_jitter,
        random_grayscale,
        rand_augment,
        auto_augment,
        random_erasing,
        swap_images,
        name_queries,
        choose_caption,
        choose_features,
        first_caption,
        first_features,
        longest_caption,
        drop_words,
        tokenize,
        label_words,
        running_text,
        hard_negative,
        transcript,
        ask,
        converse,
        answer,
        label,
        multi_hot,
        waveform,
        add_noise,
        speed,
        time_shift,
        log_mel,
        clap_input,
        whisper_mel,
        kaldi_fbank,
        mfcc,
        chromagram,
        standardize,
        spec_augment,
        uniform_frames,
        random_frames,
        dense_frames,
        middle_frames,
        each_frame,
        frames_as_images,
        join_next,
        video_tokens,
        decode_video,
        sound,
        speech_mel,
        regions,
        write_boxes,
    )
}
BATCH_TRANSFORMS = {"interleave": interleave, "mixup": mixup}
