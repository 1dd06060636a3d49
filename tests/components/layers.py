"""Every layer in a small net that ends with a Linear."""

from collections.abc import Callable

from torch import nn

from tests.attempts import ROWS as TEXTS
from tests.attempts import TEXT_STEPS, Component, arrays, c, seq, texts
from tests.components.example import ROWS, Example

END = (c("Flatten"), c("Linear", out_features=1))
SERIES, IMAGE, VOLUME = [4, 16], [4, 8, 8], [4, 6, 6, 6]
STEPS, ROW = [6, 8], [12]

Make = Callable[[], nn.Module]


def over(shape: list[int], kind: str, plain: Make | None = None, **keywords: object) -> Example:
    """The layer, then a Linear, over arrays of a shape a row."""
    data = arrays(shape, classes=None, train=ROWS, validation=ROWS)
    return Example({"model": seq(c(kind, **keywords), *END)}, data, plain, prefix="0.")


def of_text(kind: str, plain: Make, **keywords: object) -> Example:
    model = seq(c(kind, **keywords), c("Flatten"), c("Linear", out_features=2))
    spec = {"prepare": TEXT_STEPS, "model": model, "trainer": {"batch_size": TEXTS}}
    return Example(spec, texts, plain, prefix="0.")


def of_two(kind: str, plain: Make | None = None, *, width: int = 8, **keywords: object) -> Example:
    """Two ways from one input into the layer."""
    return graph(
        c("Linear", name="left", inputs=["input"], out_features=width),
        c("Linear", name="right", inputs=["input"], out_features=width),
        c(kind, name="it", inputs=["left", "right"], **keywords),
        plain=plain,
    )


def graph(*nodes: Component, plain: Make | None = None) -> Example:
    end = [c("Flatten", name="flat", inputs=[nodes[-1]["name"]]), c("Linear", name="end", inputs=["flat"])]
    end[1]["out_features"] = 1
    data = arrays(STEPS, classes=None, train=ROWS, validation=ROWS)
    return Example({"model": c("Graph", nodes=[*nodes, *end], output="end")}, data, plain, prefix="it.")


def convolutions() -> dict[str, Example]:
    found = {}
    for n, shape in ((1, SERIES), (2, IMAGE), (3, VOLUME)):
        conv, transposed = getattr(nn, f"Conv{n}d"), getattr(nn, f"ConvTranspose{n}d")
        found[f"Conv{n}d"] = over(
            shape, f"Conv{n}d", lambda conv=conv: conv(4, 6, 3), out_channels=6, kernel_size=3
        )
        found[f"ConvTranspose{n}d"] = over(
            shape,
            f"ConvTranspose{n}d",
            lambda transposed=transposed: transposed(4, 6, 3),
            out_channels=6,
            kernel_size=3,
        )
    return found


def windows() -> dict[str, Example]:
    found = {}
    for n, shape in ((1, SERIES), (2, IMAGE), (3, VOLUME)):
        for kind in ("MaxPool", "AvgPool"):
            found[f"{kind}{n}d"] = over(shape, f"{kind}{n}d", kernel_size=2)
        found[f"LPPool{n}d"] = over(shape, f"LPPool{n}d", norm_type=2.0, kernel_size=2)
        for kind in ("AdaptiveAvgPool", "AdaptiveMaxPool"):
            found[f"{kind}{n}d"] = over(shape, f"{kind}{n}d", output_size=2)
        for kind in ("ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad"):
            found[f"{kind}{n}d"] = over(shape, f"{kind}{n}d", padding=1)
        found[f"ConstantPad{n}d"] = over(shape, f"ConstantPad{n}d", padding=1, value=0.5)
        found[f"Dropout{n}d"] = over(shape, f"Dropout{n}d", p=0.3)
    # Sizes for which windows would be drawn.
    found["FractionalMaxPool2d"] = over(IMAGE, "FractionalMaxPool2d", kernel_size=2, output_size=5)
    found["FractionalMaxPool3d"] = over(VOLUME, "FractionalMaxPool3d", kernel_size=2, output_size=4)
    return found


def norms() -> dict[str, Example]:
    found = {}
    for n, shape in ((1, SERIES), (2, IMAGE), (3, VOLUME)):
        batch, instance = getattr(nn, f"BatchNorm{n}d"), getattr(nn, f"InstanceNorm{n}d")
        found[f"BatchNorm{n}d"] = over(shape, f"BatchNorm{n}d", lambda batch=batch: batch(4))
        found[f"InstanceNorm{n}d"] = over(
            shape, f"InstanceNorm{n}d", lambda instance=instance: instance(4, affine=True), affine=True
        )
    return found


_ACTIVATIONS = (
    *("ReLU", "ReLU6", "LeakyReLU", "RReLU", "ELU", "CELU", "SELU", "GELU", "GLU", "SiLU", "Mish"),
    *("Hardswish", "Hardsigmoid", "Hardtanh", "Hardshrink", "Softshrink", "Tanhshrink", "Softplus"),
    *("Softsign", "Sigmoid", "LogSigmoid", "Tanh", "Softmax", "Softmin", "LogSoftmax"),
    *("Identity", "Dropout", "AlphaDropout", "FeatureAlphaDropout"),
)


def _encoder_layer() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)


def _decoder_layer() -> nn.Module:
    return nn.TransformerDecoderLayer(8, 2, dim_feedforward=16, batch_first=True)


_ENCODER_LAYER = c("TransformerEncoderLayer", nhead=2, dim_feedforward=16)
_DECODER_LAYER = c("TransformerDecoderLayer", nhead=2, dim_feedforward=16)

