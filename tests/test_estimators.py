"""Estimators of scikit-learn: its own checks, and rows that it has none for."""

import tempfile

import numpy as np
import pytest
from PIL import Image
from recipes import ENCODER
from sklearn.datasets import load_digits, make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from labelfx.config import ConfigError
from labelfx.estimators import LabelEfficientClassifier

LEFT_OUT = {
    "check_classifiers_classes": "its binary classes are -1 and 1, and -1 is a row that nobody has labelled, as in "
    "sklearn.semi_supervised",
    "check_estimators_pickle": "nothing is pickled: labelfx.fit keeps a network as safetensors in a folder",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@parametrize_with_checks([LabelEfficientClassifier(steps=100)], expected_failed_checks=lambda _: LEFT_OUT)
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Where temporary folders are."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_in_pipelines_and_searches(folders):
    x, y = make_blobs(90, centers=3, cluster_std=0.5, random_state=0)
    names = np.array(["a", "b", "c"], object)[y]
    names[30:] = None
    model = LabelEfficientClassifier(steps=150, random_state=0)
    pipeline = make_pipeline(StandardScaler(), model).fit(x, names)
    assert pipeline.classes_.tolist() == ["a", "b", "c"]
    assert np.mean(pipeline.predict(x) == np.array(["a", "b", "c"])[y]) > 0.9
    probabilities = pipeline.predict_proba(x[:5])
    assert probabilities.shape == (5, 3) and probabilities.sum(1) == pytest.approx(1)
    search = GridSearchCV(model, {"steps": [1, 150]}, cv=2).fit(x, y)
    assert search.best_params_ == {"steps": 150}
    assert cross_val_score(make_pipeline(model, LogisticRegression()), x, y, cv=2).mean() > 0.8  # on its features
    assert not list(folders.iterdir())


@pytest.mark.slow
def test_images_and_recipes(folders):
    images, y = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) * 15).astype(np.uint8)
    told = np.full(len(y), np.nan)
    told[:40] = y[:40]
    model = LabelEfficientClassifier(recipe="supervised", steps=60, random_state=0).fit(images[:500], told[:500])
    assert model.score(images[500:], y[500:]) > 0.5 and model.classes_.tolist() == [*range(10)]
    with pytest.raises(ConfigError, match="own_imagess: neither a file nor a recipe; did you mean 'own_images'"):
        LabelEfficientClassifier(recipe="own_imagess").fit(images[:500], told[:500])
    with pytest.raises(ValueError, match="recipe = 'hard_negative': trains no classifier"):
        LabelEfficientClassifier(recipe="hard_negative", steps=1).fit(images[:64], y[:64])
    assert not list(folders.iterdir())


def test_sentences(folders):
    texts = [f"{'salt' if row % 2 else 'drum'} {row}" for row in range(40)]
    model = LabelEfficientClassifier(steps=40, random_state=0).fit(texts, [text[:4] for text in texts])
    assert model.predict(["the salt", "a drum"]).tolist() == ["salt", "drum"]
    assert model.transform(texts).shape[0] == 40


@pytest.mark.slow
def test_pictures(folders):
    rng = np.random.default_rng(0)
    kinds = np.arange(24) % 2
    levels = [np.clip(rng.normal(70 + 110 * kind, 20, (20, 24, 3)), 0, 255).astype(np.uint8) for kind in kinds]
    photos = [Image.fromarray(each) for each in levels]
    model = LabelEfficientClassifier(backbone=str(ENCODER), steps=40, random_state=0)
    model._side = lambda: 16  # that of the file would take long
    assert model.fit(photos, kinds).score(photos, kinds) > 0.9
    photos[0].save(folders / "photo.png")
    assert model.predict([folders / "photo.png"]).tolist() == [0]
