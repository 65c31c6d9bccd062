"""Make transcripts.json: normalized texts of Whisper's normalizers, and error counts of jiwer.

    python tests/evals/metrics/make_transcripts.py

Made with transformers 5.23.0 and jiwer 4.0.0.
"""

import json
import random
from pathlib import Path

import jiwer
from transformers.models.whisper.english_normalizer import (
    BasicTextNormalizer,
    EnglishTextNormalizer,
)

SPELLINGS = {"colour": "color", "realise": "realize", "centre": "center"}
WRITTEN = [
    *("$1.50", "1%", "-20", "five o'clock", "$20 million", "£3 and ¢7", "two dollars and 5 cents"),
    *("one oh one", "nineteen eighty four", "two hundred and five", "one hundred and twenty first"),
    *(
        "three and a half",
        "they came and a half and a half",
        "two and a half million",
        "and a half",
    ),
    *("point five", "ten point", "1.2 point 3", "double oh seven", "triple nine", "double trouble"),
    *("minus twenty", "minus the rest", "fifty percent", "five per cent", "five per person"),
    *("Mr. Smith won't go; he's done.", "He'd been there, y'all! [noise] (laughs) <eh> um hmm"),
    *("The 1960s and the sixties, the 274th", "1,000,000 people", "x2 B2B 3rd 4 th 5s"),
    *("Crème brûlée, Œuvre, straße, Łódź, þorn", "\ufb01nd ½ x² №5", "  spaces \t and\nlines  "),
    *(
        "the colour of the centre",
        "I realise 0 oh 0",
        "",
        "  ",
        "''",
        "%",
        "$",
        ". . .",
        "(",
        "a)b(",
    ),
    *("zero zero seven hundred", "hundreds of thousands", "twenty one hundredths", "0 million"),
    *("¿Dónde está?", "Это — тест № 1.", "日本語。テスト", "l'été d'à côté", "१२ ३.५"),
]
WORDS = (
    "one two five eleven twenty forty hundred thousand millions third fifths twelve sixes minus "
    "plus dollars cent per percent and point double triple oh zero half 12 1 0 1.5 $20 ¢7 -4 1,000 "
    "5th 1960s can't we've st dr colour a the"
)


def drawn(rng):
    """Words that interact, at random."""
    return rng.choice([" ", " ", ", ", "-"]).join(rng.choices(WORDS.split(), k=rng.randint(2, 9)))


def main():
    """Write the file."""
    rng = random.Random(0)
    english, basic = EnglishTextNormalizer(SPELLINGS), BasicTextNormalizer()
    plain = BasicTextNormalizer(remove_diacritics=True)
    texts = [*WRITTEN, *(drawn(rng) for _ in range(150))]
    cases = [[t, english(t), basic(t), plain(t)] for t in texts]
    errors = []
    for _ in range(150):
        length = rng.choice([2, 3, 5])
        sides = [
            [" ".join(rng.choices("abcde"[:length], k=rng.randint(k, 9))) for _ in range(2)]
            for k in (1, 0)
        ]
        row = []
        for process in (jiwer.process_words, jiwer.process_characters):
            o = process(*sides)
            row.append([o.hits, o.substitutions, o.deletions, o.insertions])
        errors.append([*sides, *row])
    content = {"spellings": SPELLINGS, "cases": cases, "errors": errors}
    path = Path(__file__).with_name("transcripts.json")
    path.write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
