"""Texts as token ids, by a tokenizer that is learnt from the training text alone, or by an encoder's own."""

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Tokenizer(NamedTuple):
    """`tokenizer(texts)` are token ids int32 [N, max_length], 0 where there is no token.

    text: all of it, as the JSON of the `tokenizers` library. One that pads with another id than 0, because it has a
      token of that id, gives ids that are one more than its own.
    """

    text: str

    def __call__(self, texts: Iterable[str]) -> np.ndarray:
        tokenizer = _read(self.text)
        ids = np.array([found.ids for found in tokenizer.encode_batch(list(texts))], np.int32)
        padding = tokenizer.padding["pad_id"]
        return np.where(ids == padding, 0, ids + 1) if padding else ids

    def decode(self, ids: np.ndarray) -> str:
        """The text of token ids int32 [L], for people: as it is normalised, as far as it was kept."""
        tokenizer = _read(self.text)
        own = ids[ids > 0] - (1 if tokenizer.padding["pad_id"] else 0)
        return tokenizer.decode(own.tolist())


class Special(NamedTuple):
    """Of the ids of a tokenizer: how much higher they are here, what it puts around a text, and the one for
    what it does not know, if any."""

    shift: int
    around: tuple[int, ...]
    unknown: tuple[int, ...]


def tokenizer_for(texts: Iterable[str], tokenizer: str, vocab_size: int, max_length: int) -> Tokenizer:
    """`read` of the file or folder `tokenizer` where it is not "", else `learn` of the texts."""
    return read(tokenizer, vocab_size, max_length) if tokenizer else learn(texts, vocab_size, max_length)


def learn(texts: Iterable[str], vocab_size: int, max_length: int) -> Tokenizer:
    """The tokenizer of these texts, by byte pair encoding.

    Raises:
      ValueError: `vocab_size` is too small for it, or the `tokenizers` library is missing.
    """
    library = _library()
    # Bytes, because WordPieces and marked ends of words are numbered in an order that changes from run to run.
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.normalizer = library.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["[PAD]"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() > vocab_size:
        raise ValueError(
            f"vocab_size = {vocab_size}: must be at least {1 + len(alphabet)}, one for each byte and padding"
        )
    return _padded(tokenizer, 0, max_length)


def read(place: str | Path, vocab_size: int, max_length: int) -> Tokenizer:
    """The tokenizer in a file `tokenizer.json`, or in the folder of an encoder that holds it. What it puts around a
    text, such as [CLS] and [SEP], is among the `max_length` tokens.

    Raises:
      FileNotFoundError, ValueError: there is none, it gives more or fewer than `vocab_size` ids (one more than it has
        itself where its 0 is not for padding), or `max_length` leaves a text no token.
    """
    path = Path(place)
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; the tokenizer of a text encoder lies beside its weights")
    text = path.read_text("utf-8")
    try:
        tokenizer = _parse(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    own, shift = max(tokenizer.get_vocab().values()) + 1, special(json.loads(text)).shift
    if vocab_size != own + shift:
        raise ValueError(f"vocab_size = {vocab_size}: must be {own + shift}, as many ids as {path} gives")
    around = tokenizer.num_special_tokens_to_add(is_pair=False)
    if max_length <= around:
        raise ValueError(
            f"max_length = {max_length}: must be at least {around + 1}; {path} puts {around} around a text"
        )
    return _padded(tokenizer, own if shift else 0, max_length)


def special(tokenizer: Mapping[str, Any]) -> Special:
    """Of the JSON of a tokenizer."""
    padding = [token["content"] for token in tokenizer.get("added_tokens") or () if token["id"] == 0]
    shift = 0 if padding and padding[0] in ("[PAD]", "<pad>") else 1
    model = tokenizer.get("model") or {}
    vocabulary = model.get("vocab")
    unknown = vocabulary.get(model.get("unk_token")) if isinstance(vocabulary, dict) else model.get("unk_id")
    around = _around(tokenizer.get("post_processor") or {})
    return Special(shift, tuple(around), () if unknown is None else (unknown,))


def _around(processor: Mapping[str, Any]) -> list[int]:
    """The ids that a post-processor adds, whichever it is of those that add any."""
    ids = [id for token in processor.get("special_tokens", {}).values() for id in token["ids"]]
    ids += [processor[key][1] for key in ("cls", "sep") if key in processor]
    return ids + [id for each in processor.get("processors", ()) for id in _around(each)]


def _padded(tokenizer: Any, padding: int, max_length: int) -> Tokenizer:
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding(length=max_length, pad_id=padding, pad_token="[PAD]")
    return Tokenizer(tokenizer.to_str())


def _parse(text: str) -> Any:
    try:
        found = _library().Tokenizer.from_str(text)
        if found.decoder is None:  # one that was learnt here
            found.decoder = _library().decoders.ByteLevel()
        return found
    except ValueError:
        raise
    except Exception as error:  # of the library's own kind
        raise ValueError(f"no tokenizer ({' '.join(str(error).split())[:200]})") from error


_read = functools.lru_cache(maxsize=8)(_parse)


def _library() -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise ValueError(f"text needs the tokenizers library ({error}); pip install 'labelfx[text]'") from error
    return tokenizers
