"""Metrics against scikit-learn, scipy, or the formula, whatever the batches."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sk
from torch import Tensor

from core.data.targets import Targets
from core.nets import registry
from core.nets.components.metrics import ALIASES, FAMILY
from core.nets.confusion import Confusion, class_scores
from core.nets.measures import MEASURES, TorchMetric, measuring
from core.nets.metrics import check_metrics, types_of
from core.nets.readout import Readout
from modelyard.specs import JobSpec, ProblemError
from modelyard.specs.jobspec import Component, Task
from tests import manifests

ROWS, NUM_CLASSES, NUM_LABELS = 211, 5, 4
CPU = torch.device("cpu")
Array = NDArray[Any]
RANDOM = np.random.default_rng(5)

#: Scores of classes that lean towards the truth, so that no metric is at its chance level.
TRUE_CLASS = RANDOM.integers(0, NUM_CLASSES, ROWS)
_logits = RANDOM.normal(size=(ROWS, NUM_CLASSES)) + 1.5 * np.eye(NUM_CLASSES)[TRUE_CLASS]
SCORES = (np.exp(_logits) / np.exp(_logits).sum(axis=1, keepdims=True)).astype(np.float32)
TAKEN = SCORES.argmax(axis=1)

TRUE_LABELS = (RANDOM.random((ROWS, NUM_LABELS)) > 0.6).astype(np.int64)
LABEL_SCORES = (1 / (1 + np.exp(-(RANDOM.normal(size=(ROWS, NUM_LABELS)) + 2 * TRUE_LABELS - 1)))).astype(
    np.float32
)
TAKEN_LABELS = (LABEL_SCORES >= 0.5).astype(np.int64)

TRUE_SECOND = RANDOM.integers(0, 2, ROWS)
SECOND = (1 / (1 + np.exp(-(RANDOM.normal(size=ROWS) + 2 * TRUE_SECOND - 1)))).astype(np.float32)
TAKEN_SECOND = (SECOND >= 0.5).astype(np.int64)

TRUTH = RANDOM.gamma(3.0, 2.0, size=(ROWS, 3))
VALUES = TRUTH * RANDOM.uniform(0.7, 1.4, size=(ROWS, 3)) + 0.1


def each_class(score: Callable[[Array, Array], float]) -> Callable[[], float]:
    """The mean over the classes, one against the rest."""
    return lambda: float(np.mean([score(k == TRUE_CLASS, k == TAKEN) for k in range(NUM_CLASSES)]))


def each_label(score: Callable[[Array, Array], float]) -> Callable[[], float]:
    return lambda: float(np.mean([score(TRUE_LABELS[:, k], TAKEN_LABELS[:, k]) for k in range(NUM_LABELS)]))


def specificity(truth: Array, taken: Array) -> float:
    return float(sk.recall_score(1 - truth.astype(int), 1 - taken.astype(int)))


def negative_predictive_value(truth: Array, taken: Array) -> float:
    return float(sk.precision_score(1 - truth.astype(int), 1 - taken.astype(int)))


def calibration(confidence: Array, is_right: Array) -> float:
    """sum over 15 equal bins of share * |accuracy - confidence| (Guo et al. 2017, eq. 3)."""
    places = np.minimum((confidence * 15).astype(int), 14)
    return float(
        sum(
            (places == k).mean() * abs(is_right[places == k].mean() - confidence[places == k].mean())
            for k in np.unique(places)
        )
    )


def equal_error_rate(truth: Array, scores: Array) -> float:
    """(FPR + FNR) / 2 where they are nearest to each other."""
    fpr, tpr, _ = sk.roc_curve(truth, scores, drop_intermediate=False)
    nearest = np.abs(fpr - (1 - tpr)).argmin()
    return float((fpr[nearest] + 1 - tpr[nearest]) / 2)


def macro_equal_error_rate() -> float:
    """Of the mean of the classes' curves, as scikit-learn's example draws a macro-average ROC."""
    curves = [
        sk.roc_curve(k == TRUE_CLASS, SCORES[:, k], drop_intermediate=False) for k in range(NUM_CLASSES)
    ]
    fpr = np.sort(np.concatenate([curve[0] for curve in curves]))
    tpr = np.mean([np.interp(fpr, curve[0], curve[1]) for curve in curves], axis=0)
    nearest = np.abs(fpr - (1 - tpr)).argmin()
    return float((fpr[nearest] + 1 - tpr[nearest]) / 2)


def log_auc(truth: Array, scores: Array) -> float:
    """The area under TPR over log10 FPR between 0.001 and 0.1, as a share (Mysinger and Shoichet 2010)."""
    fpr, tpr, _ = sk.roc_curve(truth, scores, drop_intermediate=False)
    inner = (fpr > 0.001) & (fpr < 0.1)
    at = np.concatenate([[0.001], fpr[inner], [0.1]])
    heights = np.concatenate([[np.interp(0.001, fpr, tpr)], tpr[inner], [np.interp(0.1, fpr, tpr)]])
    return float(np.trapezoid(heights, np.log10(at)) / 2)


def hinge(margins: Array) -> float:
    return float(np.maximum(0, 1 - margins).mean())


def crammer_singer() -> float:
    truth = SCORES[np.arange(ROWS), TRUE_CLASS]
    others = np.where(np.eye(NUM_CLASSES, dtype=bool)[TRUE_CLASS], -np.inf, SCORES)
    return hinge(truth - others.max(axis=1))


def coverage() -> float:
    return float(sk.coverage_error(TRUE_LABELS, LABEL_SCORES))


def concordance(truth: Array, values: Array) -> float:
    """Lin 1989, eq. 1, with the sample's covariance."""
    covariance = np.cov(truth, values)
    return float(
        2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + (truth.mean() - values.mean()) ** 2)
    )


