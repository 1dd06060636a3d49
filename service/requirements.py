"""What a version must be before an alias names it: as good as the one that the alias names, by one metric.

Two numbers are compared as they were registered where they are one measurement. Where they are not, both
versions are measured again, on rows that neither learned from; where that cannot be, nothing is compared.
"""

from dataclasses import dataclass
from typing import NoReturn

from core.db.models import Version
from core.db.statements import models
from core.errors import Conflict, Invalid
from core.evaluation import Incomparable, Measured, Split
from core.faults import show, suggestion
from core.nets.metrics import better
from modelyard.specs import Compared, ProblemError, Requirement
from modelyard.specs.jobspec import Component
from service.likeness import LOSS, Rival, differences, listed_metric, name_of
from service.parts import Parts

#: Differences of floats are rounded: what falls short by no more does not fall short.
ROUNDING = 1e-12


@dataclass(frozen=True)
class _Numbers:
    """`rows` is None where both are as they were registered."""

    candidate: float
    incumbent: float
    rows: int | None = None


async def compare(
    parts: Parts, required: Requirement, candidate: Version, incumbent: Version | None
) -> Compared:
    """The requirement, and the numbers with which it holds. `incumbent` is None where there is nothing to be
    better than: then the metric has to be there. Raises Invalid for a metric that there is not, Conflict
    where the requirement does not hold, or where nothing can be compared."""
    split, metric = _metric(required, candidate, incumbent)
    mode = required.mode or better(metric)
    if mode is None:
        message = f'{required.metric} does not say which way is better; add "mode": "max" or "min"'
        raise _invalid("/require", "missing_mode", message)
    if incumbent is None:
        value = candidate.metrics.get(required.metric)
        if value is None:
            _fail(f"{name_of(candidate)} must have a number for {required.metric}; it has none")
        return Compared(required.metric, mode, required.min_delta, value)
    numbers = await _numbers(parts, required.metric, split, metric, candidate, incumbent)
    gain = numbers.candidate - numbers.incumbent
    if not (gain if mode == "max" else -gain) >= required.min_delta - ROUNDING:
        on = "" if numbers.rows is None else f" (on {numbers.rows} rows that neither learned from)"
        _fail(
            f"{name_of(candidate)} must be better than {name_of(incumbent)} by {required.min_delta:g} in "
            f"{required.metric} ({mode}); {name_of(candidate)} has {numbers.candidate:.6g}, "
            f"{name_of(incumbent)} has {numbers.incumbent:.6g}{on}"
        )
    return Compared(
        required.metric, mode, required.min_delta, numbers.candidate, numbers.incumbent, numbers.rows
    )


def _metric(
    required: Requirement, candidate: Version, incumbent: Version | None
) -> tuple[Split, str | Component]:
    """The split that it is measured on, and the metric as a spec lists it, or `loss`."""
    measured_on, _, name = required.metric.partition("_")
    versions = [version for version in (candidate, incumbent) if version is not None]
    known = sorted(
        {key for version in versions for key in version.metrics if key.startswith(("val_", "test_"))}
    )
    if required.metric not in known:
        names = " or ".join(name_of(version) for version in versions)
        message = (
            f"{show(required.metric)} is no metric of {names}.{suggestion(required.metric, known)} "
            f"Valid are: {', '.join(known) or 'none'}"
        )
        raise _invalid("/require/metric", "unknown_metric", message)
    listed = [listed_metric(version, name) for version in versions]
    metric = next((one for one in listed if one is not None), name)
    return ("val" if measured_on == "val" else "test"), metric


async def _numbers(
    parts: Parts, key: str, split: Split, metric: str | Component, candidate: Version, incumbent: Version
) -> _Numbers:
    one, other = await _rivals(parts, candidate, incumbent)
    unlike = differences(key, one, other)
    ours, theirs = candidate.metrics.get(key), incumbent.metrics.get(key)
    if not unlike and ours is not None and theirs is not None:
        return _Numbers(ours, theirs)
    measured: Measured | Incomparable = Incomparable("a loss is compared as it was registered only")
    if metric != LOSS:
        measured = await parts.comparer.measure(split, metric, one, other)
    if isinstance(measured, Incomparable):
        why = f"their {' and '.join(unlike)} differ" if unlike else f"not both have a number for {key}"
        raise Conflict(
            f"{one.name} and {other.name} cannot be compared by {key}: {why}, and {measured.reason}. "
            "The alias stays. Compare versions of one dataset and split, or by another metric.",
            code="not_comparable",
            errors=[ProblemError("/require", "not_comparable", measured.reason)],
        )
    return _Numbers(measured.candidate, measured.incumbent, measured.rows)


async def _rivals(parts: Parts, candidate: Version, incumbent: Version) -> tuple[Rival, Rival]:
    async with parts.database.read() as session:
        rows = (await session.execute(models.learned_from([candidate.id, incumbent.id]))).all()
    found = {version_id: (dataset, weights) for version_id, dataset, weights in rows}
    if len(found) < len({candidate.id, incumbent.id}):
        raise Conflict(
            f"{name_of(candidate)} or {name_of(incumbent)} was deleted meanwhile.", code="version_deleted"
        )
    return Rival(candidate, *found[candidate.id]), Rival(incumbent, *found[incumbent.id])


def _fail(what: str) -> NoReturn:
    detail = f"{what}. The alias stays."
    raise Conflict(
        detail, code="requirement_failed", errors=[ProblemError("/require", "requirement_failed", what)]
    )


def _invalid(pointer: str, code: str, message: str) -> Invalid:
    return Invalid(f"{message}.", code=code, errors=[ProblemError(pointer, code, message)])
