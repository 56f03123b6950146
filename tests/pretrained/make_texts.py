"""Makes the small text encoders that `tests/test_pretrained_texts.py` reads, with what their own libraries say of them.

    python tests/pretrained/make_texts.py

Needs torch, transformers, model2vec and tokenizers, which no test does. Weights are random, and large enough that a
wrong epsilon, activation or pooling shows. `provenance.json` says what they were made with.
"""

import importlib.metadata
import json
from pathlib import Path

import numpy as np
import torch
from model2vec import StaticModel
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

HERE = Path(__file__).parent
SEED = 0
TEXTS = ("a cat sat on the mat", "dogs run", "", "the unseen zebra sat", "mat " * 20)
WORDS = "a the cat dog dogs sat run runs on mat red blue is was and to in it of one two three four five six".split()
LENGTHS = (6, 16)


def tokenizer(special: tuple[str, ...]) -> Tokenizer:
    """Words and pieces of them, `special` first."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [*special, *WORDS, *(f"##{letter}" for letter in letters if letter != "z"), *letters[1:25]]
    found = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    found.normalizer, found.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    found.add_special_tokens(list(special))
    return found


def make_bert(folder: Path) -> None:
    """MiniLM's layout, with a pooler and positions that are left out."""
    words = tokenizer(("[PAD]", "[UNK]", "[CLS]", "[SEP]"))
    around = [("[CLS]", 2), ("[SEP]", 3)]
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    words.enable_padding(length=8)  # as a file has it, and no reader should
    config = BertConfig(
        vocab_size=words.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
        attn_implementation="eager",
    )
    model = BertModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
        for table in ("word", "position", "token_type"):  # of a variance that an epsilon of 1e-5 would show in
            getattr(model.embeddings, f"{table}_embeddings").weight.mul_(0.02)
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    tensors["embeddings.position_ids"] = np.arange(16)[None]
    write(folder, tensors, json.loads(config.to_json_string()) | {"model_type": "bert"}, words)
    modules = [{"path": "", "type": "Transformer"}, {"path": "1_Pooling", "type": "Pooling"}]
    modules.append({"path": "2_Normalize", "type": "Normalize"})
    modules = [module | {"type": f"sentence_transformers.models.{module['type']}"} for module in modules]
    (folder / "modules.json").write_text(json.dumps(modules, indent=1) + "\n")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=1) + "\n")
    expected = {}
    for length in LENGTHS:
        words.enable_truncation(length)
        words.enable_padding(length=length)
        encoded = words.encode_batch(list(TEXTS))
        ids, mask = (torch.tensor([getattr(each, key) for each in encoded]) for key in ("ids", "attention_mask"))
        with torch.no_grad():
            tokens = model(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        found = {"ids": ids, "tokens": tokens, "mean": torch.nn.functional.normalize(mean), "cls": tokens[:, 0]}
        expected |= {f"{name}_{length}": value.numpy() for name, value in found.items()}
    np.savez_compressed(folder / "expected.npz", **expected)


def make_static(folder: Path, dtype: type, weighted: bool, special: tuple[str, ...]) -> None:
    """model2vec's layout; without [PAD] first, id 0 is a token."""
    words = tokenizer(special)
    around = [("[CLS]", special.index("[CLS]"))]
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=around)
    rng = np.random.default_rng(SEED)
    table = rng.normal(size=(words.get_vocab_size(), 24)) + 0.5
    table = np.round(table / abs(table).max() * 127).astype(dtype) if dtype == np.int8 else table.astype(dtype)
    tensors = {"embeddings": table}
    if weighted:
        tensors["weights"] = rng.uniform(0.1, 2, len(table)).astype(np.float32)
    config = {"model_type": "model2vec", "normalize": True}
    write(folder, tensors, config, words)
    model = StaticModel.from_pretrained(folder, quantize_to=None if dtype == np.int8 else "float32")
    np.savez_compressed(folder / "expected.npz", features=model.encode(list(TEXTS)))


def write(folder: Path, tensors: dict, config: dict, words: Tokenizer) -> None:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    words.save(str(folder / "tokenizer.json"), pretty=False)


if __name__ == "__main__":
    torch.manual_seed(SEED)
    make_bert(HERE / "bert")
    make_static(HERE / "static_int8", np.int8, True, ("[PAD]", "[UNK]", "[CLS]"))
    make_static(HERE / "static_float16", np.float16, False, ("[UNK]", "[CLS]"))
    versions = {name: importlib.metadata.version(name) for name in "torch transformers model2vec tokenizers".split()}
    said = {"command": "python tests/pretrained/make_texts.py", "seed": SEED, "texts": TEXTS, "versions": versions}
    (HERE / "texts.json").write_text(json.dumps(said, indent=1) + "\n")
