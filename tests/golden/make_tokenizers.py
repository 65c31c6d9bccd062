"""Make tests/golden/tokenizers/: vocabularies, and the ids that transformers and open_clip give.

    python tests/golden/make_tokenizers.py

Made with transformers 5.23.0, tokenizers 0.23.3, open_clip 3.3.0 and ftfy 6.3.1. `cases.json` lists
folders by their files: a name of a file here, or the content of a JSON file.
"""

import gzip
import importlib.util
import json
import shutil
import sys
import tempfile
from pathlib import Path
from unittest.mock import MagicMock

import tokenizers as hf
from golden_files import LINES
from transformers import AutoTokenizer  # first, as it asks for torchvision in its own way

if importlib.util.find_spec("torchvision") is None:
    for name in ("", ".transforms", ".transforms.functional", ".ops", ".ops.misc"):
        sys.modules["torchvision" + name] = MagicMock()

from open_clip.tokenizer import SimpleTokenizer, get_clean_fn

HERE = Path(__file__).parent
OUT = HERE / "tokenizers"
TEXTS = [
    "A red Bus and a BLUE car",
    "two small dogs run over the Café",
    "a cup of tea, half full: doesn't it? 猫と犬",
    "  leading   space [MASK] <mask> and <new> tokens <|endoftext|> [CLS]",
    "",
]
# What the original CLIP cleans.
DIRTY = [
    "it doesn’t “matter”",
    "salt &amp; pepper &lt;b&gt;",
    "a ﬁne ＦＵＬＬ ｗｉｄｔｈ text",
    "under_score, dots... and #tags!",
    "The Mona Lisa doesnÃ¢â‚¬â„¢t have eyebrows",
]


