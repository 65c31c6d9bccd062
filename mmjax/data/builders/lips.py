"""Synthetic video of lips: a mouth drawn from the visemes of spoken digits.

No recording of a face: phonemes and their durations are those of espeak-ng's synthetic voice, and
each viseme is an ellipse with an opening and a width. Phonemes that lip readers confuse are drawn
alike: t, d, n, s, z, l and k by one shape, f and v by another.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

RATE = 25  # frames per second
SIZE = 24  # pixels, height and width

# Phonemes of the ten digits and their durations in ms, as espeak-ng 1.51 speaks them with the voice
# en-us; experiments/avsr_digits/phonemes.py records them.
PHONEMES = {
    "zero": (("z", 76), ("iə", 197), ("ɹ", 47), ("oʊ", 78)),
    "one": (("w", 130), ("ʌ", 134), ("n", 104)),
    "two": (("t", 40), ("uː", 238)),
    "three": (("θ", 83), ("ɹ", 89), ("iː", 149)),
    "four": (("f", 76), ("oːɹ", 293)),
    "five": (("f", 76), ("aɪ", 285), ("v", 88)),
    "six": (("s", 73), ("ɪ", 197), ("k", 45), ("s", 103)),
    "seven": (("s", 73), ("ɛ", 171), ("v", 58), ("ə", 70), ("n", 73)),
    "eight": (("eɪ", 254), ("t", 45)),
    "nine": (("n", 136), ("aɪ", 191), ("n", 109)),
}
DIGITS = tuple(PHONEMES)

# Opening (1: a wide open mouth), width (1: at rest), visible teeth, visible tongue.
VISEMES = {
    "rest": (0.0, 1.0, 0.0, 0.0),
    "alveolar": (0.2, 1.0, 0.3, 0.0),
    "labiodental": (0.08, 0.95, 1.0, 0.0),
    "dental": (0.25, 1.0, 0.3, 1.0),
    "glide": (0.2, 0.75, 0.0, 0.0),
    "rounded": (0.2, 0.5, 0.0, 0.0),
    "rounded open": (0.55, 0.65, 0.0, 0.0),
    "spread": (0.3, 1.15, 0.4, 0.0),
    "middle": (0.5, 1.05, 0.2, 0.0),
    "open": (0.95, 0.95, 0.2, 0.0),
}
# Of each phoneme one viseme, or two of equal duration.
OF_PHONEME = {
    **dict.fromkeys(("t", "d", "n", "s", "z", "l", "k"), ("alveolar",)),
    **dict.fromkeys(("f", "v"), ("labiodental",)),
    **dict.fromkeys(("iː", "ɪ", "iə"), ("spread",)),
    **dict.fromkeys(("ɛ", "ə", "ʌ"), ("middle",)),
    "θ": ("dental",),
    "ɹ": ("glide",),
    "w": ("rounded",),
    "uː": ("rounded",),
    "oːɹ": ("rounded open",),
    "oʊ": ("rounded open", "rounded"),
    "eɪ": ("middle", "spread"),
    "aɪ": ("open", "spread"),
}
_STEP = 0.005  # seconds
_BLEND = 0.03  # seconds: standard deviation of the blend of neighboring visemes
_REACH = 6.5  # pixels from the middle of a wide open mouth to its upper edge
_HALF_WIDTH = 8.0  # pixels


@dataclasses.dataclass(frozen=True)
class Look:
    """What distinguishes speakers and clips, and says nothing about the words.

    Attributes:
      x, y: place of the mouth in pixels from the middle; scale: 1 is typical.
      gain: of opening and width around their rest; skin, lips: RGB; light: RGB levels from left to
        right.
    """

    x: float
    y: float
    scale: float
    gain: float
    skin: tuple[float, ...]
    lips: tuple[float, ...]
    light: float

    @classmethod
    def of_speaker(cls, rng: np.random.Generator) -> "Look":
        """A speaker's look."""
        tone = rng.uniform(0.35, 1.0)
        skin = tuple(tone * (np.array([225, 180, 150]) + rng.uniform(-15, 15, 3)))
        redness = rng.uniform(0.55, 0.85)
        lips = tuple(np.array(skin) * np.array([0.95, redness, redness]))
        return cls(
            *rng.uniform(-1.5, 1.5, 2),
            rng.uniform(0.85, 1.15),
            rng.uniform(0.75, 1.2),
            skin,
            lips,
            0,
        )

    def of_clip(self, rng: np.random.Generator) -> "Look":
        """The look of one of the speaker's clips: another camera, light and effort."""
        return dataclasses.replace(
            self,
            x=self.x + rng.uniform(-1.5, 1.5),
            y=self.y + rng.uniform(-1.5, 1.5),
            scale=self.scale * rng.uniform(0.9, 1.1),
            gain=self.gain * rng.uniform(0.85, 1.15),
            light=rng.uniform(-30, 30),
        )


