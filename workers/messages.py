"""What supervisor and child say to each other over their pipe. msgpack, closed sets on both sides.

No torch here: the supervisor's process loads none.
"""

from typing import Any

import msgspec

from core.storage.durable import StoredFile
from modelyard.specs import JobErrorCode


class Resume(msgspec.Struct, frozen=True):
    """Local files of the checkpoint to go on from."""

    weights: str
    state: str


class Order(msgspec.Struct, frozen=True):
    """All that a child knows: no database, no broker, no key.

    `resolved` is what the first claim fixed; a later attempt uses exactly that. `uploads` are local files of
    the uploads that the spec names, by id; `plugins` is the setting of that name. `work` is how many
    multiply-adds an optimizer step takes by its plan, which has so many `steps`. `start` is a local file of
    the weights that a fork begins with. One that is `careful` looks at every step's loss, since an attempt
    before it saw one that was no number. `board` is the folder for TensorBoard. A batch goes through in as
    many `pieces` at least. `slots` are the numbers of the worker's slots that the job holds; on a GPU
    worker they choose its devices. With `world` processes, one a device, this is `rank`; they meet at the
    file `rendezvous`.
    """

    job: str
    fence: int
    spec: dict[str, Any]
    arrow: str
    manifest: str
    scratch: str
    cache: str
    threads: int
    use_gpu: bool
    resolved: dict[str, Any]
    resume: Resume | None
    uploads: dict[str, str] = {}
    plugins: str = ""
    work: float | None = None
    steps: int = 0
    start: str | None = None
    careful: bool = False
    board: str = ""
    pieces: int = 1
    slots: tuple[int, ...] = (0,)
    rank: int = 0
    world: int = 1
    rendezvous: str = ""


# Up: child to supervisor


class Report(msgspec.Struct, tag_field="kind", tag=True, frozen=True):
    pass


class Started(Report, frozen=True):
    """The first optimizer step is done: the job trains. `at` is seconds since the epoch, UTC;
    `stages_ms` are milliseconds from the child's start to the end of each stage."""

    resolved: dict[str, Any]
    step: int
    steps: int
    at: float
    stages_ms: dict[str, float]


class Stepped(Report, frozen=True):
    """Now and then: where the loop is. `metrics` are the latest of each name."""

    epoch: int
    step: int
    metrics: dict[str, float]
    samples_per_second: float
    eta_seconds: float


class EpochEnded(Report, frozen=True):
    """`epoch` counts completed epochs."""

    epoch: int
    step: int
    metrics: dict[str, float]


class Alive(Report, frozen=True):
    """Now and then while no step is made: something goes on all the same."""


class Noted(Report, frozen=True):
    """Something that the owner should read: an event of this type."""

    type: str
    data: dict[str, Any]


class Saved(Report, frozen=True):
    """A checkpoint stands in scratch, complete, with its hash. The next is made once this one was answered
    with Committed."""

    epoch: int
    step: int
    metrics: dict[str, float]
    weights: StoredFile
    state: StoredFile


class Trained(Report, frozen=True):
    """The training is over, and why; the child waits for Register."""

    reason: str


class Verified(Report, frozen=True):
    """The chosen weights, read back from disk, answered the golden samples as the trained net did
    (`difference` is within `tolerance`), or not: then the version is rejected. `suspects` are the rows that
    it doubts."""

    manifest: StoredFile
    task: str
    signature: dict[str, Any]
    classes: list[str] | None
    transforms: list[dict[str, Any]]
    test_metrics: dict[str, float]
    difference: float
    tolerance: float
    evaluation: dict[str, Any] | None = None
    suspects: StoredFile | None = None


class Stopped(Report, frozen=True):
    """The loop left at a Stop; what it was asked to save is committed."""


class WentAstray(Report, frozen=True):
    """The loss is no number any more: go back to the last checkpoint, once, and look at every step."""

    message: str


class TooLarge(Report, frozen=True):
    """A batch does not fit on the device of one of several ranks: begin again from the last checkpoint, with
    batches in so many `pieces`. `data` are what the event says."""

    pieces: int
    data: dict[str, Any]


class Failed(Report, frozen=True):
    code: JobErrorCode
    message: str
    hint: str


# Down: supervisor to child


class Command(msgspec.Struct, tag_field="kind", tag=True, frozen=True):
    pass


class Stop(Command, frozen=True):
    """Leave the loop after this step; with `save`, with a checkpoint of it."""

    save: bool = False


class Committed(Command, frozen=True):
    """The checkpoint of this step is durable and has its row."""

    step: int


class Register(Command, frozen=True):
    """Load these weights, measure them on the test split, write the version's manifest."""

    weights: str
    state: str


AnyReport = (
    Started
    | Alive
    | Noted
    | Stepped
    | EpochEnded
    | Saved
    | Trained
    | Verified
    | Stopped
    | WentAstray
    | TooLarge
    | Failed
)
AnyCommand = Stop | Committed | Register

encode = msgspec.msgpack.Encoder().encode
decode_report = msgspec.msgpack.Decoder(AnyReport).decode
decode_command = msgspec.msgpack.Decoder(AnyCommand).decode
decode_order = msgspec.msgpack.Decoder(Order).decode