def each_value(score: Callable[[Array, Array], float]) -> Callable[[], float]:
    return lambda: float(np.mean([score(TRUTH[:, k], VALUES[:, k]) for k in range(3)]))


def critical_success(threshold: float) -> float:
    said, was = threshold <= VALUES, threshold <= TRUTH
    return float((said & was).sum() / (said | was).sum())


PER_CLASS: dict[str, Callable[[Array, Array], float]] = {
    "Precision": sk.precision_score,
    "Recall": sk.recall_score,
    "Specificity": specificity,
    "NegativePredictiveValue": negative_predictive_value,
    "F1Score": sk.f1_score,
    "FBetaScore": lambda y, p: sk.fbeta_score(y, p, beta=2.0),
    "JaccardIndex": sk.jaccard_score,
}
KEYWORDS: dict[str, dict[str, Any]] = {
    "FBetaScore": {"beta": 2.0},
    "CriticalSuccessIndex": {"threshold": 6.0},
    "MinkowskiDistance": {"p": 3.0},
    "TweedieDevianceScore": {"power": 1.5},
    "NormalizedRootMeanSquaredError": {"normalization": "std"},
}

EXPECTED: dict[str, Callable[[], float]] = {
    **{f"Multiclass{name}": each_class(score) for name, score in PER_CLASS.items()},
    **{f"Multilabel{name}": each_label(score) for name, score in PER_CLASS.items()},
    **{
        f"Binary{name}": lambda score=score: score(TRUE_SECOND, TAKEN_SECOND)  # type: ignore[misc] # bound early
        for name, score in PER_CLASS.items()
    },
    "MulticlassAccuracy": lambda: sk.accuracy_score(TRUE_CLASS, TAKEN),
    "MulticlassAUROC": lambda: sk.roc_auc_score(TRUE_CLASS, SCORES, multi_class="ovr", average="macro"),
    "MulticlassAveragePrecision": lambda: sk.average_precision_score(np.eye(5)[TRUE_CLASS], SCORES),
    "MulticlassCalibrationError": lambda: calibration(SCORES.max(axis=1), TAKEN == TRUE_CLASS),
    "MulticlassCohenKappa": lambda: sk.cohen_kappa_score(TRUE_CLASS, TAKEN),
    "MulticlassEER": macro_equal_error_rate,
    "MulticlassHammingDistance": lambda: 1 - sk.balanced_accuracy_score(TRUE_CLASS, TAKEN),
    "MulticlassHingeLoss": crammer_singer,
    "MulticlassLogAUC": lambda: float(
        np.mean([log_auc(k == TRUE_CLASS, SCORES[:, k]) for k in range(NUM_CLASSES)])
    ),
    "MulticlassMatthewsCorrCoef": lambda: sk.matthews_corrcoef(TRUE_CLASS, TAKEN),
    "MultilabelAccuracy": each_label(sk.accuracy_score),
    "MultilabelAUROC": lambda: sk.roc_auc_score(TRUE_LABELS, LABEL_SCORES),
    "MultilabelAveragePrecision": lambda: sk.average_precision_score(TRUE_LABELS, LABEL_SCORES),
    "MultilabelCoverageError": coverage,
    "MultilabelExactMatch": lambda: sk.accuracy_score(TRUE_LABELS, TAKEN_LABELS),
    "MultilabelHammingDistance": lambda: sk.hamming_loss(TRUE_LABELS, TAKEN_LABELS),
    "MultilabelLogAUC": lambda: float(
        np.mean([log_auc(TRUE_LABELS[:, k], LABEL_SCORES[:, k]) for k in range(NUM_LABELS)])
    ),
    "MultilabelMatthewsCorrCoef": lambda: sk.matthews_corrcoef(TRUE_LABELS.ravel(), TAKEN_LABELS.ravel()),
    "MultilabelRankingAveragePrecision": lambda: sk.label_ranking_average_precision_score(
        TRUE_LABELS, LABEL_SCORES
    ),
    "MultilabelRankingLoss": lambda: sk.label_ranking_loss(TRUE_LABELS, LABEL_SCORES),
    "BinaryAccuracy": lambda: sk.accuracy_score(TRUE_SECOND, TAKEN_SECOND),
    "BinaryAUROC": lambda: sk.roc_auc_score(TRUE_SECOND, SECOND),
    "BinaryAveragePrecision": lambda: sk.average_precision_score(TRUE_SECOND, SECOND),
    "BinaryCalibrationError": lambda: calibration(SECOND, TRUE_SECOND),
    "BinaryCohenKappa": lambda: sk.cohen_kappa_score(TRUE_SECOND, TAKEN_SECOND),
    "BinaryEER": lambda: equal_error_rate(TRUE_SECOND, SECOND),
    "BinaryHammingDistance": lambda: sk.hamming_loss(TRUE_SECOND, TAKEN_SECOND),
    "BinaryHingeLoss": lambda: hinge(np.where(TRUE_SECOND == 1, SECOND, -SECOND)),
    "BinaryLogAUC": lambda: log_auc(TRUE_SECOND, SECOND),
    "BinaryMatthewsCorrCoef": lambda: sk.matthews_corrcoef(TRUE_SECOND, TAKEN_SECOND),
    "ConcordanceCorrCoef": each_value(concordance),
    "CosineSimilarity": lambda: float(
        np.mean((TRUTH * VALUES).sum(axis=1) / np.linalg.norm(TRUTH, axis=1) / np.linalg.norm(VALUES, axis=1))
    ),
    "CriticalSuccessIndex": lambda: critical_success(6.0),
    "ExplainedVariance": lambda: sk.explained_variance_score(TRUTH, VALUES),
    "LogCoshError": lambda: float(np.log(np.cosh(VALUES - TRUTH)).mean()),
    "MeanAbsoluteError": lambda: sk.mean_absolute_error(TRUTH, VALUES),
    "MeanAbsolutePercentageError": lambda: sk.mean_absolute_percentage_error(TRUTH, VALUES),
    "MeanSquaredError": lambda: sk.mean_squared_error(TRUTH, VALUES),
    "MeanSquaredLogError": lambda: sk.mean_squared_log_error(TRUTH, VALUES),
    "MinkowskiDistance": lambda: float((np.abs(TRUTH - VALUES) ** 3).sum() ** (1 / 3)),
    "NormalizedRootMeanSquaredError": each_value(
        lambda y, p: float(np.sqrt(((y - p) ** 2).mean()) / y.std())
    ),
    "PearsonCorrCoef": each_value(lambda y, p: stats.pearsonr(y, p).statistic),
    "R2Score": lambda: sk.r2_score(TRUTH, VALUES),
    "RelativeSquaredError": lambda: float(
        np.mean(((TRUTH - VALUES) ** 2).sum(axis=0) / ((TRUTH - TRUTH.mean(axis=0)) ** 2).sum(axis=0))
    ),
    "SpearmanCorrCoef": each_value(lambda y, p: stats.spearmanr(y, p).statistic),
    "SymmetricMeanAbsolutePercentageError": lambda: float(
        (2 * np.abs(TRUTH - VALUES) / (np.abs(TRUTH) + np.abs(VALUES))).mean()
    ),
    "TweedieDevianceScore": lambda: sk.mean_tweedie_deviance(TRUTH.ravel(), VALUES.ravel(), power=1.5),
    "WeightedMeanAbsolutePercentageError": lambda: float(np.abs(TRUTH - VALUES).sum() / np.abs(TRUTH).sum()),
}