EXAMPLES: dict[str, Example] = {
    **convolutions(),
    **windows(),
    **norms(),
    **{kind: over(SERIES, kind) for kind in _ACTIVATIONS},
    "Linear": over(ROW, "Linear", lambda: nn.Linear(12, 5), out_features=5),
    "Bilinear": of_two("Bilinear", lambda: nn.Bilinear(8, 8, 3), out_features=3),
    "Flatten": over(IMAGE, "Flatten", start_dim=2),
    "Unflatten": over(ROW, "Unflatten", dim=1, unflattened_size=[3, 4]),
    "LayerNorm": over(STEPS, "LayerNorm", lambda: nn.LayerNorm(8)),
    "GroupNorm": over(IMAGE, "GroupNorm", lambda: nn.GroupNorm(2, 4), num_groups=2),
    "RMSNorm": over(STEPS, "RMSNorm", lambda: nn.RMSNorm(8)),
    "LocalResponseNorm": over(IMAGE, "LocalResponseNorm", size=2),
    "PReLU": over(SERIES, "PReLU", lambda: nn.PReLU(4), num_parameters=4),
    "Threshold": over(SERIES, "Threshold", threshold=0.1, value=-1.0),
    "Softmax2d": over(IMAGE, "Softmax2d"),
    "Embedding": of_text("Embedding", lambda: nn.Embedding(50, 5), embedding_dim=5),
    "EmbeddingBag": of_text("EmbeddingBag", lambda: nn.EmbeddingBag(50, 5), embedding_dim=5),
    "TransformerEncoderLayer": over(
        STEPS, "TransformerEncoderLayer", _encoder_layer, nhead=2, dim_feedforward=16
    ),
    "TransformerEncoder": over(
        STEPS,
        "TransformerEncoder",
        lambda: nn.TransformerEncoder(_encoder_layer(), 2, norm=nn.LayerNorm(8)),
        encoder_layer=_ENCODER_LAYER,
        num_layers=2,
        norm=c("LayerNorm"),
    ),
    "TransformerDecoderLayer": of_two("TransformerDecoderLayer", _decoder_layer, nhead=2, dim_feedforward=16),
    "TransformerDecoder": of_two(
        "TransformerDecoder",
        lambda: nn.TransformerDecoder(_decoder_layer(), 2),
        decoder_layer=_DECODER_LAYER,
        num_layers=2,
    ),
    "Transformer": of_two(
        "Transformer",
        lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
        nhead=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        dim_feedforward=16,
    ),
    "PixelShuffle": over(IMAGE, "PixelShuffle", upscale_factor=2),
    "PixelUnshuffle": over(IMAGE, "PixelUnshuffle", downscale_factor=2),
    "ChannelShuffle": over(IMAGE, "ChannelShuffle", groups=2),
    "Upsample": over(IMAGE, "Upsample", scale_factor=2.0, mode="bilinear"),
    "UpsamplingNearest2d": over(IMAGE, "UpsamplingNearest2d", scale_factor=2.0),
    "UpsamplingBilinear2d": over(IMAGE, "UpsamplingBilinear2d", size=12),
    "Fold": over([12, 9], "Fold", output_size=4, kernel_size=2),
    "Unfold": over(IMAGE, "Unfold", kernel_size=3),
    "CosineSimilarity": of_two("CosineSimilarity"),
    "PairwiseDistance": of_two("PairwiseDistance"),
    "Sequential": over(
        ROW,
        "Sequential",
        lambda: nn.Sequential(nn.Linear(12, 5), nn.ReLU()),
        layers=[c("Linear", out_features=5), c("ReLU")],
    ),
    "Residual": over(
        ROW,
        "Residual",
        lambda: nn.ModuleDict(
            {"layers": nn.Sequential(nn.Linear(12, 5)), "shortcut": nn.Sequential(nn.Linear(12, 5))}
        ),
        layers=[c("Linear", out_features=5)],
        shortcut=[c("Linear", out_features=5)],
    ),
    "Parallel": over(
        ROW,
        "Parallel",
        lambda: nn.ModuleDict({"branches": nn.ModuleList([nn.Linear(12, 5), nn.Linear(12, 3)])}),
        branches=[c("Linear", out_features=5), c("Linear", out_features=3)],
    ),
    "Graph": over(
        ROW,
        "Graph",
        lambda: nn.ModuleDict({"tower": nn.Linear(12, 12)}),
        nodes=[
            c("Linear", name="first", inputs=["input"], out_features=12, share="tower"),
            c("Linear", name="second", inputs=["first"], out_features=12, share="tower"),
        ],
        output="second",
    ),
    "RNN": over(STEPS, "RNN", lambda: nn.RNN(8, 5, batch_first=True), hidden_size=5),
    "LSTM": over(STEPS, "LSTM", lambda: nn.LSTM(8, 5, 2, batch_first=True), hidden_size=5, num_layers=2),
    "GRU": over(
        STEPS,
        "GRU",
        lambda: nn.GRU(8, 5, batch_first=True, bidirectional=True),
        hidden_size=5,
        bidirectional=True,
    ),
    "MultiheadAttention": over(
        STEPS, "MultiheadAttention", lambda: nn.MultiheadAttention(8, 2, batch_first=True), num_heads=2
    ),
    "PositionalEncoding": over(STEPS, "PositionalEncoding"),
    "add": of_two("add"),
    "mul": of_two("mul"),
    "cat": of_two("cat"),
    "matmul": of_two("matmul", width=6),
    "mean": over(STEPS, "mean", dim=2),
    "chunk": graph(
        c("Linear", name="wide", inputs=["input"], out_features=8),
        c("chunk", name="it", inputs=["wide"], chunks=2, dim=2),
        c("add", name="sum", inputs=["it[0]", "it[1]"]),
    ),
}
