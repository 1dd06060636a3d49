"""What the supervisor of a batch prediction and its child say to each other. No torch here."""

import msgspec

from core.storage.durable import StoredFile
from modelyard.specs import JobErrorCode


class FromDataset(msgspec.Struct, frozen=True, tag=True):
    """Local files of a version; of all its splits without a `split`."""

    arrow: str
    manifest: str
    split: str | None


class FromUpload(msgspec.Struct, frozen=True, tag=True):
    """A local file of rows: CSV, JSON lines or Parquet. Where it is read without a GPU, the process may map
    so many more bytes."""

    path: str
    memory_bytes: int


class BatchOrder(msgspec.Struct, frozen=True):
    """All that a child knows. `manifest` and `weights` are local files of the version; `start` rows have
    their part already, `errors` of them without an answer; a part is closed once it has `part_rows`."""

    batch: str
    manifest: str
    weights: str
    rows: FromDataset | FromUpload
    format: str
    scratch: str
    threads: int
    use_gpu: bool
    slots: tuple[int, ...]
    plugins: str
    start: int
    errors: int
    part_rows: int


class Piece(msgspec.Struct, frozen=True):
    """A part as it was written: so many rows from `start` on."""

    start: int
    rows: int
    errors: int
    file: StoredFile


# Up: child to supervisor


class Report(msgspec.Struct, tag_field="kind", tag=True, frozen=True):
    pass


class Opened(Report, frozen=True):
    """The version is loaded and answers as it did; the rows are counted."""

    rows: int


class Progressed(Report, frozen=True):
    """`rows_done` rows have an answer or an error, `errors` of them an error."""

    rows_done: int
    errors: int


class Written(Report, frozen=True):
    """A part stands in scratch, complete, with its hash. The child waits for Committed."""

    piece: Piece


class Answered(Report, frozen=True):
    """Every row is in a part; the child waits for Join."""


class Joined(Report, frozen=True):
    """The two files stand in scratch; so many rows are in each."""

    output: StoredFile
    output_rows: int
    errors: StoredFile
    errors_rows: int


class PartDamaged(Report, frozen=True):
    """The part from `start` on is not what was written: it and those after it are to be made again."""

    start: int
    message: str


class Failed(Report, frozen=True):
    code: JobErrorCode
    message: str
    hint: str


# Down: supervisor to child


class Command(msgspec.Struct, tag_field="kind", tag=True, frozen=True):
    pass


class Committed(Command, frozen=True):
    """The part is durable and has its row."""


class Join(Command, frozen=True):
    """All parts, in their order, as local files."""

    pieces: list[Piece]


AnyReport = Opened | Progressed | Written | Answered | Joined | PartDamaged | Failed
AnyCommand = Committed | Join

encode = msgspec.msgpack.Encoder().encode
decode_report = msgspec.msgpack.Decoder(AnyReport).decode
decode_command = msgspec.msgpack.Decoder(AnyCommand).decode
decode_order = msgspec.msgpack.Decoder(BatchOrder).decode
