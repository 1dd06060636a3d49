"""What job.json stands for, written in scikit-learn's words: the same columns, steps, layers and optimizer.

python -m examples.mixed_table.by_hand sun.zip
"""

import csv
import io
import sys
import warnings
import zipfile
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def train(archive: Path, epochs: int = 20, seed: int = 0) -> tuple[Pipeline, float]:
    """The fitted pipeline and its accuracy on the test rows."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer([("numbers", numbers, [0, 1, 2]), ("words", OneHotEncoder(), [3])])
    net = MLPClassifier(
        (64, 64), alpha=0, batch_size=32, learning_rate_init=0.003, max_iter=epochs, tol=0, random_state=seed
    )
    pipeline = make_pipeline(columns, net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # so many epochs and no more are meant
        pipeline.fit(*read(archive, "train"))
    return pipeline, float(pipeline.score(*read(archive, "test")))


def read(archive: Path, split: str) -> tuple[NDArray[np.object_], list[str]]:
    with zipfile.ZipFile(archive) as members:
        rows = list(csv.DictReader(io.TextIOWrapper(members.open(f"{split}.csv"), "utf-8")))
    values = [
        (
            date.fromisoformat(row["date"]).timetuple().tm_yday,
            float(row["hour"]),
            float(row["latitude"] or "nan"),
            row["hemisphere"],
        )
        for row in rows
    ]
    return np.array(values, dtype=object), [row["sun"] for row in rows]


if __name__ == "__main__":
    print(train(Path(sys.argv[1]))[1])
