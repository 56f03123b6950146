"""Rows of measurements, as vectors."""

import numpy as np

from labelfx.data import Dataset, Split


def diabetes() -> Dataset:
    """scikit-learn's diabetes data: 332 training and 110 test patients float32 [10]; the files ship with the package.

    The label is the target itself, disease progression after a year, from 25 to 346: a regression, without classes. The
    ten columns are age, sex, body mass index, blood pressure and six serum measurements, in their units. The file names
    no order of its rows; every fourth, from the fourth on, is a test row.

    Source: Efron, Hastie, Johnstone and Tibshirani 2004, "Least Angle Regression", Annals of Statistics.
    """
    from sklearn.datasets import load_diabetes  # slow to import, and needed here only

    data = load_diabetes(scaled=False)
    is_test = np.arange(len(data.target)) % 4 == 3
    inputs, targets = data.data.astype(np.float32), data.target.astype(np.float32)
    train, test = (Split(inputs[rows], targets[rows]) for rows in (~is_test, is_test))
    return Dataset(train, test, ())
