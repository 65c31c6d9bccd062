"""The deterministic form of a training chain."""

import numpy as np
import pytest
from digits import wav

from mmjax.data.transforms import parse as transforms
from mmjax.data.transforms.evaluation import FORMS, evaluation_form


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ("", ""),
        ("decode | resize(48)", "decode | resize(48)"),
        (
            "decode(min_size=64) | random_resized_crop((32, 48), scale=(0.5, 1)) | flip"
            " | color_jitter(0.4, p=0.5) | choose_caption(template_p=0.0) | tokenize(16)",
            "decode(min_size=64) | resize((32, 48)) | first_caption | tokenize(16)",
        ),
        ("random_crop(size=28, padding=2) | label", "center_crop(28) | label"),
        ("rand_augment(2, 9) | random_erasing", ""),
        ("tokenize(16, dropout=0.1)", "tokenize(16)"),
        ("tokenize(length=16, words=False, dropout=0.1)", "tokenize(length=16, words=False)"),
        ("tokenize(16, False, 0.1)", "tokenize(16, False)"),
    ],
)
def test_random_steps_get_their_deterministic_form(spec, want):
    assert evaluation_form(spec) == want


def test_what_is_left_draws_nothing():
    """Every step that uses its random generator has a form."""

    class Never:
        def __getattr__(self, name):
            raise AssertionError(f"drew {name}")

    arguments = {"random_resized_crop": "8", "random_crop": "8", "center_crop": "8"}
    arguments |= {
        "resize_between": "8, 9",
        "resize_long": "8",
        "resize_smoothed": "8",
        "pad_corner": "9",
        "codebook_image": "8",
        "resize": "8",
        "resize_short": "8",
        "drop_words": "('a',)",
        "log_mel": "4, 4",
        "waveform": "1",
        "kaldi_fbank": "4",
        "multi_hot": "3",
        "speech_mel": "100, 4",
        "patches": "4, 3",
    }
    image = np.zeros((9, 9, 3), np.uint8)
    sound = {"waveform": np.zeros(16000, np.float32)}
    apart = {"tokenize", "answer", "transcript", "decode_video", "sound", "regions"}
    apart |= {"each_frame", "video_tokens", "tiles", "ask", "running_text", "pack"}
    apart |= {"label_words", "write_boxes"}
    # These draw negatives, or a turn: the same in every pass.
    apart |= {"name_queries", "converse", "hard_negative", "write_boxes", "label_words"}
    arguments |= {"uniform_frames": "2", "random_frames": "2"}
    arguments |= {"dense_frames": "2, 4", "middle_frames": "2, 4"}
    for name in transforms.TRANSFORMS.keys() - apart:
        spec = evaluation_form(f"{name}({arguments.get(name, '')})")
        example = {"image": image, "captions": ["a", "b"], "caption": "a", "label": 0, **sound}
        example |= {"video": image[None], "text_features": np.ones((2, 3), np.float32)}
        if name in ("standardize", "spec_augment"):
            example["audio"] = np.ones((3, 4), np.float32)
        if name in ("log_mel", "waveform", "clap_input"):
            example["audio"] = wav([1, 2])
        transforms.parse(spec, class_names=["a"])(example, Never())
    assert set(FORMS) <= set(transforms.TRANSFORMS)
