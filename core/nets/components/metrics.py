"""Metrics: torchmetrics' classes that give one number for a task, by their own names.

A spec may leave out a class's prefix (`F1Score` is MulticlassF1Score or MultilabelF1Score, by the task) and
write a short word for it (`f1`). `Binary…` looks at the second of two classes alone.
"""

from typing import Literal

import torchmetrics.classification
import torchmetrics.regression

from core.nets.components.family import Extra, Family, Override, Size

MULTICLASS = "Multiclass"
MULTILABEL = "Multilabel"
BINARY = "Binary"

_BY_CLASS = (
    "AUROC",
    "Accuracy",
    "AveragePrecision",
    "CalibrationError",
    "CohenKappa",
    "EER",
    "F1Score",
    "FBetaScore",
    "HammingDistance",
    "HingeLoss",
    "JaccardIndex",
    "LogAUC",
    "MatthewsCorrCoef",
    "NegativePredictiveValue",
    "Precision",
    "Recall",
    "Specificity",
)
_BY_LABEL = (
    "AUROC",
    "Accuracy",
    "AveragePrecision",
    "CoverageError",
    "ExactMatch",
    "F1Score",
    "FBetaScore",
    "HammingDistance",
    "JaccardIndex",
    "LogAUC",
    "MatthewsCorrCoef",
    "NegativePredictiveValue",
    "Precision",
    "RankingAveragePrecision",
    "RankingLoss",
    "Recall",
    "Specificity",
)
REGRESSION = (
    "ConcordanceCorrCoef",
    "CosineSimilarity",
    "CriticalSuccessIndex",
    "ExplainedVariance",
    "LogCoshError",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogError",
    "MinkowskiDistance",
    "NormalizedRootMeanSquaredError",
    "PearsonCorrCoef",
    "R2Score",
    "RelativeSquaredError",
    "SpearmanCorrCoef",
    "SymmetricMeanAbsolutePercentageError",
    "TweedieDevianceScore",
    "WeightedMeanAbsolutePercentageError",
)

#: Short words for a class without its prefix, with the keywords they stand for.
ALIASES: dict[str, tuple[str, dict[str, bool]]] = {
    "f1": ("F1Score", {}),
    "fbeta": ("FBetaScore", {}),
    "jaccard": ("JaccardIndex", {}),
    "hamming": ("HammingDistance", {}),
    "matthews": ("MatthewsCorrCoef", {}),
    "npv": ("NegativePredictiveValue", {}),
    "r2": ("R2Score", {}),
    "mae": ("MeanAbsoluteError", {}),
    "mse": ("MeanSquaredError", {}),
    "rmse": ("MeanSquaredError", {"squared": False}),
    "nrmse": ("NormalizedRootMeanSquaredError", {}),
    "msle": ("MeanSquaredLogError", {}),
    "mape": ("MeanAbsolutePercentageError", {}),
    "smape": ("SymmetricMeanAbsolutePercentageError", {}),
    "wmape": ("WeightedMeanAbsolutePercentageError", {}),
    "pearson": ("PearsonCorrCoef", {}),
    "spearman": ("SpearmanCorrCoef", {}),
    "concordance": ("ConcordanceCorrCoef", {}),
}

#: They keep a number for each pair of classes.
SQUARE = frozenset(f"Multiclass{name}" for name in ("CohenKappa", "JaccardIndex", "MatthewsCorrCoef"))

_CURVE = "it gives a curve, and a metric is one number"
_MATRIX = (
    "it gives numbers by class, and a metric is one number; a version has its confusion matrix and table"
)
_TWO = "it gives a value and a threshold, and a metric is one number"
_TASK = "the task decides which of Binary, Multiclass and Multilabel it is"

_AVERAGE = Override("none gives a number for each class", Literal["micro", "macro", "weighted"])
_RANKED_AVERAGE = Override("none gives a number for each class", Literal["macro", "weighted"])


FAMILY = Family(
    name="metric",
    namespace=torchmetrics.classification,
    types=(
        *(f"Multiclass{name}" for name in _BY_CLASS),
        *(f"Multilabel{name}" for name in _BY_LABEL),
        *(f"Binary{name}" for name in _BY_CLASS),
    ),
    own={
        name: getattr(torchmetrics.regression, name)
        for name in REGRESSION
        if hasattr(torchmetrics.regression, name)
    },
    absent={
        **{
            f"{prefix}{name}": reason
            for prefix in ("Binary", "Multiclass", "Multilabel", "")
            for name, reason in {
                "ConfusionMatrix": _MATRIX,
                "StatScores": _MATRIX,
                "ROC": _CURVE,
                "PrecisionRecallCurve": _CURVE,
                "PrecisionAtFixedRecall": _TWO,
                "RecallAtFixedPrecision": _TWO,
                "SensitivityAtSpecificity": _TWO,
                "SpecificityAtSensitivity": _TWO,
            }.items()
        },
        **dict.fromkeys(_BY_CLASS, _TASK),
        "ExactMatch": _TASK,
        "MulticlassExactMatch": "with one class a row it is the accuracy",
        "MultilabelEER": "it gives a number for each label, and a metric is one number",
        "BinaryFairness": "it compares groups, and needs a group beside the target",
        "BinaryGroupStatRates": "it compares groups, and needs a group beside the target",
        "ContinuousRankedProbabilityScore": "it takes many predictions for each row",
        "JensenShannonDivergence": "it compares distributions; take KLDivLoss as the loss",
        "KLDivergence": "it compares distributions; take KLDivLoss as the loss",
        "KendallRankCorrCoef": "it compares every row with every other; take SpearmanCorrCoef",
    },
    left_out={
        "*.validate_args": "the plan has tried the metric, and each check would wait for the device",
        "*.multidim_average": "a row has one target",
        "*.keep_sequence_dim": "a row has one target",
        **{
            f"Binary{name}.normalization": "what it gets are probabilities"
            for name in ("AveragePrecision", "EER")
        },
    },
    overrides={
        "*.average": _AVERAGE,
        "MulticlassAccuracy.average": Override(
            "accuracy is the share of right rows; macro is what scikit-learn calls balanced accuracy",
            Literal["micro", "macro", "weighted"],
            "micro",
        ),
        "MulticlassAUROC.average": _RANKED_AVERAGE,
        "MulticlassAveragePrecision.average": _RANKED_AVERAGE,
        "MulticlassEER.average": Override(
            "without one it gives a number for each class", Literal["micro", "macro"], "macro"
        ),
        "MulticlassLogAUC.average": Override(
            "without one it gives a number for each class", Literal["macro"], "macro"
        ),
        "MultilabelLogAUC.average": Override(
            "without one it gives a number for each label", Literal["macro"], "macro"
        ),
        "CosineSimilarity.reduction": Override(
            "torch sums; a mean does not grow with rows", Literal["mean", "sum"], "mean"
        ),
        "ExplainedVariance.multioutput": Override(
            "raw_values gives a number for each target",
            Literal["uniform_average", "variance_weighted"],
            "uniform_average",
        ),
        "R2Score.multioutput": Override(
            "raw_values gives a number for each target",
            Literal["uniform_average", "variance_weighted"],
            "uniform_average",
        ),
    },
    extras={"*.name": Extra("what it is called: val_<name> and test_<name>", str | None, None)},
    least={"*.top_k": 1, "*.n_bins": 1, "*.thresholds": 2},
    inferred={"*.num_classes": Size(0), "*.num_labels": Size(0), "*.num_outputs": Size(0)},
)
