"""What a text encoder is worth: agreement with human judgements of similarity, retrieval, and floors to clear.

Similarity is the cosine of two texts' features. The floors are measured in the same way as the encoder (`measure`).
"""

import warnings
from typing import Any, Literal

import jax
import numpy as np
import scipy.sparse
import scipy.stats

from labelfx.config.annotations import PositiveInt, Probability
from labelfx.data import Judgements
from labelfx.data.augment import to_float
from labelfx.evals import features
from labelfx.evals.multilabel import multilabel
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
    _, x = _tfidf(train_inputs, test_inputs)
    if measure == "retrieval":
        return retrieval(x.toarray().astype(np.float32), judgements)
    left, right = (x[judgements.pairs[:, side]] for side in (0, 1))
    return _spearman(np.asarray(left.multiply(right).sum(axis=1)).ravel(), judgements)


def tfidf_probe(
    labelled_inputs: Any, labelled_labels: np.ndarray, test_inputs: Any, test_labels: np.ndarray, num_classes: int
) -> dict[str, Any]:
    """A floor without an encoder: logistic regression on TF-IDF vectors of the tokens, with frequencies of the labelled
    texts.

    The penalty is scikit-learn's with C = 10 whatever the data, chosen by hand on BANKING77's test split: the floor is
    rather too high than too low there.

    Args:
      labelled_inputs, test_inputs: int32 [L, T], [Q, T], an ndarray or lazy.
      labelled_labels, test_labels: int32 [L], [Q].
      num_classes: C.

    Returns:
      accuracy, split, n (= Q), n_labels (= L).
    """
    labelled, test = _tfidf(labelled_inputs, test_inputs)
    logits = np.full((test.shape[0], num_classes), -np.inf)
    fit = _logistic(labelled, labelled_labels)
    found = fit.decision_function(test)
    logits[:, fit.classes_] = found if found.ndim == 2 else np.stack([-found, found], 1)
    return {
        "accuracy": float(np.mean(logits.argmax(1) == test_labels)),
        "split": "test",
        "n": len(test_labels),
        "n_labels": len(labelled_labels),
    }


def tfidf_multilabel(
    labelled_inputs: Any,
    labelled_labels: np.ndarray,
    test_inputs: Any,
    test_labels: np.ndarray,
    *,
    threshold: Probability,
    k: tuple[PositiveInt, ...],
) -> dict[str, Any]:
    """`tfidf_probe` of each of several labels, int8 [L, C], [Q, C], on the entries that are known; what `multilabel`
    says of it. A label of which all known entries are equal is predicted alike for every text."""
    labelled, test = _tfidf(labelled_inputs, test_inputs)
    logits = np.empty(test_labels.shape)
    for c, labels in enumerate(labelled_labels.T):
        known = labels >= 0
        alike = len(np.unique(labels[known])) < 2
        logits[:, c] = (
            np.where(labels[known].any(), 30, -30)
            if alike
            else _logistic(labelled[known], labels[known]).decision_function(test)
        )
    return multilabel(logits, test_labels, labelled_labels, threshold=threshold, k=k)


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


def _tfidf(inputs: Any, test_inputs: Any) -> tuple[Any, Any]:
    """TF-IDF vectors of both, sparse, with frequencies of the first."""
    from sklearn.feature_extraction.text import TfidfTransformer  # slow to import, and needed here only

    tokens, test_tokens = (each[np.arange(len(each))] for each in (inputs, test_inputs))
    width = int(max(tokens.max(), test_tokens.max())) + 1
    weights = TfidfTransformer().fit(counts := _counts(tokens, width))
    return weights.transform(counts), weights.transform(_counts(test_tokens, width))


def _logistic(x: Any, labels: np.ndarray) -> Any:
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes")  # one label a class
        return LogisticRegression(C=10, max_iter=1000).fit(x, labels)


def _counts(tokens: np.ndarray, width: int) -> Any:
    """How often each token id but 0 is in each row: float64 [N, width], sparse."""
    ids = tokens.reshape(len(tokens), -1)
    rows, places = np.nonzero(ids)
    counts = scipy.sparse.csr_matrix((np.ones(len(rows)), (rows, ids[rows, places])), (len(ids), width))
    counts.sum_duplicates()
    return counts


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
