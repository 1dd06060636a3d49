"""What is known of layers beyond their signatures: which inputs they take, which are alike for advice."""

from core.nets.components import architectures

#: How many dimensions, the batch included, a layer's input has. torch would take a batch that lacks one for
#: one row without a batch, and mix up rows.
INPUT_DIMS: dict[str, tuple[int, ...]] = {
    **{
        f"{kind}{n}d": (n + 2,)
        for kind in (
            "Conv",
            "ConvTranspose",
            "MaxPool",
            "AvgPool",
            "LPPool",
            "AdaptiveAvgPool",
            "AdaptiveMaxPool",
            "FractionalMaxPool",
            "ZeroPad",
            "ConstantPad",
            "ReflectionPad",
            "ReplicationPad",
            "CircularPad",
            "BatchNorm",
            "InstanceNorm",
            "Dropout",
            "Softmax",
            "UpsamplingNearest",
            "UpsamplingBilinear",
        )
        for n in (1, 2, 3)
    },
    "BatchNorm1d": (2, 3),
    "FeatureAlphaDropout": (3, 4, 5),
    "LocalResponseNorm": (3, 4, 5),
    "Upsample": (3, 4, 5),
    "PixelShuffle": (4,),
    "PixelUnshuffle": (4,),
    "ChannelShuffle": (3, 4, 5),
    "Fold": (3,),
    "Unfold": (4,),
    "Embedding": (2, 3),
    "EmbeddingBag": (2,),
    "matmul": (3, 4, 5),
    **dict.fromkeys(
        (
            "RNN",
            "LSTM",
            "GRU",
            "MultiheadAttention",
            "PositionalEncoding",
            "TransformerEncoderLayer",
            "TransformerEncoder",
            "TransformerDecoderLayer",
            "TransformerDecoder",
            "Transformer",
        ),
        (3,),
    ),
}

#: How many inputs a layer takes, at least and at most; all others take one.
ARITY: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("Bilinear", "CosineSimilarity", "PairwiseDistance", "matmul"), (2, 2)),
    **dict.fromkeys(("Transformer", "TransformerDecoder", "TransformerDecoderLayer"), (2, 2)),
    "MultiheadAttention": (1, 3),
    **dict.fromkeys(("add", "mul", "cat"), (2, 100)),
}

#: They act on each number by itself, and also take [batch]; all others need [batch, features] or more.
ELEMENTWISE = frozenset(
    {
        "Identity",
        "Dropout",
        "AlphaDropout",
        "ReLU",
        "ReLU6",
        "LeakyReLU",
        "RReLU",
        "ELU",
        "CELU",
        "SELU",
        "GELU",
        "SiLU",
        "Mish",
        "Hardswish",
        "Hardsigmoid",
        "Hardtanh",
        "Hardshrink",
        "Softshrink",
        "Tanhshrink",
        "Softplus",
        "Softsign",
        "Sigmoid",
        "LogSigmoid",
        "Tanh",
        "Threshold",
        "add",
        "mul",
    }
)

#: torch aligns the shapes of their inputs at the end: of unequal length, the rows of one would meet the
#: features of the other.
BROADCASTS = frozenset({"add", "mul", "matmul", "CosineSimilarity", "PairwiseDistance"})

#: They look up rows of a table by index: their input is int64, that of all others is float.
TAKES_INDICES = frozenset({"Embedding", "EmbeddingBag"})

#: How many layers one counts as: walking through it takes as long as through so many Linears. What holds
#: several of a kind takes it for each.
SIZES: dict[str, int] = {
    "MultiheadAttention": 4,
    "PositionalEncoding": 4,
    "TransformerEncoderLayer": 12,
    "TransformerDecoderLayer": 18,
    **dict.fromkeys(("RNN", "LSTM", "GRU"), 2),
    **dict.fromkeys(architectures.NAMES, 400),
}

BATCH_NORMS = frozenset({"BatchNorm1d", "BatchNorm2d", "BatchNorm3d"})
WEIGHTED = frozenset({"Linear", *(f"{kind}{n}d" for kind in ("Conv", "ConvTranspose") for n in (1, 2, 3))})
#: Between two weighted layers these leave the pair one linear map.
LINEAR_BETWEEN = frozenset(
    {"Identity", "Flatten", "Unflatten", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d"}
)
#: What bends or rescales scores that a loss expects as they are, and why that hurts.
SPOILS_SCORES: dict[str, str] = {
    "Softmax": "the loss applies a softmax itself; two of them train slowly",
    "LogSoftmax": "the loss applies a log softmax itself; a second changes nothing and costs time",
    "Softmin": "the loss applies a softmax itself, and a softmin turns the scores round",
    "Sigmoid": "the loss takes scores of any size; a sigmoid leaves them no room",
    "ReLU": "the loss takes scores of any sign; a ReLU cuts the negative ones off",
}
