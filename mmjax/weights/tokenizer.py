"""The tokenizer of a published folder."""

from pathlib import Path

from mmjax.data import tokenizers
from mmjax.data.tokenizers import Tokenizer
from mmjax.weights.published import read_json

FILE, SETTINGS, SPECIALS = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
ROLES = ("pad_token", "bos_token", "eos_token")


def read(folder: Path, begins: bool = True) -> Tokenizer | None:
    """A published folder's tokenizer: its tokenizer.json, or CLIP's vocab.json and merges.txt.

    Args:
      begins: texts begin with the begin token, where there is one.

    Returns:
      None where there is neither.

    Raises:
      ValueError: damaged files, or a special token that is named but not there.
    """
    if (folder / FILE).is_file():
        tokenizer = tokenizers.from_file(str(folder / FILE), **_specials(folder))
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        tokenizer = tokenizers.clip_bpe(str(folder))
    else:
        return None
    if not begins:
        tokenizer.bos_id = None
    return tokenizer


def _specials(folder: Path) -> dict[str, str]:
    """role -> token, as the files beside tokenizer.json name them."""
    found = {}
    for name in (SPECIALS, SETTINGS):
        settings = read_json(folder / name) if (folder / name).is_file() else {}
        for role in ROLES:
            token = settings.get(role)
            token = token["content"] if isinstance(token, dict) else token
            if token is not None:
                found[role] = token
    return found
