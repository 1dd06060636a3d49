"""`modelyard checkpoints`: weights to take along."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from modelyard.cli.session import Shared

app = App(name="checkpoints", help="Weights to take along.")


@app.command
def download(
    checkpoint_id: str,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))] = Path("weights.pt"),
    session: Shared,
) -> None:
    """Write the weights of a checkpoint to a file: a state_dict for torch.load(…, weights_only=True).

    Args:
        checkpoint_id: the checkpoint's id, as `modelyard jobs show` names it
        output: the file to write
    """
    with session.client() as client:
        session.say(str(client.checkpoints.download(checkpoint_id, output)))
