"""Texts as token ids, by a tokenizer that is learnt from the training text alone."""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np


class Tokenizer(NamedTuple):
    """`tokenizer(texts)` are token ids int32 [N, max_length], 0 where there is no token.

    text: all of it, as the JSON of the `tokenizers` library.
    """

    text: str

    def __call__(self, texts: Iterable[str]) -> np.ndarray:
        return np.array([found.ids for found in _read(self.text).encode_batch(list(texts))], np.int32)

    def decode(self, ids: np.ndarray) -> str:
        """The text of token ids int32 [L], for people: as it is normalised, as far as it was kept."""
        return _read(self.text).decode(ids.tolist())


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
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding(length=max_length, pad_id=0, pad_token="[PAD]")
    return Tokenizer(tokenizer.to_str())


@functools.lru_cache(maxsize=8)
def _read(text: str) -> Any:
    try:
        found = _library().Tokenizer.from_str(text)
        found.decoder = _library().decoders.ByteLevel()
        return found
    except ValueError:
        raise
    except Exception as error:  # of the library's own kind
        raise ValueError(f"no tokenizer ({' '.join(str(error).split())[:200]})") from error


def _library() -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise ValueError(f"text needs the tokenizers library ({error}); pip install 'labelfx[text]'") from error
    return tokenizers
