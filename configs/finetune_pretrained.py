"""Fine-tuning of an encoder that others trained, on the labelled rows alone, the lower its layers the slower.

    python -m labelfx.train --config=finetune_pretrained --workdir=/tmp/labelfx/finetune_pretrained

With `--config.model.file=FOLDER`, which holds `model.safetensors` and `config.json` as timm and Hugging Face publish
them. The head learns at the full rate.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="finetune_pretrained",
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
                lora=None,
                norm="stored",
                dtype="float32",
            ),
            method=dict(
                name="supervised",
                augment=dict(name="crop_flip", padding=1, flip=False),
                objective=dict(name="cross_entropy", label_smoothing=0.0),
            ),
            optimizer=dict(
                name="layer_decay",
                decay=0.75,
                optimizer=dict(
                    name="adamw",
                    learning_rate=1e-3,
                    b1=0.9,
                    b2=0.999,
                    weight_decay=1e-4,
                    schedule=dict(name="cosine", warmup_steps=0),
                    clip_norm=None,
                    accumulate=1,
                ),
            ),
            batch=dict(labelled=32, unlabelled=0),
            batches=dict(name="uniform"),
            steps=100,
            evals=dict(head={}),
        )
    )
