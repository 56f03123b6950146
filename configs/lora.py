"""Low-rank updates of an encoder that others trained, and a classifier, learnt from the labelled rows alone.

    python -m labelfx.train --config=lora --workdir=/tmp/labelfx/lora --config.model.file=FOLDER

FOLDER holds `model.safetensors` and `config.json` as timm and Hugging Face publish them. Parameter-efficient
fine-tuning on few labels is what semi-supervised training from the same encoder has to beat (arXiv 2503.09707).

On a CPU `--config.model.lora.paths='("blocks.5.","blocks.6.","conv_head")'` makes a step of EfficientNet-Lite0 at 96
pixels cost a fifth of its processor time, as gradients end there; `labelfx.compare` picks such paths by itself.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    common = dict(schedule=dict(name="cosine", warmup_steps=0), clip_norm=None, accumulate=1)
    head = dict(name="sgd", learning_rate=0.03, momentum=0.9, weight_decay=0.1, **common)
    updates = dict(name="adamw", learning_rate=3e-4, b1=0.9, b2=0.999, weight_decay=1e-4, **common)
    return ConfigDict(
        dict(
            name="lora",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="digits"),
            labels=dict(name="per_class", k=10),
            model=dict(
                name="pretrained",
                file="",
                image_size=96,
                frozen=False,
                lora=dict(rank=4, alpha=8.0, paths=("",)),
                norm="stored",
                dtype="float32",
            ),
            method=dict(
                name="supervised",
                augment=dict(name="crop_flip", padding=1, flip=False),
                objective=dict(name="cross_entropy", label_smoothing=0.0),
            ),
            optimizer=dict(name="by_path", paths=("head/", ""), optimizers=(head, updates)),
            batch=dict(labelled=32, unlabelled=0),
            batches=dict(name="uniform"),
            steps=100,
            evals=dict(head={}),
        )
    )