def rows_for(name: str) -> tuple[Task, Tensor, Tensor, int]:
    """(task, answers, truth, values of an answer)"""
    if name.startswith("Multiclass"):
        return "classification", torch.from_numpy(SCORES), torch.from_numpy(TRUE_CLASS), NUM_CLASSES
    if name.startswith("Multilabel"):
        return (
            "multilabel",
            torch.from_numpy(LABEL_SCORES),
            torch.from_numpy(TRUE_LABELS).float(),
            NUM_LABELS,
        )
    if name.startswith("Binary"):
        second = torch.from_numpy(SECOND)
        return "classification", torch.stack([1 - second, second], 1), torch.from_numpy(TRUE_SECOND), 2
    return "regression", torch.from_numpy(VALUES), torch.from_numpy(TRUTH), 3


def targets_for(task: Task, num_values: int) -> tuple[Targets, Any]:
    names = [str(k) for k in range(num_values)]
    if task == "classification":
        return Targets(task, "y", {"x": ["x"]}, names), manifests.arrays([4], classes=names)
    manifest = manifests.arrays([4], target_shape=[num_values])
    return Targets(task, "y", {"x": ["x"]}, names if task == "multilabel" else None), manifest


def checked(
    raw: list[str | Component], task: Task, num_values: int
) -> tuple[list[str | Component], list[ProblemError]]:
    errors: list[ProblemError] = []
    targets, manifest = targets_for(task, num_values)
    spec = JobSpec(name="m", dataset="d", model={"type": "Linear"}, metrics=raw)
    return check_metrics(spec, targets, manifest, errors), errors