def shapes(
    words: Sequence[tuple[str, float, float]], frames: int
) -> Float[np.ndarray, "frames four"]:
    """The mouth in the middle of each frame: opening, width, teeth, tongue.

    Args:
      words: digits by name, and where each begins and ends in seconds; its phonemes are scaled to
        that.
    """
    at = (np.arange(round(frames / RATE / _STEP)) + 0.5) * _STEP
    track = np.tile(np.float64(VISEMES["rest"]), (len(at), 1))
    for word, begin, end in words:
        parts = [
            (viseme, duration / len(OF_PHONEME[phoneme]))
            for phoneme, duration in PHONEMES[word]
            for viseme in OF_PHONEME[phoneme]
        ]
        edges = np.cumsum([0, *(duration for _, duration in parts)])
        edges = begin + (end - begin) * edges / edges[-1]
        for (viseme, _), low, high in zip(parts, edges, edges[1:]):
            track[(at >= low) & (at < high)] = VISEMES[viseme]
    width = round(3 * _BLEND / _STEP)
    kernel = np.exp(-0.5 * (np.arange(-width, width + 1) * _STEP / _BLEND) ** 2)
    padded = np.pad(track, ((width, width), (0, 0)), mode="edge")
    smooth = [np.convolve(column, kernel / kernel.sum(), "valid") for column in padded.T]
    middle = (np.arange(frames) + 0.5) / RATE
    return np.stack([np.interp(middle, at, column) for column in smooth], axis=1)


def draw(
    mouth: Float[np.ndarray, "frames four"],
    look: Look,
    rng: np.random.Generator,
    dropped: float = 0.05,
) -> UInt8[np.ndarray, "frames size size 3"]:
    """The frames of a clip, with a moving head, sensor noise and dropped frames.

    Args:
      mouth: from `shapes`.
      dropped: probability that a frame repeats the one before it.
    """
    frames = len(mouth)
    rest = np.float64(VISEMES["rest"])
    opening, width, teeth, tongue = (rest + (mouth - rest) * [look.gain, look.gain, 1, 1]).T
    moved = np.cumsum(rng.normal(0, 0.15, (2, frames)), axis=1) + rng.normal(0, 0.2, (2, frames))
    grid = np.arange(SIZE) - (SIZE - 1) / 2
    x = grid[None, None, :] - (look.x + moved[0])[:, None, None]
    y = grid[None, :, None] - (look.y + moved[1])[:, None, None]
    half = _HALF_WIDTH * look.scale * np.maximum(width, 0.3)
    height = np.maximum(_REACH * look.scale * opening, 0.4)
    thick = 2.2 * look.scale * (1 + 0.3 * (1 - width))

    def ellipse(center, a, b):
        """How much of each pixel is inside, [frames, SIZE, SIZE, 1]."""
        a, b = np.broadcast_to(a, frames)[:, None, None], np.broadcast_to(b, frames)[:, None, None]
        radius = np.sqrt(
            (x / a) ** 2 + ((y - np.broadcast_to(center, frames)[:, None, None]) / b) ** 2
        )
        return np.clip(0.5 - (radius - 1) * np.minimum(a, b), 0, 1)[..., None]

    image = np.broadcast_to(np.float64(look.skin), (frames, SIZE, SIZE, 3))
    cavity = ellipse(0, np.maximum(half - thick, 0.5), height)
    layers = (
        (ellipse(0, half, height + thick), look.lips),
        (cavity, (45, 15, 20)),
        (
            cavity * ellipse(-height, half * 0.7, height * 0.8) * teeth[:, None, None, None],
            (210,) * 3,
        ),
        (ellipse(0.6, half * 0.5, 1.2) * (teeth[:, None, None, None] > 0.6), (210,) * 3),
        (
            cavity * ellipse(height * 0.4, half * 0.5, 1.5) * tongue[:, None, None, None],
            (200, 90, 90),
        ),
    )
    for inside, color in layers:
        image = image + inside * (np.float64(color) - image)
    image = image + look.light * (grid / SIZE)[None, None, :, None]
    image = image + rng.normal(0, 6, image.shape)
    kept = rng.random(frames) >= dropped
    kept[0] = True
    shown = np.maximum.accumulate(np.where(kept, np.arange(frames), 0))
    return np.clip(np.rint(image[shown]), 0, 255).astype(np.uint8)
