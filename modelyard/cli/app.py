"""All commands on one screen, the options they share, and what becomes of an error."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from modelyard.cli import (
    batch_predictions,
    checkpoints,
    components,
    datasets,
    doctor,
    jobs,
    keys,
    models,
    predict,
    processes,
    uploads,
    webhooks,
)
from modelyard.cli.session import Session
from modelyard.errors import ModelyardError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

app = App(
    name="modelyard",
    help="Train PyTorch models from declarative jobs and serve them.",
    help_epilogue="Exit status: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.",
    help_format="plaintext",
    help_on_error=False,
)
app.command(datasets.app)
app.command(jobs.app)
app.command(models.app)
app.command(predict.predict)
app.command(batch_predictions.predict_batch)
app.command(batch_predictions.app)
app.command(checkpoints.app)
app.command(components.components)
app.command(uploads.app)
app.command(keys.app)
app.command(keys.audit)
app.command(webhooks.app)
app.command(doctor.doctor)
app.command(processes.up)
app.command(processes.serve)
app.command(processes.worker)
app.command(processes.migrate)
app.command(processes.backup)
app.command(processes.restore)


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    url: str | None = None,
    key: str | None = None,
) -> int | None:
    """Train PyTorch models from declarative jobs and serve them.

    Args:
        url: where the service is; else MODELYARD_URL, else http://127.0.0.1:8000
        key: the key to show it; else MODELYARD_KEY, else on this machine the admin key in MODELYARD_HOME
    """
    command, bound, shared = app.parse_args(tokens, exit_on_error=False, print_error=False)
    session = Session(url=url, key=key)
    result = command(*bound.args, **bound.kwargs, **dict.fromkeys(shared, session))
    return result if isinstance(result, int) else None


def main(tokens: Sequence[str] | None = None) -> None:
    """The console script. Ends the process with the command's exit status."""
    sys.exit(run(sys.argv[1:] if tokens is None else tokens))


def run(tokens: Sequence[str]) -> int:
    """The exit status. Errors that can be expected become a message on stderr, never a traceback."""
    try:
        status = app.meta(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return status if isinstance(status, int) else OK
    except CycloptsError as error:
        return _complain(f"{error}\nSee `modelyard --help`, or --help after any command.", USAGE)
    except BrokenPipeError:
        # Whoever read the output has left (`modelyard jobs list | head`); nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (ModelyardError, OSError) as error:
        return _complain(str(error), FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED


def _complain(message: str, status: int) -> int:
    print(f"modelyard: {message}", file=sys.stderr)
    return status
