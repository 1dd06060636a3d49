"""Every step of `prepare` over a table, every transform over images."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from core.data.manifest import Manifest
from tests import transforms
from tests.attempts import ROWS as TEXTS
from tests.attempts import VALIDATION, Component, arrays, c, generator, seq, table, texts
from tests.components.example import LINEAR, ROWS, Example

_VOCABULARY = 12


def mixed() -> tuple[Manifest, pa.Table]:
    """Numbers with a gap, cities, days."""
    rng = generator()
    n = ROWS + VALIDATION
    numbers = rng.standard_normal(n)
    return table(
        {
            "gaps": [None if place == 2 else float(value) for place, value in enumerate(numbers)],
            "full": rng.standard_normal(n),
            "city": [("bern", "rome", "oslo")[place % 3] for place in range(n)],
            "day": [f"2024-0{1 + place % 9}-1{place % 9}" for place in range(n)],
            "target": rng.standard_normal(n),
        }
    )


def save_tokenizer(path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=_VOCABULARY, special_tokens=["[PAD]", "[UNK]"])
    tokenizer.train_from_iterator(texts()[1].column("text").to_pylist(), trainer)
    tokenizer.save(str(path))


def of_columns(step: Component) -> Example:
    spec = {"inputs": ["gaps", "full", "city"], "prepare": [step], "model": LINEAR}
    return Example(spec, mixed)


def of_text(*steps: Component, **fields: Any) -> Example:
    model = seq(c("EmbeddingBag", embedding_dim=4), c("Linear", out_features=2))
    spec = {"prepare": list(steps), "model": model, "trainer": {"batch_size": TEXTS}}
    return Example(spec, texts, **fields)


PREPARE: dict[str, Example] = {
    "Impute": of_columns(c("Impute", columns=["gaps"], strategy="median")),
    "Standardize": of_columns(c("Standardize")),
    "MinMax": of_columns(c("MinMax", columns=["full"], feature_range=[-1.0, 1.0])),
    "Clip": of_columns(c("Clip", columns=["full"], quantiles=[0.1, 0.9])),
    "OneHot": of_columns(c("OneHot", columns=["city"], max_categories=2)),
    "Ordinal": of_columns(c("Ordinal", columns=["city"])),
    "DateParts": Example(
        {"inputs": ["day"], "prepare": [c("DateParts", columns=["day"])], "model": LINEAR}
        | {"optimizer": c("SGD", lr=1e-9)},
        mixed,
    ),
    "Lowercase": of_text(c("Lowercase"), c("Words")),
    "Words": of_text(c("Words", max_tokens=6)),
    "Bytes": of_text(c("Bytes")),
    "Tokenizer": of_text(
        c("Tokenizer", file={"upload": "up_1"}, vocab_size=_VOCABULARY), files={"up_1": save_tokenizer}
    ),
    "Truncate": of_text(c("Words"), c("Truncate", length=4, side="left")),
    "Pad": of_text(c("Words"), c("Truncate", length=4), c("Pad", length=7)),
}


def transform(name: str) -> Example:
    train, evaluate = transforms.spec_of(name)
    model = seq(c("AdaptiveAvgPool2d", output_size=4), c("Flatten"), c("Linear", out_features=3))
    data = arrays([3, 32, 32], classes=3, dtype="uint8", train=ROWS, validation=ROWS)
    return Example({"model": model, "transforms": {"train": train, "eval": evaluate}}, data)
