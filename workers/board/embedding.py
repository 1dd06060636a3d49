"""Rows as the net's last hidden layer sees them, in the files of TensorBoard's embedding projector.

Its own `add_embedding` writes the same files number by number, in about a second for a thousand rows.
"""

from pathlib import Path

from google.protobuf import text_format
from msgspec import Struct
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from workers.board import pictures

# B rows, F features

#: Those features that differ most between rows.
MAX_FEATURES = 128
NAME = "validation"


class Embedding(Struct, frozen=True):
    """`images_BCHW` in 0..1, where rows are images; one label a row."""

    features_BF: Tensor
    labels: list[str]
    images_BCHW: Tensor | None


def write_embedding(embedding: Embedding, step: int, writer: SummaryWriter) -> None:
    """In the place of one that an earlier attempt wrote."""
    folder = Path(writer.get_logdir())  # type: ignore[no-untyped-call]
    (folder / NAME).mkdir(parents=True, exist_ok=True)
    config = ProjectorConfig()
    info = config.embeddings.add()
    info.tensor_name = f"{NAME}:{step}"
    info.tensor_path = f"{NAME}/tensors.tsv"
    (folder / info.tensor_path).write_text(_tsv(most_telling(embedding.features_BF)))
    info.metadata_path = f"{NAME}/metadata.tsv"
    (folder / info.metadata_path).write_text("".join(f"{_one_line(name)}\n" for name in embedding.labels))
    if embedding.images_BCHW is not None:
        info.sprite.image_path = f"{NAME}/sprite.png"
        sheet = Image.fromarray(pictures.sheet(embedding.images_BCHW).numpy())
        sheet.save(folder / info.sprite.image_path, compress_level=1)  # time counts here, not bytes
        height, width = embedding.images_BCHW.shape[2:]
        info.sprite.single_image_dim.extend([width, height])
    (folder / "projector_config.pbtxt").write_text(text_format.MessageToString(config))


def most_telling(features_BF: Tensor) -> Tensor:
    """At most MAX_FEATURES columns, in their order: those of the largest variance."""
    if features_BF.shape[1] <= MAX_FEATURES:
        return features_BF
    columns = features_BF.var(dim=0).topk(MAX_FEATURES).indices.sort().values
    return features_BF[:, columns]


def _tsv(features_BF: Tensor) -> str:
    lines = ("\t".join(f"{value:.5g}" for value in row) for row in features_BF.tolist())
    return "".join(f"{line}\n" for line in lines)


def _one_line(label: str) -> str:
    return " ".join(label.split()) or "(empty)"
