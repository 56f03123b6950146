"""What the network of a run makes of the test rows: predictions, mistakes, maps of embeddings, nearest neighbours."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special
from threadpoolctl import threadpool_limits

from labelfx import config as configs
from labelfx.data import Split
from labelfx.evals import knn_predict
from labelfx.evals.calibration import reliability
from labelfx.loop.inputs import Inputs
from labelfx.loop.run import build_model, keep_compiled_programs, load_variables
from labelfx.reports import figures
from labelfx.reports.figures import Line, Page
from labelfx.reports.samples import CLASSES, Loaded, is_images, name_of

MAPPED = 1000  # test rows on the maps of embeddings
SCORED = 10_000  # test rows that are predicted
BINS = 15  # of confidence
KNN = {"k": 20, "temperature": 0.1}  # where the run has no classifier and no kNN among its evals


def inspect(page: Page, loaded: Loaded) -> None:
    """Adds to the page what needs the weights of a run, of whose data it has `loaded`."""
    folder, config, dataset, view = loaded
    if dataset.task != "class" or dataset.test is None:
        return page.missing.append(
            "these data have no classes to test, so there is no confusion matrix, calibration, mistake or map of "
            "embeddings by class."
        )
    try:
        variables = load_variables(folder)
        model = build_model(config, dataset)
    except (OSError, ValueError, KeyError) as error:  # a ConfigError is a ValueError
        return page.missing.append(str(error))
    page.heading("Test rows")
    images, labels, _ = dataset.test
    names = dataset.class_names
    rows = np.linspace(0, len(labels) - 1, min(len(labels), SCORED)).astype(np.int64)
    called = functools.partial(name_of, dataset, dataset.test)
    dataset = dataset._replace(test=Split(images[rows], labels[rows]))
    keep_compiled_programs()
    inputs = Inputs(config, dataset, view, model, variables, configs.phases(config)[-1]["method"])
    if len(rows) < len(labels):
        page.text(f"{len(rows)} of {len(labels)} test rows, evenly spaced.")
    knn = config.evals["knn"] if "knn" in config.evals else KNN
    _predictions(page, inputs, "head" in variables["params"], knn, names, lambda i: called(rows[i]))
    with threadpool_limits(1):  # the threads of so small a problem mostly wait for each other
        _embeddings(page, inputs, names, lambda i: called(rows[i]))


def _predictions(
    page: Page, inputs: Inputs, classifier: bool, knn: dict[str, Any], names: Any, called: Callable[[int], str]
) -> None:
    if classifier:
        probabilities = scipy.special.softmax(inputs.test_logits.astype(np.float64), axis=1)
        page.text("Predictions are those of the run's own classifier; confidence is its largest probability.")
    elif not len(inputs.rows):
        return page.text("Predictions are left out: the run has no classifier and its label view no labels.")
    else:
        k, neighbours = min(knn["k"], len(inputs.rows)), (inputs.labelled_features, inputs.labelled_labels)
        how = {"k": k, "temperature": knn["temperature"], "num_classes": len(names)}
        votes = np.asarray(knn_predict(*neighbours, inputs.test_features, **how), np.float64)
        probabilities = votes / votes.sum(1, keepdims=True)
        page.text(
            f"The run has no classifier: predictions are votes of the k = {k} nearest of {len(inputs.rows)} labelled "
            f"rows, weighted at temperature {knn['temperature']}; confidence is the winner's share of the votes."
        )
    truth, predicted, confidence = inputs.test_labels, probabilities.argmax(1), probabilities.max(1)
    right = predicted == truth
    page.text(f"Accuracy {100 * right.mean():.2f} % on {len(truth)} test rows.")

    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    if len(names) <= CLASSES:
        caption = (
            "Rows are true classes, columns what they were taken for. Dark cells off the diagonal: classes mixed up."
        )
        numbers: list = [["true, predicted", *names], *([name, *row] for name, row in zip(names, counts, strict=True))]
        page.figure(figures.matrix(counts, names), "Confusion matrix", caption, numbers)
    else:
        page.text(f"The confusion matrix is left out: {len(names)} classes are too many to read.")
    present = np.flatnonzero(counts.sum(1))
    each = [Line(names[c], None, [counts[c, c] / counts[c].sum()]) for c in present]
    numbers = [
        ["class", "accuracy", "n"],
        *([names[c], x.y[0], counts[c].sum()] for c, x in zip(present, each, strict=True)),
    ]
    rest = f" The {CLASSES} worst of {len(each)}." * (len(each) > CLASSES)
    svg = figures.bars(sorted(each, key=lambda line: line.y[0])[:CLASSES], "accuracy in %")
    page.figure(svg, "Accuracy of each class", f"Look for classes far below the others.{rest}", numbers)

    mean, hits, n = reliability(confidence, right, BINS)
    ece = np.sum(n * np.abs(mean - hits)) / len(truth)
    found = [Line("found", mean, hits), Line("as it should be", [0, 1], [0, 1], None, True)]
    caption = (
        f"Expected calibration error (ECE, {BINS} bins of equal width) {ece:.4f}. Below the grey line predictions are "
        "surer than they are right; far above it they are too modest. Bins with few rows jump about."
    )
    numbers = [["confidence", "accuracy", "n"], *zip(mean, hits, n, strict=True)]
    page.figure(figures.lines(found, "confidence", "accuracy"), "Reliability", caption, numbers)

    worst = [i for i in np.argsort(-confidence, kind="stable") if not right[i]][:12]
    if not worst:
        return
    page.heading("The most confident mistakes")
    page.text("Look for labels that are wrong themselves, and for what the mistakes have in common.")
    said = [[called(i), names[truth[i]], names[predicted[i]], confidence[i]] for i in worst]
    if is_images(inputs.test_inputs):
        texts = [f"taken for {taken} ({sure:.0%}), is {true}: {file}" for file, true, taken, sure in said]
        page.pictures(inputs.test_inputs[worst], texts, ["wrong"] * len(worst))
    page.table([["", "true", "predicted", "confidence"], *said], fold="numbers" * is_images(inputs.test_inputs))


def _embeddings(page: Page, inputs: Inputs, names: Any, called: Callable[[int], str]) -> None:
    from sklearn.manifold import TSNE

    features = inputs.test_features.astype(np.float64)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    some = np.linspace(0, len(features) - 1, min(len(features), MAPPED)).astype(np.int64)
    left, singular, _ = np.linalg.svd(features[some] - features[some].mean(0, keepdims=True), full_matrices=False)
    if len(singular) < 4 or singular[1] < 1e-6 * len(some) ** 0.5:
        return page.missing.append("embeddings: too few of them to map, or all on one line, which is collapse.")
    page.heading("Embeddings")
    share = singular[:2] ** 2 / np.sum(singular**2)
    components, classes = left * singular[None], inputs.test_labels[some]
    what = f"Backbone features of {len(some)} test rows, scaled to length 1, in the colours of their true classes. "
    caption = what + f"The two directions of most variance, {share.sum():.0%} of it. Look for classes that lie apart."
    numbers = [["component", "share of variance"], [1, share[0]], [2, share[1]]]
    page.figure(figures.scatter(components[:, :2], classes, names), "PCA", caption, numbers)
    tsne = TSNE(perplexity=min(30, (len(some) - 1) / 3), init="pca", random_state=0)
    caption = what + (
        "Neighbours stay neighbours; sizes of clusters and distances between them mean nothing. Look for points inside "
        "another class's island."
    )
    page.figure(figures.scatter(tsne.fit_transform(components[:, :50]), classes, names), "t-SNE", caption, [])

    page.heading("Nearest neighbours")
    page.text(
        "Test rows, each with its nearest other test rows by cosine of the features: green of its class, orange of "
        "another. Look for what the network takes for alike."
    )
    numbers = [["row", "class", "classes of the nearest"]]
    for query in np.unique(np.linspace(0, len(features) - 1, 8).astype(np.int64)):
        cosines = features @ features[query]
        row = [query, *[i for i in np.argsort(-cosines, kind="stable") if i != query][:5]]
        found = inputs.test_labels[row]
        texts = [f"{names[label]} ({cosines[i]:.2f})" for i, label in zip(row, found, strict=True)]
        shown = [f"{text}: {called(i)}" for text, i in zip([names[found[0]], *texts[1:]], row, strict=True)]
        if is_images(inputs.test_inputs):
            page.pictures(inputs.test_inputs[row], shown, ["", *np.where(found == found[0], "right", "wrong")[1:]])
        numbers.append([called(query), names[found[0]], "; ".join(shown[1:])])
    page.table(numbers, fold="numbers" * is_images(inputs.test_inputs))