def vocabularies() -> None:
    """The files of the vocabularies."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    letters = sorted({c for line in (*LINES, *TEXTS) for c in line if not c.isspace()} | set("abé"))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    words += ["red", "Bus", "bus", "blue", "BLUE", "car", "dogs", "##s", "cafe", "Café", "café"]
    words = list(dict.fromkeys(words))
    (OUT / "vocab.txt").write_text("\n".join(words) + "\n")
    for name, lowercase in (("uncased", True), ("cased", False)):
        model = hf.models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]")
        tokenizer = hf.Tokenizer(model)
        tokenizer.normalizer = hf.normalizers.BertNormalizer(lowercase=lowercase)
        tokenizer.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = hf.decoders.WordPiece()
        tokenizer.add_special_tokens(words[:5])
        tokenizer.post_processor = hf.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        tokenizer.save(str(OUT / f"{name}.json"), pretty=False)
    for name in ("gpt2", "roberta"):
        content = json.loads((HERE / name / "tokenizer.json").read_text())
        content["pre_tokenizer"]["add_prefix_space"] = True  # which the class does not keep
        (OUT / f"{name}.json").write_text(json.dumps(content))
        pairs(name, content["model"]["vocab"], content["model"]["merges"])
    merges = clip_merges()
    own = SimpleTokenizer(gzipped(merges))
    vocab = {t: i for t, i in own.encoder.items() if "_of_text" not in t}
    vocab |= {"<|startoftext|>": own.sot_token_id, "<|endoftext|>": own.eot_token_id}
    pairs("clip", vocab, [merge.split() for merge in merges])


def pairs(name: str, vocab: dict[str, int], merges: list[list[str]]) -> None:
    """vocab.json and merges.txt of a byte-level vocabulary."""
    (OUT / f"{name}_vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (OUT / f"{name}_merges.txt").write_text("\n".join(lines) + "\n")


def clip_merges() -> list[str]:
    """A few merges of words with CLIP's end-of-word marker."""
    tokenizer = hf.Tokenizer(hf.models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = hf.pre_tokenizers.Whitespace()
    trainer = hf.trainers.BpeTrainer(
        vocab_size=120, end_of_word_suffix="</w>", show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator([x.lower() for x in LINES], trainer)
    return [" ".join(m) for m in json.loads(tokenizer.to_str())["model"]["merges"]]


def gzipped(merges: list[str]) -> str:
    """The merges as the file that open_clip reads."""
    path = Path(tempfile.mkdtemp()) / "merges.txt.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(["#version: 0.2", *merges]))
    return str(path)


CONFIG, SPECIALS = "tokenizer_config.json", "special_tokens_map.json"
WORDS = {"vocab.txt": "vocab.txt"}
MASK = {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False}
MASK |= {"single_word": False}
END = {**MASK, "content": "<|endoftext|>"}


def folders() -> list[dict]:
    """Cases: name, model_type, files."""

    def case(name, kind, files, **settings):
        config = {CONFIG: settings} if settings else {}
        return {"name": name, "model_type": kind, "files": {**files, **config}}

    def bpe(name):
        return {"vocab.json": f"{name}_vocab.json", "merges.txt": f"{name}_merges.txt"}

    cases = []
    for file in ("vocab.txt", "uncased.json", "cased.json"):
        files = WORDS if file == "vocab.txt" else {"tokenizer.json": file}
        for lower in (None, True, False):
            settings = {} if lower is None else {"do_lower_case": lower}
            cases.append(case(f"bert {file} do_lower_case={lower}", "bert", files, **settings))
    cased, uncased = {"tokenizer.json": "cased.json"}, {"tokenizer.json": "uncased.json"}
    roberta = {"tokenizer.json": "roberta.json"}
    generic = {"tokenizer_class": "PreTrainedTokenizerFast"}
    size = len((OUT / "vocab.txt").read_text().splitlines())
    added = {"added_tokens.json": {"<new>": size, "<mask>": size + 1}}
    listed = {str(size): {"content": "<new>", "special": False, "normalized": False}}
    for fields in listed.values():
        fields |= {"lstrip": True, "rstrip": False, "single_word": False}
    cases += [
        case("bert generic cased", "bert", cased, **generic, do_lower_case=True),
        case("bert generic uncased", "bert", uncased, **generic, do_lower_case=False),
        case("bert accents kept", "bert", WORDS, strip_accents=False),
        case("bert accents stripped", "bert", cased, do_lower_case=False, strip_accents=True),
        case("bert no chinese", "bert", WORDS, tokenize_chinese_chars=False),
        case("bert added_tokens.json", "bert", {**WORDS, **added}),
        case("bert added_tokens_decoder", "bert", WORDS, added_tokens_decoder=listed),
        case("bert other ends", "bert", WORDS, cls_token="a", sep_token="b", pad_token="[UNK]"),
        case("bert extra", "bert", WORDS, additional_special_tokens=["red"]),
        case("bert json added_tokens.json", "bert", {**cased, **added}),
        case("bert json other ends", "bert", uncased, cls_token="a", unk_token="[MASK]"),
        case("bert generic other names", "bert", uncased, **generic, cls_token="a"),
        case("distilbert class", "bert", WORDS, tokenizer_class="DistilBertTokenizerFast"),
        case("chinese_clip", "chinese_clip", WORDS),
        case("align", "align", WORDS, do_lower_case=False),
        case("roberta", "roberta", bpe("roberta")),
        case("roberta prefix", "roberta", bpe("roberta"), add_prefix_space=True),
        case("roberta json", "roberta", roberta),
        case("roberta json prefix", "roberta", roberta, add_prefix_space=True),
        case("roberta mask", "roberta", {**bpe("roberta"), SPECIALS: {"mask_token": MASK}}),
        case("gpt2", "gpt2", bpe("gpt2")),
        case("gpt2 json", "gpt2", {"tokenizer.json": "gpt2.json"}),
        case("gpt2 begins", "gpt2", bpe("gpt2"), add_bos_token=True),
        case("gpt2 strips", "gpt2", {**bpe("gpt2"), SPECIALS: {"eos_token": END}}),
        case("clip", "clip", bpe("clip")),
        case("clip pad", "clip", {**bpe("clip"), SPECIALS: {"pad_token": "!"}}),
    ]  # fmt: skip
    return cases


def folder(case: dict) -> Path:
    """The folder of a case."""
    out = Path(tempfile.mkdtemp())
    (out / "config.json").write_text(json.dumps({"model_type": case["model_type"]}))
    for name, content in case["files"].items():
        if isinstance(content, str):
            shutil.copy(OUT / content, out / name)
        else:
            (out / name).write_text(json.dumps(content))
    return out


def main() -> None:
    """Write everything."""
    vocabularies()
    cases = folders()
    for case in cases:
        tokenizer = AutoTokenizer.from_pretrained(folder(case))
        case["ids"] = [tokenizer(text)["input_ids"] for text in TEXTS]
        case["pad_token_id"] = tokenizer.pad_token_id
    kinds = ("lower", "whitespace", "canonicalize")
    merges = (OUT / "clip_merges.txt").read_text().splitlines()[1:]
    clip = {kind: SimpleTokenizer(gzipped(merges), clean=kind).encode for kind in kinds}
    content = {
        "texts": TEXTS,
        "cases": cases,
        "dirty": DIRTY,
        "cleaned": {kind: [get_clean_fn(kind)(text) for text in DIRTY] for kind in kinds},
        "clip_ids": {kind: [encode(text) for text in DIRTY] for kind, encode in clip.items()},
    }
    (OUT / "cases.json").write_text(json.dumps(content, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
