"""The tokenizer that models use: texts to rows of ids and masks, and back; saving and loading."""

import functools
import hashlib
import json
import os
import threading

import numpy as np
import tokenizers as hf

from mmjax import storage
from mmjax.data import text_file
from mmjax.data.text import clip_vocab
from mmjax.data.text.clean_caption import clean_caption
from mmjax.data.text.library import one_error

FILE, _META = "tokenizer.json", "tokenizer_meta.json"
_CACHE_SIZE = 100_000
# How texts are cleaned, by the name in saved files.
CLEANERS = {
    None: None,
    "albef": clean_caption,
    "clip": clip_vocab.clean,
    "clip_whitespace": clip_vocab.clean_whitespace,
    "clip_canonical": clip_vocab.clean_canonical,
}


class Tokenizer:
    """Encodes texts to fixed-length rows: [bos] tokens eos, then padding. Thread-safe.

    Attributes:
      vocab_size: number of ids, including special tokens.
      pad_id, bos_id, eos_id: ids of the special tokens; `bos_id` may be None.
      end_ids: all tokens that end a generated text, `eos_id` first.
      clean: function applied to a text first, or None.
      prefix: put before every text, such as a default prompt of sentence-transformers.
      strict: raise on a text that does not fit, instead of truncating it.
      chat_template: the Jinja template of its conversations, or None.
    """

    def __init__(
        self,
        backend,
        *,
        pad_id,
        bos_id,
        eos_id,
        end_ids=(),
        clean=None,
        prefix="",
        origin=None,
        strict=False,
        text=None,
        chat_template=None,
    ):
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        # Text of the file it was loaded from: serialized anew, its last digits might differ.
        self._text = text
        self.clean, self.prefix = clean, prefix
        self.origin = dict(origin or {})  # the settings that made it, to recognize it by
        self.pad_id, self.bos_id, self.eos_id = pad_id, bos_id, eos_id
        self.end_ids = tuple(dict.fromkeys((eos_id, *end_ids)))
        self.strict, self.chat_template = strict, chat_template
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
        self._cache = {}
        self._lock = threading.Lock()
        self._encoded = self._cut = 0

    def __getstate__(self):
        """For another process, which counts its own."""
        return {**vars(self), "_lock": None, "_cache": {}}

    def __setstate__(self, state):
        vars(self).update(state, _lock=threading.Lock())

    def encode(self, texts, length):
        """Rows of `length` tokens; the tokens of a text that is too long are truncated.

        Args:
          texts: list of B str.
          length: tokens per row, at least 3 (bos, one token, eos).

        Returns:
          (text `[B, length] int32`, text_mask `[B, length] bool`, true up to and including the end
          token).

        Raises:
          ValueError: `strict`, and a text does not fit.
        """
        if isinstance(texts, str):
            raise ValueError(f"encode takes a list of texts, not the single text {texts!r}")
        text, mask, truncated = self.rows(texts, length)
        self.count(len(texts), int(truncated.sum()))
        return text, mask

    def rows(self, texts, length):
        """As `encode`, and which texts were truncated `[B] bool`; they do not count in
        `truncation_rate`: see `count`."""
        return self.placed(self._ids(texts), texts, length)

    def placed(self, ids_of_texts, texts, length):
        """`rows` of texts whose ids, without special tokens, are given."""
        specials = 1 if self.bos_id is None else 2
        if length <= specials:
            raise ValueError(
                f"a token length of {length} leaves no room beside {specials} special tokens"
            )
        text = np.full((len(texts), length), self.pad_id, np.int32)
        mask = np.zeros((len(texts), length), bool)
        truncated = np.zeros(len(texts), bool)
        for row, ids in enumerate(ids_of_texts):
            if len(ids) > length - specials:
                if self.strict:
                    raise ValueError(
                        f"{texts[row]!r} has {len(ids)} tokens, and only {length - specials} fit "
                        f"into {length} beside special tokens; raise the length or set strict=False"
                    )
                truncated[row] = True
                ids = ids[: length - specials]
            ids = (*ids, self.eos_id) if self.bos_id is None else (self.bos_id, *ids, self.eos_id)
            text[row, : len(ids)] = ids
            mask[row, : len(ids)] = True
        return text, mask, truncated

    def words(self, text, length):
        """The number of each token's word in a text, from 0: `[length] int32`, as `rows` places the
        tokens; -1 on special tokens and padding."""
        cleaned = self.prefix + text
        cleaned = self.clean(cleaned) if self.clean else cleaned
        found = self._backend.encode(cleaned, add_special_tokens=False).word_ids
        first = 0 if self.bos_id is None else 1
        found = found[: length - 1 - first]
        number = {word: i for i, word in enumerate(dict.fromkeys(found))}
        out = np.full(length, -1, np.int32)
        out[first : first + len(found)] = [number[word] for word in found]
        return out

    def split(self, text):
        """The words that a text is encoded in, as the backend normalizes them."""
        _check_unicode([text])
        cleaned = self.prefix + text
        cleaned = self.clean(cleaned) if self.clean else cleaned
        if self._backend.normalizer is not None:
            cleaned = self._backend.normalizer.normalize_str(cleaned)
        return [word for word, _ in self._backend.pre_tokenizer.pre_tokenize_str(cleaned)]

    def token_id(self, token):
        """The id of a token; None: there is none."""
        return self._backend.token_to_id(token)

    def token(self, token_id):
        """The token of an id, as text."""
        return self._backend.id_to_token(token_id)

    def pieces(self, text):
        """Token ids of a text without special tokens around it, and [start, end) of each in it.

        Special tokens inside the text, such as those of images, are recognized.
        """
        found = self._recognizing.encode(self.prefix + text, add_special_tokens=False)
        return found.ids, [(a - len(self.prefix), b - len(self.prefix)) for a, b in found.offsets]

    @functools.cached_property
    def _recognizing(self):
        """The backend, which recognizes special tokens inside a text."""
        if not self.plain_specials:
            return self._backend
        return hf.Tokenizer.from_str(self._backend.to_str())

    def count(self, texts, truncated):
        """Add a number of texts, of which some were truncated, to `truncation_rate`."""
        with self._lock:
            self._encoded += texts
            self._cut += truncated

    def prompts(self, texts):
        """Token ids of each text as a prompt: [bos] tokens, without the end token."""
        bos = () if self.bos_id is None else (self.bos_id,)
        return [(*bos, *ids) for ids in self._ids(texts)]

    def _ids(self, texts):
        """Token ids of each text, without special tokens; cached, since captions recur."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._cache]
        new = {}
        if missing:
            _check_unicode(missing)
            cleaned = [self.prefix + text for text in missing]
            if self.clean:
                cleaned = [self.clean(text) for text in cleaned]
            with one_error(f"the tokenizer cannot encode {missing[0][:80]!r} or a text beside it"):
                if len(missing) == 1:
                    found = [self._backend.encode(cleaned[0], add_special_tokens=False)]
                else:
                    found = self._backend.encode_batch_fast(cleaned, add_special_tokens=False)
            new = {text: tuple(encoding.ids) for text, encoding in zip(missing, found)}
        result = [new[text] if text in new else self._cache[text] for text in texts]
        if new:
            if len(self._cache) + len(new) > _CACHE_SIZE:
                self._cache = {}  # a new dict: another thread may be reading the old one
            self._cache.update(new)
        return result

    def decode(self, ids):
        """The text of one row of ids up to the first of `end_ids`, without special tokens."""
        ids = [int(i) for i in ids]
        if self.bos_id is not None and ids[:1] == [self.bos_id]:
            ids = ids[1:]
        end = next((i for i, token in enumerate(ids) if token in self.end_ids), len(ids))
        ids = ids[:end]
        return self._backend.decode(ids, skip_special_tokens=True).strip()

    def decode_raw(self, ids):
        """The text of ids that may be part of a text: no special tokens, outer spaces kept."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True)

    @property
    def truncation_rate(self):
        """Fraction of the texts encoded since the last reset that were truncated; 0 if none."""
        with self._lock:
            return self._cut / self._encoded if self._encoded else 0.0

    def reset_truncation_rate(self):
        """Restart the counts behind `truncation_rate`."""
        with self._lock:
            self._encoded = self._cut = 0

    @property
    def fingerprint(self):
        """sha256 (hex) of everything that determines the ids of a text."""
        return hashlib.sha256((self.json() + self._ids_json()).encode()).hexdigest()

    def json(self):
        """The contents of tokenizer.json, without the special tokens that this class adds."""
        if self._text is None:
            self._text = self._backend.to_str()
        return self._text

    def wrapped(self, text):
        """Ids of a text with the special tokens that tokenizer.json itself adds."""
        with one_error(f"the tokenizer cannot encode {text[:80]!r}"):
            return self._backend.encode(text).ids

    def replace(self, backend, **ids):
        """A copy with another backend and other ids of special tokens."""
        now = {"pad_id": self.pad_id, "bos_id": self.bos_id, "eos_id": self.eos_id}
        rest = {"clean": self.clean, "prefix": self.prefix}
        rest |= {"origin": self.origin, "strict": self.strict}
        rest |= {"chat_template": self.chat_template}
        ends = () if "eos_id" in ids else self.end_ids
        return Tokenizer(backend, **{**now, "end_ids": ends, **ids}, **rest)

    @property
    def plain_specials(self):
        """Whether special tokens inside a text are read as plain text."""
        return self._backend.encode_special_tokens

    @property
    def end_of_word(self):
        """The vocabulary's end-of-word suffix: "</w>" in CLIP, None in most."""
        return getattr(self._backend.model, "end_of_word_suffix", None)

    def _ids_json(self):
        ids = {"pad_id": self.pad_id, "bos_id": self.bos_id, "eos_id": self.eos_id}
        if len(self.end_ids) > 1:  # left out otherwise, so that older fingerprints stay valid
            ids["end_ids"] = self.end_ids
        if self.prefix:
            ids["prefix"] = self.prefix
        if self.chat_template is not None:
            ids["chat_template"] = self.chat_template
        return json.dumps({**ids, "clean": cleaner_name(self.clean)}, sort_keys=True)

    def save(self, directory):
        """Writes tokenizer.json and a small meta file; `load_tokenizer` reads them."""
        meta = {
            **json.loads(self._ids_json()),
            "origin": self.origin,
            "encode_special_tokens": self.plain_specials,
            "fingerprint": self.fingerprint,
        }
        storage.write(os.path.join(directory, FILE), self.json())
        # The meta file is written last: if it exists, the other one is complete.
        storage.write(os.path.join(directory, _META), json.dumps(meta, indent=1, sort_keys=True))


