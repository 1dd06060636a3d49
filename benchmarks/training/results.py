"""What one run of one side gave, as its last line of output says it."""

import sys

import msgspec


class Result(msgspec.Struct, frozen=True):
    """`rows` were trained on, over all epochs, in `epochs_s` seconds: from the first batch to the last
    epoch's weights on disk, the validation and the saving of each epoch included. `whole_s` is from the start
    to the accuracy on the test split: of a script without its imports, of a job from POST to `succeeded`."""

    rows: int
    epochs_s: float
    whole_s: float
    test_accuracy: float
    peak_bytes: int = 0

    @property
    def samples_per_s(self) -> float:
        return self.rows / self.epochs_s


def say(result: Result) -> None:
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


def read(output: str) -> Result:
    """Raises ValueError where the last line is none."""
    lines = output.strip().splitlines()
    if not lines:
        raise ValueError("expected a result as the last line, nothing came")
    return msgspec.json.decode(lines[-1], type=Result)
