"""Text to token ids and masks: a trained model's tokenizer, or a BPE of the corpus."""

import inspect
import os

import tokenizers as hf
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from mmjax.data.text import clip_vocab
from mmjax.data.text.tokenizer import FILE, Tokenizer, is_saved, load_tokenizer
from mmjax.weights.gguf import GGUF


def make_tokenizer(config, corpus=None, saved=None):
    """The tokenizer that a config asks for.

    Args:
      config: mapping with `kind`, one of `KINDS` below, optionally `strict`, and the arguments of
        the function of that kind.
      corpus: iterable of str, for kind 'train_bpe'.
      saved: folder of a tokenizer saved earlier in this run, which is used if it exists.

    Raises:
      ValueError: an unknown kind or key, an unreadable file, or a saved tokenizer that was made
        from another config.
    """
    config = dict(config)
    strict = config.pop("strict", False)
    kind = config.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"no tokenizer kind {kind!r}; there are {', '.join(KINDS)}")
    if saved is not None and is_saved(saved):
        tokenizer = load_tokenizer(saved, strict)
        now, before = {"kind": kind, **config}, tokenizer.origin
        changed = sorted(
            key for key in {*now, *before} - {"path"} if now.get(key) != before.get(key)
        )
        if changed:
            was = ", ".join(f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in changed)
            raise ValueError(f"the tokenizer in {saved} was made from another config: {was}")
        return tokenizer
    if kind == "train_bpe":
        if corpus is None:
            raise ValueError("tokenizer kind 'train_bpe' needs the corpus of the training set")
        args = (corpus,)
    else:
        args = ()
    signature = inspect.signature(KINDS[kind])
    try:
        signature.bind(*args, **config)
    except TypeError as error:
        raise ValueError(f"tokenizer kind {kind!r}: {error}") from None
    tokenizer = KINDS[kind](*args, **config)
    tokenizer.origin = {"kind": kind, **config}
    tokenizer.strict = strict
    return tokenizer


# ---- a BPE trained on the run's own corpus -------------------------------------------------------


def train_bpe(corpus, vocab_size=8192, lowercase=True):
    """Byte-level BPE of the corpus: no text is outside its vocabulary, in any language.

    pad is 0, bos 1, eos 2, the 256 bytes follow, then the merges by frequency. The same corpus
    gives the same file, byte for byte.

    Args:
      corpus: iterable of str.
      vocab_size: ids at most; fewer where the corpus has too few pairs that come twice.
      lowercase: fold case first.

    Raises:
      ValueError: an empty corpus, or a vocabulary that cannot hold the bytes.
    """
    if vocab_size < 256 + 3:
        raise ValueError(f"vocab_size {vocab_size} cannot hold 256 bytes and 3 specials")
    backend = hf.Tokenizer(models.BPE())
    steps = [normalizers.NFC(), normalizers.Replace(hf.Regex(r"\s+"), " "), normalizers.Strip()]
    backend.normalizer = normalizers.Sequence(steps + [normalizers.Lowercase()] * bool(lowercase))
    # The leading space makes a word one token, first in the caption or not.
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    seen = 0

    def counted():
        nonlocal seen
        for text in corpus:
            seen += 1
            yield text

    backend.train_from_iterator(counted(), trainer)
    if not seen:
        raise ValueError("the corpus for the tokenizer is empty: the training set has no captions")
    # A caption that spells "<eos>" means those five letters.
    backend.encode_special_tokens = True
    return Tokenizer(backend, pad_id=0, bos_id=1, eos_id=2)


# ---- OpenAI's CLIP -------------------------------------------------------------------------------

_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def clip_bpe(path):
    """OpenAI's CLIP tokenizer from its published vocabulary.

    Lower case, end-of-word marks, bos 49406, eos 49407, padding 0 (which is also a token: use the
    mask). Of ftfy's repairs, which the original applies first, those of quotes, ligatures, wide
    characters and entities are here; the repair of wrongly decoded text is not.

    Args:
      path: `bpe_simple_vocab_16e6.txt.gz`, or a folder with `vocab.json` and `merges.txt`.

    Source: github.com/openai/CLIP, clip/simple_tokenizer.py.

    Raises:
      ValueError: the files are missing or not such a vocabulary.
    """
    vocab, merges = clip_vocab.read(path)
    if clip_vocab.BOS not in vocab or clip_vocab.EOS not in vocab:
        raise ValueError(
            f"{path} is no CLIP vocabulary: it lacks {clip_vocab.BOS} or {clip_vocab.EOS}"
        )
    try:
        model = models.BPE(
            vocab=vocab,
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token=clip_vocab.EOS,
        )
    except Exception as error:  # the library raises a bare Exception
        raise ValueError(f"{path} is no CLIP vocabulary: {error}") from None
    backend = hf.Tokenizer(model)
    # `clip_vocab.clean` has done all this already; here it serves whoever loads the file elsewhere.
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(hf.Regex(r"\s+"), " "),
            normalizers.Lowercase(),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(hf.Regex(_CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("</w>", " "), decoders.ByteLevel()],
    )
    backend.add_special_tokens([clip_vocab.BOS, clip_vocab.EOS])
    return Tokenizer(
        backend,
        pad_id=0,
        bos_id=vocab[clip_vocab.BOS],
        eos_id=vocab[clip_vocab.EOS],
        clean=clip_vocab.clean,
    )


