"""How ALBEF cleans its captions."""

import re

_WITHOUT = str.maketrans({**dict.fromkeys(",.'!?\"()*#:;~"), "-": " ", "/": " "})


def clean_caption(text: str) -> str:
    """Lowercase, without most punctuation; "<person>", which stands for a name, is "person".

    Source: salesforce/ALBEF, dataset/utils.py, pre_caption; it also cuts texts after 30 words.
    """
    text = text.lower().translate(_WITHOUT).replace("<person>", "person")
    return re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ")
