"""Values of another kind in a config are a ValueError of one line, whatever section has them."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from mmjax import config as configs
from mmjax.models.systems import SIZES, make_system

ROOT = Path(__file__).parents[2]
NAMES = (
    *("albef_emoji", "avsr_digits", "blip_emoji", "coca_emoji", "dalle_emoji", "ddpm_mnist"),
    *(
        "flamingo_emoji",
        "flava_emoji",
        "glide_emoji",
        "kwt_fsdd",
        "llava_digits",
        "noised_clip_emoji",
    ),
    *("owlvit_boards", "prior_emoji", "sam_boards", "unclip_emoji", "vilt_emoji", "whisper_fsdd"),
)


def leaves(section, path=()):
    for key, value in section.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_values_of_a_model_and_its_loss_are_refused(name):
    base = configs.load(str(ROOT / "configs" / f"{name}.py"))
    make_system(base)
    for section in ("model", "loss"):
        for *inside, last in leaves(base[section].to_dict()):
            for wrong in (0, -1, 2.5, "x", (1,)):
                changed = base.to_dict()
                part = changed[section]
                for key in inside:
                    part = part[key]
                part[last] = wrong
                size = section == "model" and last in SIZES and wrong in (0, -1)
                try:
                    make_system(ConfigDict(changed))
                    assert not size, (inside, last, wrong)
                except ValueError as error:
                    assert "\n" not in str(error), (inside, last, wrong)