def is_saved(directory):
    """Whether `Tokenizer.save` has completed there."""
    return os.path.exists(os.path.join(directory, _META))


def load_tokenizer(directory, strict=False):
    """The tokenizer that `Tokenizer.save` wrote.

    Raises:
      ValueError: no saved tokenizer, or files that are damaged or do not belong together.
    """
    try:
        with open(os.path.join(directory, _META), encoding="utf-8") as file:
            meta = json.load(file)
        with open(os.path.join(directory, FILE), encoding="utf-8") as file:
            text = file.read()
        tokenizer = _of(meta, text, strict)
        belongs = tokenizer.fingerprint == meta["fingerprint"]
    except FileNotFoundError:
        raise ValueError(f"there is no saved tokenizer in {directory}") from None
    except Exception as error:  # the library raises a bare Exception on a bad file
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"the tokenizer in {directory} cannot be read ({why})") from None
    if not belongs:
        raise ValueError(
            f"{FILE} and {_META} in {directory} do not belong together; restore both from the "
            "checkpoint"
        )
    return tokenizer


def _of(meta, text, strict):
    """The tokenizer of the two saved files."""
    with one_error("its JSON"):
        backend = hf.Tokenizer.from_str(text)
    trained = meta["origin"].get("kind") == "train_bpe"
    backend.encode_special_tokens = meta.get("encode_special_tokens", trained)
    texts = {"prefix": meta.get("prefix", ""), "chat_template": meta.get("chat_template")}
    if not isinstance(texts["prefix"], str) or not isinstance(texts["chat_template"], str | None):
        raise TypeError(f"prefix and chat template are {list(texts.values())}")
    return Tokenizer(
        backend,
        pad_id=meta["pad_id"],
        bos_id=meta["bos_id"],
        eos_id=meta["eos_id"],
        end_ids=meta.get("end_ids", ()),
        clean=CLEANERS[meta["clean"]],
        origin=meta["origin"],
        strict=strict,
        text=text,
        **texts,
    )


def cleaner_name(clean):
    """The name of one of `CLEANERS`."""
    return next(name for name, f in CLEANERS.items() if f is clean)


def _check_unicode(texts):
    """Raise ValueError for a text that is not one of Unicode, which the backend refuses."""
    wrong = next((text for text in texts if not text_file.is_text(text)), None)
    if wrong is not None:
        raise ValueError(
            f"the text {ascii(wrong)} has bytes that are not UTF-8, or half of a surrogate pair: "
            "no tokenizer takes it"
        )