def short(name: str) -> str:
    for prefix in ("Multiclass", "Multilabel", "Binary"):
        name = name.removeprefix(prefix)
    return name


def test_every_metric_of_the_family_has_its_expected_value() -> None:
    assert set(EXPECTED) == set(FAMILY.names)


@pytest.mark.parametrize("batch_size", [50, 1000])
@pytest.mark.parametrize("name", FAMILY.names)
def test_a_metric_is_what_others_compute(name: str, batch_size: int) -> None:
    task, answers, truth, num_values = rows_for(name)
    given, errors = checked([{"type": name, "name": "it"} | KEYWORDS.get(short(name), {})], task, num_values)
    assert errors == []
    component = given[-1]
    assert isinstance(component, dict)
    metric = TorchMetric(task, component, CPU)
    for start in range(0, ROWS, batch_size):
        metric.add(answers[start : start + batch_size], truth[start : start + batch_size])
    assert metric.compute() == pytest.approx(EXPECTED[name](), rel=2e-5, abs=2e-6)


@pytest.mark.parametrize("name", FAMILY.names)
def test_a_metric_over_no_rows_is_no_number(name: str) -> None:
    task, _, _, num_values = rows_for(name)
    given, _ = checked([{"type": name, "name": "it"} | KEYWORDS.get(short(name), {})], task, num_values)
    component = given[-1]
    assert isinstance(component, dict)
    assert math.isnan(TorchMetric(task, component, CPU).compute())


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_short_words_name_a_metric_of_the_task(task: Task) -> None:
    types = types_of(task)
    for word in [word for word in ALIASES if word in types]:
        assert registry.get("metric", types[word]) is not None
    assert {"classification": "f1", "multilabel": "hamming", "regression": "rmse"}[task] in types


def test_a_job_measures_what_its_spec_lists_under_the_names_it_gives() -> None:
    raw: list[str | Component] = [
        "accuracy",
        "f1",
        {"type": "F1Score", "average": "weighted"},
        {"type": "Accuracy", "top_k": 3, "name": "top3"},
    ]
    given, errors = checked(raw, "classification", NUM_CLASSES)
    assert errors == []
    measures = measuring("classification", Readout("none"), given)(CPU)
    measures.add(torch.from_numpy(SCORES), torch.from_numpy(TRUE_CLASS))
    values = measures.compute()
    assert list(values) == ["accuracy", "f1", "f1_score", "top3"]
    assert values["f1"] == pytest.approx(sk.f1_score(TRUE_CLASS, TAKEN, average="macro"), rel=1e-5)
    assert values["f1_score"] == pytest.approx(sk.f1_score(TRUE_CLASS, TAKEN, average="weighted"), rel=1e-5)
    assert values["top3"] == pytest.approx(sk.top_k_accuracy_score(TRUE_CLASS, SCORES, k=3), rel=1e-6)


