"""`modelyard checkpoints`: weights to take along."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from modelyard.cli.session import Shared
from modelyard.specs import WeightsFormat

app = App(name="checkpoints", help="Weights to take along.")


@app.command
def download(
    checkpoint_id: str,
    *,
    format: WeightsFormat = WeightsFormat.PT,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    session: Shared,
) -> None:
    """Write the weights of a checkpoint to a file.

    Args:
        checkpoint_id: the checkpoint's id, as `modelyard jobs show` names it
        format: pt is a state_dict for torch.load(…, weights_only=True)
        output: the file to write; weights.pt, or what the format's files are called
    """
    file = output or Path(f"weights.{format.suffix}")
    with session.client() as client:
        session.say(str(client.checkpoints.download(checkpoint_id, file, format)))
