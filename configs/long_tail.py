"""Pre-training without labels, then label-distribution-aware margins with deferred re-weighting (Yang & Xu 2020; Cao et
al. 2019): digits of which the first class has 20 times as many labels as the last.

    python -m labelfx.train --config=long_tail --workdir=/tmp/labelfx/long_tail

Balanced accuracy 0.949, of the three classes with fewest labels 0.898. Seed 0, one label draw: a sign that it works,
not a result.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    augment = dict(name="small_grey", min_scale=0.5, max_rotation=15.0, jitter_strength=0.5, cutout=0.0)
    margins = dict(name="ldam", margin=0.5, scale=30.0, beta=0.0)
    told = dict(name="finetune", augment=augment, objective=margins, head="fresh")
    deferred = dict(told, objective=dict(margins, beta=0.9999), head="kept")
    return ConfigDict(
        dict(
            name="long_tail",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="digits"),
            labels=dict(name="long_tail", imbalance=20.0),
            model=dict(name="conv3", width=32, dtype="float32"),
            head=dict(name="cosine"),
            method=dict(
                name="contrastive",
                augment=augment,
                projector=dict(name="projector", hidden=(128,), features=64, batch_norm=True, dtype="float32"),
                objective=dict(name="nt_xent", temperature=0.5),
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
            batch=dict(labelled=0, unlabelled=256),
            batches=dict(name="uniform"),
            steps=200,
            phases=(
                dict(),
                dict(method=told, batch=dict(labelled=64, unlabelled=0), backbone="previous"),
                dict(method=deferred, batch=dict(labelled=64, unlabelled=0), backbone="previous", steps=100),
            ),
            evals=dict(head={}, groups={}, conformal=dict(error=0.1, holdout=0.5, repeats=100)),
        )
    )
