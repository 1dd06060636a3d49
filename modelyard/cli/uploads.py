"""`modelyard uploads`: bytes that jobs and datasets name by an id."""

from pathlib import Path

from cyclopts import App

from modelyard.cli.datasets import told_how_to_resume, upload_bar
from modelyard.cli.session import AsJson, Session, Shared
from modelyard.specs import Upload

app = App(name="uploads", help="Send files that jobs and datasets name by an id, in pieces.")


@app.command
def create(file: Path, *, resume: str | None = None, as_json: AsJson = False, session: Shared) -> None:
    """Upload a file in pieces and print its id.

    Args:
        file: weights, an archive, a table, or a folder, which is zipped first
        resume: the id of an upload of the same file that was interrupted
    """
    with session.client() as client, upload_bar() as bar, told_how_to_resume(session) as on_begin:
        task = bar.add_task(f"uploading {file.name}", total=None)

        def progress(sent: int, total: int | None) -> None:
            bar.update(task, completed=sent, total=total)

        if resume is None:
            upload = client.uploads.create(file, on_progress=progress, on_begin=on_begin)
        else:
            upload = client.uploads.resume(resume, file, on_progress=progress)
    _show(session, upload, as_json)


@app.command
def show(upload: str, *, as_json: AsJson = False, session: Shared) -> None:
    """How much of an upload has come.

    Args:
        upload: its id
    """
    with session.client() as client:
        _show(session, client.uploads.get(upload), as_json)


@app.command
def delete(upload: str, *, session: Shared) -> None:
    """Give the bytes back.

    Args:
        upload: its id
    """
    with session.client() as client:
        client.uploads.delete(upload)
    session.say(f"deleted {upload}")


def _show(session: Session, upload: Upload, as_json: bool) -> None:
    if as_json:
        session.show_json(upload)
        return
    session.show_fields(
        (
            ("upload", upload.id),
            ("bytes", f"{upload.offset} of {upload.length}"),
            ("expires", upload.expires_at),
        )
    )