def test_rmse_is_the_root_of_the_mean_squared_error() -> None:
    given, errors = checked(["rmse"], "regression", 1)
    assert errors == []
    measures = measuring("regression", Readout("none"), given)(CPU)
    measures.add(torch.from_numpy(VALUES[:, :1]).bfloat16().double(), torch.from_numpy(TRUTH[:, 0]))
    rounded = torch.from_numpy(VALUES[:, 0]).bfloat16().double().numpy()
    expected = sk.root_mean_squared_error(TRUTH[:, 0], rounded)
    assert measures.compute()["rmse"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("raw", "task", "pointer", "word"),
    [
        ("acuracy", "classification", "/metrics/0", 'Did you mean "accuracy"'),
        ("r2_score", "classification", "/metrics/0", "no metric"),
        ({"type": "ConfusionMatrix"}, "classification", "/metrics/0/type", "left out"),
        ({"type": "F1Score", "averge": "macro"}, "classification", "/metrics/0/averge", "average"),
        ({"type": "F1Score", "average": "none"}, "classification", "/metrics/0/average", "macro"),
        ({"type": "F1Score", "num_classes": 3}, "classification", "/metrics/0/num_classes", "is 5"),
        ({"type": "Accuracy", "top_k": 9, "name": "top9"}, "classification", "/metrics/0", "refuses"),
        ({"type": "AUROC", "thresholds": 2**31 - 1}, "classification", "/metrics/0/thresholds", "10000"),
        ({"type": "F1Score", "name": "Not good"}, "classification", "/metrics/0/name", "a-z"),
        ({"type": "BinaryF1Score"}, "classification", "/metrics/0/type", "no metric"),
        ({"type": "Accuracy", "average": "macro"}, "classification", "/metrics/0", '"accuracy2"'),
        ({"type": "FBetaScore"}, "multilabel", "/metrics/0", "beta"),
    ],
)
def test_a_metric_that_cannot_be_is_refused_with_its_pointer(
    raw: str | Component, task: Task, pointer: str, word: str
) -> None:
    _, errors = checked([raw], task, NUM_CLASSES)
    assert [error.pointer for error in errors] == [pointer]
    assert word in errors[0].message


def test_a_class_table_is_scikit_learns_report() -> None:
    names = [str(k) for k in range(NUM_CLASSES)]
    confusion = Confusion(MEASURES["classification"](CPU), "classification", Readout("none"), names, CPU)
    for start in range(0, ROWS, 32):
        end = start + 32
        confusion.add(torch.from_numpy(SCORES[start:end]), torch.from_numpy(TRUE_CLASS[start:end]))
    found = confusion.evaluation("test")
    assert found is not None
    assert found.confusion_matrix == sk.confusion_matrix(TRUE_CLASS, TAKEN).tolist()
    expected = sk.precision_recall_fscore_support(TRUE_CLASS, TAKEN)
    given = [(row.precision, row.recall, row.f1, row.support) for row in found.per_class]
    np.testing.assert_allclose(np.array(given).T, np.array(expected), rtol=1e-12)
    assert confusion.compute() == {"accuracy": sk.accuracy_score(TRUE_CLASS, TAKEN)}


def test_a_table_of_labels_counts_each_by_itself() -> None:
    names = ["a", "b", "c", "d"]
    confusion = Confusion(MEASURES["multilabel"](CPU), "multilabel", Readout("none"), names, CPU)
    confusion.add(torch.from_numpy(LABEL_SCORES), torch.from_numpy(TRUE_LABELS))
    found = confusion.evaluation("val")
    assert found is not None
    assert found.confusion_matrix is None
    expected = sk.precision_recall_fscore_support(TRUE_LABELS, TAKEN_LABELS)
    given = [(row.precision, row.recall, row.f1, row.support) for row in found.per_class]
    np.testing.assert_allclose(np.array(given).T, np.array(expected), rtol=1e-12)


def test_a_class_that_nothing_is_of_has_scores_of_zero() -> None:
    row = class_scores("rare", right=0, taken=0, support=0)
    assert (row.precision, row.recall, row.f1, row.support) == (0.0, 0.0, 0.0, 0)


def test_past_two_hundred_classes_there_is_a_table_and_no_matrix() -> None:
    for count, has_table, has_matrix in [(200, True, True), (201, True, False), (1001, False, False)]:
        names = [str(k) for k in range(count)]
        confusion = Confusion(MEASURES["classification"](CPU), "classification", Readout("none"), names, CPU)
        confusion.add(torch.eye(count)[:3], torch.arange(3))
        found = confusion.evaluation("test")
        assert (found is not None) == has_table
        assert (found is not None and found.confusion_matrix is not None) == has_matrix
