"""Sentences and documents, as rows of token ids, with what people have judged of pairs of them.

Tokens are pieces of lower-case words, by byte pair encoding (Sennrich et al. 2016, on bytes as in GPT-2), learnt from
the training text of the same source: nothing is downloaded, and nothing of the test text is known. Id 0 pads; no text
is unknown; what is longer than `max_length` tokens is cut. Needs the `tokenizers` library
(`pip install 'labelfx[text]'`).

With `tokenizer`, the `tokenizer.json` of a text encoder or the folder that holds it, tokens are that encoder's instead,
`vocab_size` of them; the run keeps the tokenizer, and does not need the file again. "" learns one.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from labelfx.config import local
from labelfx.config.annotations import PositiveInt
from labelfx.data import DataError, Dataset, Judgements, Split
from labelfx.data.tokens import tokenizer_for

YEARS = range(2012, 2017)
SICK_HEADER = "pair_ID sentence_A sentence_B relatedness_score entailment_judgment".split()
# The relevance of a Cranfield document by its code in cranqrel. -1, once a query, is not explained and left out.
GAINS = {1: 4, 2: 3, 3: 2, 4: 1}

Pairs = list[tuple[str, str, float]]


def sts(*, data_dir: str, vocab_size: PositiveInt, max_length: PositiveInt, tokenizer: str = "") -> Dataset:
    """SemEval's semantic textual similarity of 2012 to 2016: pairs of sentences with scores of 0 to 5.

    data_dir: holds `YEAR/NAME.train.tsv` (2012) and `YEAR/NAME.test.tsv`, with lines `score TAB sentence TAB sentence`;
      the organisers' gold scores and pairs are put together that way in https://github.com/brmson/dataset-sts.

    The judged pairs are those of the test sets, a task a year; to choose a method by, there is `sick`. Training text
    are the sentences of the training pairs and of the pairs that were released without a score (an empty one), less
    every sentence of a scored test pair. No score is trained on. A year that lacks a part that papers have, such as the
    licensed MSRvid of 2012, is not comparable with them.

    Source: Agirre et al. 2012 to 2016, SemEval tasks 6, *SEM, 10, 2 and 1.
    """
    root = local(data_dir)
    train: Pairs = []
    test: dict[str, Pairs] = {}
    for year in YEARS:
        files = sorted((root / str(year)).glob("*.t*.tsv"))
        if not any(path.name.endswith(".test.tsv") for path in files):
            raise FileNotFoundError(f"{(root / str(year)).absolute()}: no NAME.test.tsv there")
        for path in files:
            scored, unscored = _sts_pairs(path)
            train += unscored
            (train if path.name.endswith(".train.tsv") else test.setdefault(str(year), [])).extend(scored)
    known = set(_sentences(pair for pairs in test.values() for pair in pairs))
    texts = [text for text in _sentences(train) if text not in known]
    return _similarity(texts, test, tokenizer, vocab_size, max_length)


def sick(
    *,
    data_dir: str,
    split: Literal["dev", "test", "all"],
    vocab_size: PositiveInt,
    max_length: PositiveInt,
    tokenizer: str = "",
) -> Dataset:
    """SICK: pairs of sentences about pictures and videos with their relatedness, 1 to 5, as in SemEval 2014.

    data_dir: holds SICK_train.txt, SICK_trial.txt and SICK_test_annotated.txt.
    split: the judged pairs: the 4,927 of the test set; the 500 of the trial set, to choose a method by; or all 9,927,
      the training pairs among them, which MTEB (Muennighoff et al. 2023) calls SICK-R, for encoders trained elsewhere.

    Training text are the sentences of the training pairs, without their scores. Most of them are in test pairs too,
    with other partners: so was the set made.

    Source: Marelli et al. 2014, "A SICK cure for the evaluation of compositional distributional semantic models".
    """
    names = {"train": "SICK_train.txt", "dev": "SICK_trial.txt", "test": "SICK_test_annotated.txt"}
    wanted = [part for part in names if part == "train" or split in (part, "all")]
    pairs = {part: _sick_pairs(local(data_dir) / names[part]) for part in wanted}
    judged = [pair for part in wanted if split in (part, "all") for pair in pairs[part]]
    return _similarity(_sentences(pairs["train"]), {split: judged}, tokenizer, vocab_size, max_length)


def cranfield(
    *,
    data_dir: str,
    rows: Literal["documents", "title_body"],
    vocab_size: PositiveInt,
    max_length: PositiveInt,
    tokenizer: str = "",
) -> Dataset:
    """Cranfield: 1,400 abstracts on aerodynamics, 225 questions, and which abstracts answer them.

    data_dir: holds cran.all.1400, cran.qry and cranqrel.
    rows: what a training row is: a document's title and body together, int32 [N, L], or the pair (title, body), int32
      [N, 2, L], of the 1,398 documents that have both, the title cut from the beginning of the body where it is
      repeated there.

    Queries are numbered by their place in the file, as in cranqrel. Scores are 4 for a complete answer (code 1) to 1
    for one of minimum interest (code 4). The documents are searched whole, and their text, without the queries, is the
    training text: retrieval from a known collection.

    Source: Cleverdon 1967, "The Cranfield tests on index language devices".
    """
    root = local(data_dir)
    try:
        documents = [_document(record) for record in _records(root / "cran.all.1400")]
    except ValueError as error:
        raise DataError(f"{root}: {error}") from error
    queries = [_plain(record.partition("\n.W")[2]) for record in _records(root / "cran.qry")]
    where = []
    for line in _read(root / "cranqrel", "latin-1").splitlines():
        words = line.split()
        numbers = [int(word) if re.fullmatch(r"-?\d{1,9}", word) else 0 for word in words]
        query, document, code = numbers if len(words) == 3 else (0, 0, 0)
        if not (1 <= query <= len(queries) and 1 <= document <= len(documents) and code in (*GAINS, -1)):
            raise DataError(f"{root / 'cranqrel'}: {line!r}; must be a query, a document and a code of 1 to 4 or -1")
        if code in GAINS:
            where.append((len(documents) + query - 1, document - 1, GAINS[code]))
    if not where:
        raise DataError(f"{root / 'cranqrel'}: judges nothing")
    whole = [f"{title} {body}" for title, body in documents]
    encode = tokenizer_for(whole, tokenizer, vocab_size, max_length)
    pairs = [(title, body) for title, body in documents if body]
    train = encode(whole) if rows == "documents" else np.stack([encode(part) for part in zip(*pairs, strict=True)], 1)
    pair_rows, scores = np.array(where)[:, :2], np.array(where, np.float64)[:, 2]
    judgements = Judgements(pair_rows, scores, np.zeros(len(where), np.int64), ("test",), np.arange(len(documents)))
    side = {"judgements": judgements, "tokenizer": encode}
    return Dataset(_unlabelled(train), _unlabelled(encode(whole + queries)), (), side)


def _similarity(
    texts: Sequence[str], tasks: dict[str, Pairs], tokenizer: str, vocab_size: int, max_length: int
) -> Dataset:
    """The data set of training sentences and, by the name of their task, judged pairs."""
    encode = tokenizer_for(texts, tokenizer, vocab_size, max_length)
    pairs = [(number, *pair) for number, judged in enumerate(tasks.values()) for pair in judged]
    task, left, right, scores = zip(*pairs, strict=True)
    rows = np.arange(2 * len(pairs)).reshape(2, -1).T
    judgements = Judgements(rows, np.array(scores), np.array(task), tuple(tasks), np.arange(2 * len(pairs)))
    side = {"judgements": judgements, "tokenizer": encode}
    return Dataset(_unlabelled(encode(texts)), _unlabelled(encode(left + right)), (), side)


def _unlabelled(rows: np.ndarray) -> Split:
    return Split(rows, np.full(len(rows), -1, np.int32))


def _sentences(pairs: Iterable[tuple[str, str, float]]) -> list[str]:
    """Every sentence once, in the order of first appearance."""
    return list(dict.fromkeys(text for left, right, _ in pairs for text in (left, right)))


def _sts_pairs(path: Path) -> tuple[Pairs, Pairs]:
    """The pairs with a score and those without."""
    scored: Pairs = []
    unscored: Pairs = []
    for number, line in enumerate(_read(path, "utf-8").split("\n")):
        if not line:
            continue
        try:
            score, left, right = line.split("\t")
            pair = _plain(left), _plain(right), _score(score or "0", 0)
        except ValueError as error:
            raise DataError(f"{path}: line {number + 1}; must be score TAB sentence TAB sentence ({error})") from error
        (scored if score else unscored).append(pair)
    return scored, unscored


def _sick_pairs(path: Path) -> Pairs:
    header, *lines = (line.split("\t") for line in _read(path, "utf-8").split("\n"))
    if lines and lines[-1] == [""]:
        lines.pop()
    if header != SICK_HEADER or any(len(line) != len(header) for line in lines):
        raise DataError(f"{path}: must have the columns {' '.join(SICK_HEADER)}, with a tab between them")
    try:
        return [(_plain(left), _plain(right), _score(score, 1)) for _, left, right, score, _ in lines]
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _score(text: str, lowest: int) -> float:
    score = float(text)
    if not lowest <= score <= 5:
        raise ValueError(f"a score of {text}; allowed {lowest} to 5")
    return score


def _records(path: Path) -> list[str]:
    """What follows each `.I NUMBER`. Numbers are not read: those of the queries have gaps."""
    first, *records = re.split(r"^\.I \d+ *$", _read(path, "latin-1"), flags=re.MULTILINE)
    if first.strip() or not records:
        raise DataError(f"{path}: must begin with a line .I NUMBER")
    return records


def _document(record: str) -> tuple[str, str]:
    """Title and body. Three bodies have lines with markers of their own, which say nothing."""
    title, body = (_plain(re.sub(r"^\.[ABW] *$", "", part, flags=re.MULTILINE)) for part in _parts(record))
    return title, body.removeprefix(title).lstrip(" .")


def _parts(record: str) -> tuple[str, str]:
    found = re.fullmatch(r"\s*\.T *\n(.*?)^\.A *$.*?^\.B *$.*?^\.W *$(.*)", record, flags=re.MULTILINE | re.DOTALL)
    if not found:
        raise ValueError(f"cran.all.1400: a document without .T .A .B .W in this order: {record[:60]!r}")
    return found[1], found[2]


def _plain(text: str) -> str:
    return " ".join(text.split())


def _read(path: Path, encoding: str) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path.absolute()}: no such file")
    try:
        return path.read_text(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: must be {encoding} text ({error})") from error
