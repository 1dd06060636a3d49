"""Write scikit-learn's diabetes set as train.csv, val.csv and test.csv.

    python -m examples.linear_regression.make_data diabetes.zip

Source: Efron, Hastie, Johnstone, Tibshirani 2004, "Least Angle Regression", Annals of Statistics 32(2); 442
patients, ten measurements each, and how far the disease had come a year later.
"""

import csv
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_diabetes

#: Where the shuffled rows are cut.
VAL_FROM, TEST_FROM = 310, 354


def write_zip(path: Path) -> None:
    diabetes = load_diabetes(scaled=False)
    order = np.random.default_rng(0).permutation(len(diabetes.target))
    splits = zip(("train", "val", "test"), np.split(order, [VAL_FROM, TEST_FROM]), strict=True)
    rows = np.column_stack([diabetes.data, diabetes.target])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for split, index in splits:
            text = io.StringIO()
            lines = [[*diabetes.feature_names, "progression"], *rows[index].tolist()]
            csv.writer(text, lineterminator="\n").writerows(lines)
            archive.writestr(zipfile.ZipInfo(f"{split}.csv"), text.getvalue())


if __name__ == "__main__":
    write_zip(Path(sys.argv[1]))
