"""`modelyard models`: what was trained, and which version a name stands for."""

from itertools import islice
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from modelyard.cli.session import AsJson, Count, Session, Shared, mib, number, numbers
from modelyard.specs import Compared, LoadedVersion, Model, ModelVersion, Requirement, WeightsFormat

app = App(name="models", help="What was trained, and which version an alias names.")


@app.command(name="list")
def list_(*, limit: Count = 50, as_json: AsJson = False, session: Shared) -> None:
    """Every model.

    Args:
        limit: show so many at most
    """
    with session.client() as client:
        found = list(islice(client.models.list(), limit))
    if as_json:
        session.show_json(found)
        return
    session.show_table(
        ("name", "latest", "aliases", "created"), ((m.name, m.latest, m.aliases, m.created_at) for m in found)
    )


@app.command
def show(model: str, *, version: int | None = None, as_json: AsJson = False, session: Shared) -> None:
    """A model and its versions, or one version in full.

    Args:
        model: the model's name
        version: show this version
    """
    with session.client() as client:
        if version is not None:
            _show_version(session, client.models.version(model, version), as_json)
            return
        found, versions = client.models.get(model), list(client.models.versions(model))
    if as_json:
        session.show_json({"model": found, "versions": versions})
        return
    _show_model(session, found, versions)


@app.command
def download(
    model: str,
    version: int,
    *,
    format: WeightsFormat = WeightsFormat.PT,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    session: Shared,
) -> None:
    """Write the weights of a version to a file.

    Args:
        model: the model's name
        version: which of its versions
        format: pt and safetensors are tensors by name; onnx and torch_export the net's graph as well
        output: the file to write; <model>-<version>.pt, or what the format's files are called
    """
    file = output or Path(f"{model}-{version}.{format.suffix}")
    with session.client() as client:
        session.say(str(client.models.download(model, version, file, format)))


@app.command
def alias(model: str, alias: str, version: int, *, reason: str | None = None, session: Shared) -> None:
    """Let an alias such as production name a version.

    Args:
        model: the model's name
        alias: the alias
        version: what it names from now on
        reason: why, for the history
    """
    with session.client() as client:
        client.models.set_alias(model, alias, version, reason=reason)
    session.say(f"{model}@{alias} is version {version}")


@app.command
def promote(
    model: str,
    alias: str,
    version: int,
    *,
    metric: str,
    min_delta: float = 0.0,
    reason: str | None = None,
    session: Shared,
) -> None:
    """Let an alias name a version if it is as good as the one that the alias names.

    Args:
        model: the model's name
        alias: the alias, such as production
        version: what it names from now on
        metric: what is compared, such as val_accuracy
        min_delta: how much better it must be; below 0, how much worse it may be
        reason: why, for the history
    """
    require = Requirement(metric, min_delta)
    with session.client() as client:
        client.models.set_alias(model, alias, version, require=require, reason=reason)
    session.say(f"{model}@{alias} is version {version}")


@app.command
def rollback(model: str, alias: str, *, reason: str | None = None, session: Shared) -> None:
    """Let an alias name the version that it named before; again, the one before that.

    Args:
        model: the model's name
        alias: the alias
        reason: why, for the history
    """
    with session.client() as client:
        found = client.models.rollback(model, alias, reason=reason)
    session.say(f"{model}@{alias} is version {found.aliases[alias]}")


@app.command
def history(model: str, alias: str, *, limit: Count = 50, as_json: AsJson = False, session: Shared) -> None:
    """Which versions an alias named: who moved it, when, why.

    Args:
        model: the model's name
        alias: the alias
        limit: show so many moves at most
    """
    with session.client() as client:
        moves = list(islice(client.models.alias_history(model, alias), limit))
    if as_json:
        session.show_json(moves)
        return
    session.show_table(
        ("move", "at", "kind", "from", "to", "by", "required", "reason"),
        (
            (m.seq, m.at, m.kind, m.from_version, m.to_version, m.by.name, _compared(m.required), m.reason)
            for m in moves
        ),
    )


@app.command
def unload(model: str, *, as_json: AsJson = False, session: Shared) -> None:
    """Take a model out of the service's memory; the next prediction loads it again.

    Args:
        model: the model's name
    """
    with session.client() as client:
        gone = client.models.unload(model)
    if as_json:
        session.show_json(gone)
        return
    session.show_fields(
        (
            ("unloaded", [f"{gone.model}@{version}" for version in gone.versions]),
            ("weights", mib(gone.bytes)),
            ("memory given back", mib(gone.returned_bytes)),
        )
    )


@app.command
def delete(model: str, version: int, *, session: Shared) -> None:
    """Delete a version; not while an alias names it, or a job goes on from it.

    Args:
        model: the model's name
        version: the version's number
    """
    with session.client() as client:
        client.models.delete_version(model, version)
    session.say(f"deleted {model}@{version}")


def _compared(required: Compared | None) -> str | None:
    if required is None:
        return None
    before = "none before" if required.incumbent is None else f"before {number(required.incumbent)}"
    return f"{required.metric} {number(required.candidate)}, {before}"


def _show_model(session: Session, model: Model, versions: list[ModelVersion]) -> None:
    session.show_fields((("model", model.name), ("aliases", model.aliases), ("created", model.created_at)))
    in_memory = {one.version: _in_memory(one) for one in model.loaded or []}
    session.show_table(
        ("version", "state", "task", "aliases", "metrics", "created", "in memory", "waiting", "in flight"),
        (
            (
                *(v.version, v.state, v.task, v.aliases, numbers(v.metrics), v.created_at),
                *in_memory.get(v.version, (None, None, None)),
            )
            for v in versions
        ),
    )


def _in_memory(loaded: LoadedVersion) -> tuple[str, int, int]:
    held = mib(loaded.bytes) if loaded.state == "loaded" else loaded.state
    return held, loaded.waiting_rows, loaded.in_flight_rows


def _show_version(session: Session, version: ModelVersion, as_json: bool) -> None:
    if as_json:
        session.show_json(version)
        return
    lineage = version.lineage
    session.show_fields(
        (
            ("version", f"{version.model}@{version.version}"),
            ("state", version.state),
            ("task", version.task),
            ("metrics", numbers(version.metrics)),
            ("classes", version.classes),
            ("inputs", [f"{t.name} {t.datatype} {t.shape}" for t in version.signature.inputs]),
            ("aliases", version.aliases),
            ("job", lineage.job),
            ("checkpoint", lineage.checkpoint),
            ("dataset", f"{lineage.dataset}@{lineage.dataset_version} sha256 {lineage.dataset_sha256}"),
            ("seed", lineage.seed),
            ("created", version.created_at),
        )
    )
