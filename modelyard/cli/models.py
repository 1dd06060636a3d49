"""`modelyard models`: what was trained, and which version a name stands for."""

from itertools import islice

from cyclopts import App

from modelyard.cli.session import AsJson, Count, Session, Shared, numbers
from modelyard.specs import Model, ModelVersion

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
def alias(model: str, alias: str, version: int, *, session: Shared) -> None:
    """Let an alias such as production name a version.

    Args:
        model: the model's name
        alias: the alias
        version: what it names from now on
    """
    with session.client() as client:
        client.models.set_alias(model, alias, version)
    session.say(f"{model}@{alias} is version {version}")


def _show_model(session: Session, model: Model, versions: list[ModelVersion]) -> None:
    session.show_fields((("model", model.name), ("aliases", model.aliases), ("created", model.created_at)))
    session.show_table(
        ("version", "state", "task", "aliases", "metrics", "created"),
        ((v.version, v.state, v.task, v.aliases, numbers(v.metrics), v.created_at) for v in versions),
    )


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