# ---- any tokenizer.json --------------------------------------------------------------------------

_PAD = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>")
_BOS = ("<bos>", "<s>", "[CLS]", "<|startoftext|>", "<|begin_of_text|>", "<|im_start|>")
_EOS = ("<eos>", "</s>", "[SEP]", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>")


def from_file(path, pad_token=None, bos_token=None, eos_token=None, lowercase=False):
    """A tokenizer from any tokenizer.json of the `tokenizers` library.

    The specials are found by their common names, unless they are given; without a begin token
    rows start with the text, without a padding token the end token pads. `lowercase` folds case
    before whatever the file itself does.

    Raises:
      ValueError: an unreadable file, a given special that is not in it, or no end token.
    """
    if os.path.isdir(path):
        path = os.path.join(path, FILE)
    try:
        backend = hf.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception
        raise ValueError(f"cannot read a tokenizer from {path}: {error}") from None

    if lowercase:
        own = [backend.normalizer] if backend.normalizer is not None else []
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])

    def find(given, names, role):
        if given is not None and backend.token_to_id(given) is None:
            raise ValueError(f"{path} has no token {given!r}, which the config names as {role}")
        ids = (backend.token_to_id(name) for name in ([given] if given is not None else names))
        return next((i for i in ids if i is not None), None)

    eos_id = find(eos_token, _EOS, "eos_token")
    if eos_id is None:
        raise ValueError(f"{path} has none of {', '.join(_EOS)}; set eos_token in the config")
    pad_id = find(pad_token, _PAD, "pad_token")
    return Tokenizer(
        backend,
        pad_id=eos_id if pad_id is None else pad_id,
        bos_id=find(bos_token, _BOS, "bos_token"),
        eos_id=eos_id,
    )


# ---- the tokenizer of a language model's GGUF file -----------------------------------------------

_CONTROL, _USER_DEFINED = 3, 4  # of tokenizer.ggml.token_type


def from_gguf(path):
    """The byte-level BPE tokenizer that a GGUF file holds for its language model.

    Its control tokens, such as <|im_start|>, are read as such where a text spells them. Rows begin
    with the begin token only if the file says so.

    Raises:
      ValueError: the file holds no such tokenizer, or one whose words are split in another way.
    """
    metadata = GGUF(path).metadata
    kind = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if kind[0] != "gpt2" or kind[1] not in ("default", "gpt-2", "smollm"):
        raise ValueError(
            f"'{path}' has a tokenizer of kind {kind}; 'gpt2' and 'smollm' can be read"
        )
    names = ("tokens", "merges", "eos_token_id")
    tokens, merges, eos_id = (metadata.get(f"tokenizer.ggml.{name}") for name in names)
    if tokens is None or merges is None or eos_id is None:
        raise ValueError(f"'{path}' lacks one of tokenizer.ggml.{{{','.join(names)}}}")
    vocab = {token: i for i, token in enumerate(tokens)}
    try:
        model = models.BPE(vocab=vocab, merges=[tuple(m.split(" ")) for m in merges])
    except Exception as error:  # the library raises a bare Exception
        raise ValueError(f"'{path}' has no whole BPE vocabulary: {error}") from None
    backend = hf.Tokenizer(model)
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", False)
    steps = [pre_tokenizers.ByteLevel(add_prefix_space=prefix)]
    if kind[1] == "smollm":  # each digit is a word
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    types = metadata.get("tokenizer.ggml.token_type", [])
    special = [t for t, kind in zip(tokens, types) if kind in (_CONTROL, _USER_DEFINED)]
    backend.add_special_tokens(special)
    bos_id = metadata.get("tokenizer.ggml.bos_token_id")
    return Tokenizer(
        backend,
        pad_id=metadata.get("tokenizer.ggml.padding_token_id", eos_id),
        bos_id=bos_id if metadata.get("tokenizer.ggml.add_bos_token") else None,
        eos_id=eos_id,
    )


# ---- the tokenizer of a trained model ------------------------------------------------------------


def from_pretrained(path):
    """The tokenizer of a published model's folder, or of the workdir of a run.

    Raises:
      ValueError: no model there, or one without a tokenizer.
    """
    from mmjax import pretrained  # not sooner: it needs this module

    found = pretrained.describe(path).tokenizer
    if found is None:
        raise ValueError(f"the model in '{path}' has no tokenizer")
    return found


KINDS = {
    "clip_bpe": clip_bpe,
    "file": from_file,
    "gguf": from_gguf,
    "pretrained": from_pretrained,
    "train_bpe": train_bpe,
}
