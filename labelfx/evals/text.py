"""What a text encoder is worth: agreement with human judgements of similarity, retrieval, and floors to clear.

Similarity is the cosine of two texts' features. The floors are measured in the same way as the encoder (`measure`).
"""

from typing import Any, Literal

import jax
import numpy as np
import scipy.sparse
import scipy.stats

from labelfx.data import Judgements
from labelfx.data.augment import to_float
from labelfx.evals import features
from labelfx.mining.search import top_k
from labelfx.models import Model

Measure = Literal["spearman", "retrieval"]


def spearman(test_features: np.ndarray, judgements: Judgements) -> dict[str, Any]:
    """Spearman's rank correlation of cosines with judged scores: of all pairs of a task, then the mean over tasks.

    As in SimCSE (Gao et al. 2021, EMNLP, appendix B), which calls it "all"; a task of STS is a year.

    Args:
      test_features: float32 [M, F].

    Returns:
      value (the mean), each task by name, n (pairs).
    """
    x = _unit(test_features)
    return _spearman(np.sum(x[judgements.pairs[:, 0]] * x[judgements.pairs[:, 1]], axis=1), judgements)


def retrieval(test_features: np.ndarray, judgements: Judgements) -> dict[str, Any]:
    """nDCG@10 (Jarvelin and Kekalainen 2002, as trec_eval: gain = score, discount 1 / log2(rank + 1)) and recall of
    the 10 and the 100 nearest of all documents by cosine, means over the queries with a relevant document.

    Args:
      test_features: float32 [M, F].

    Returns:
      value (nDCG@10), recall_10, recall_100, n (queries).
    """
    queries, documents = np.unique(judgements.pairs[:, 0]), judgements.documents
    found = top_k(test_features[queries], test_features[documents], min(100, len(documents)), similarity="cosine")[1]
    each = [_of_query(documents[row], judgements, query) for query, row in zip(queries, np.asarray(found), strict=True)]
    ndcg, recall_10, recall_100 = np.mean(each, axis=0).tolist()
    return {"value": ndcg, "recall_10": recall_10, "recall_100": recall_100, "n": len(queries)}


def tfidf(train_inputs: Any, test_inputs: Any, judgements: Judgements, *, measure: Measure) -> dict[str, Any]:
    """A floor without an encoder: cosine of TF-IDF vectors of the tokens, with frequencies of the training text."""
    from sklearn.feature_extraction.text import TfidfTransformer  # slow to import, and needed here only

    width = int(max(train_inputs.max(), test_inputs.max())) + 1
    weights = TfidfTransformer().fit(_counts(train_inputs, width))
    x = weights.transform(_counts(test_inputs, width))
    if measure == "retrieval":
        return retrieval(x.toarray().astype(np.float32), judgements)
    left, right = (x[judgements.pairs[:, side]] for side in (0, 1))
    return _spearman(np.asarray(left.multiply(right).sum(axis=1)).ravel(), judgements)


def untrained(model: Model, seed: int, test_inputs: Any, judgements: Judgements, *, measure: Measure) -> dict[str, Any]:
    """A floor without training: the encoder at its initial parameters, drawn from `seed`."""
    variables = jax.jit(model.init)(jax.random.key(seed), to_float(test_inputs[:1]))
    return {"spearman": spearman, "retrieval": retrieval}[measure](features(model, variables, test_inputs), judgements)


def _spearman(similarity: np.ndarray, judgements: Judgements) -> dict[str, Any]:
    found = {
        name: float(scipy.stats.spearmanr(similarity[rows], judgements.scores[rows]).statistic)
        for name, rows in ((name, judgements.task == number) for number, name in enumerate(judgements.names))
    }
    return {"value": float(np.mean([*found.values()])), **found, "n": len(similarity)}


def _of_query(found: np.ndarray, judgements: Judgements, query: int) -> tuple[float, float, float]:
    """nDCG@10, recall@10 and recall@100 of the documents found for a query, the best first."""
    own = judgements.pairs[:, 0] == query
    gains = dict(zip(judgements.pairs[own, 1].tolist(), judgements.scores[own].tolist(), strict=True))
    discount = 1 / np.log2(np.arange(2, 12))
    ideal = np.array(sorted(gains.values(), reverse=True)[:10])
    got = np.array([gains.get(document, 0) for document in found.tolist()])
    recall_10, recall_100 = (np.count_nonzero(got[:k]) / len(gains) for k in (10, 100))
    ndcg = got[:10] @ discount[: len(got)] / (ideal @ discount[: len(ideal)])
    return float(ndcg), recall_10, recall_100


def _counts(tokens: np.ndarray, width: int) -> Any:
    """How often each token id but 0 is in each row: float64 [N, width], sparse."""
    ids = tokens.reshape(len(tokens), -1)
    rows, places = np.nonzero(ids)
    counts = scipy.sparse.csr_matrix((np.ones(len(rows)), (rows, ids[rows, places])), (len(ids), width))
    counts.sum_duplicates()
    return counts


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
