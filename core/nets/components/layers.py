"""Layers: torch.nn classes that are functions of plain arguments, containers, and what joins tensors."""

from typing import Annotated, Literal

from msgspec import Meta
from torch import nn

from core.nets.components.family import Extra, Family, Holds, Override, Size
from core.nets.modules import attention, containers, operations, pooling, recurrent

SEQUENTIAL = "Sequential"
RESIDUAL = "Residual"
PARALLEL = "Parallel"
GRAPH = "Graph"


def graph(**_: object) -> nn.Module:
    """Named nodes with several inputs and ways through; nodes with one `share` key are one module."""
    raise TypeError("a Graph is built by core.nets.modules.graph")


_ROWS_FIRST = "the rows of a batch come first"
_ACTIVATION = Override("the signature also takes a function", Literal["relu", "gelu"], "relu")
_RECURRENT = {
    "output": Extra(
        "torch gives every step and the state; a next layer takes one tensor",
        Literal["last", "all", "mean"],
        "last",
        is_passed=True,
    )
}

FAMILY = Family(
    name="layer",
    namespace=nn,
    types=(
        "Linear",
        "Bilinear",
        "Identity",
        "Flatten",
        "Unflatten",
        "Conv1d",
        "Conv2d",
        "Conv3d",
        "ConvTranspose1d",
        "ConvTranspose2d",
        "ConvTranspose3d",
        "MaxPool1d",
        "MaxPool2d",
        "MaxPool3d",
        "AvgPool1d",
        "AvgPool2d",
        "AvgPool3d",
        "LPPool1d",
        "LPPool2d",
        "LPPool3d",
        "FractionalMaxPool2d",
        "FractionalMaxPool3d",
        "AdaptiveAvgPool1d",
        "AdaptiveAvgPool2d",
        "AdaptiveAvgPool3d",
        "AdaptiveMaxPool1d",
        "AdaptiveMaxPool2d",
        "AdaptiveMaxPool3d",
        "ZeroPad1d",
        "ZeroPad2d",
        "ZeroPad3d",
        "ConstantPad1d",
        "ConstantPad2d",
        "ConstantPad3d",
        "ReflectionPad1d",
        "ReflectionPad2d",
        "ReflectionPad3d",
        "ReplicationPad1d",
        "ReplicationPad2d",
        "ReplicationPad3d",
        "CircularPad1d",
        "CircularPad2d",
        "CircularPad3d",
        "BatchNorm1d",
        "BatchNorm2d",
        "BatchNorm3d",
        "InstanceNorm1d",
        "InstanceNorm2d",
        "InstanceNorm3d",
        "LayerNorm",
        "GroupNorm",
        "RMSNorm",
        "LocalResponseNorm",
        "Dropout",
        "Dropout1d",
        "Dropout2d",
        "Dropout3d",
        "AlphaDropout",
        "FeatureAlphaDropout",
        "ReLU",
        "ReLU6",
        "LeakyReLU",
        "PReLU",
        "RReLU",
        "ELU",
        "CELU",
        "SELU",
        "GELU",
        "GLU",
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
        "Softmax",
        "Softmax2d",
        "Softmin",
        "LogSoftmax",
        "Embedding",
        "EmbeddingBag",
        "TransformerEncoderLayer",
        "TransformerEncoder",
        "TransformerDecoderLayer",
        "TransformerDecoder",
        "Transformer",
        "PixelShuffle",
        "PixelUnshuffle",
        "ChannelShuffle",
        "Upsample",
        "UpsamplingNearest2d",
        "UpsamplingBilinear2d",
        "Fold",
        "Unfold",
        "CosineSimilarity",
        "PairwiseDistance",
    ),
    own={
        SEQUENTIAL: containers.sequential,
        RESIDUAL: containers.Residual,
        PARALLEL: containers.Parallel,
        GRAPH: graph,
        "RNN": recurrent.RNN,
        "LSTM": recurrent.LSTM,
        "GRU": recurrent.GRU,
        "FractionalMaxPool2d": pooling.FractionalMaxPool2d,
        "FractionalMaxPool3d": pooling.FractionalMaxPool3d,
        "MultiheadAttention": attention.MultiheadAttention,
        "PositionalEncoding": attention.PositionalEncoding,
        "add": operations.add,
        "mul": operations.mul,
        "cat": operations.cat,
        "matmul": operations.matmul,
        "mean": operations.mean,
        "chunk": operations.chunk,
    },
    signatures={
        "RNN": nn.RNNBase,
        "LSTM": nn.RNNBase,
        "GRU": nn.RNNBase,
        "MultiheadAttention": nn.MultiheadAttention,
    },
    absent={
        "Module": "it is the base of layers, not one",
        "RNNBase": "it is the base of RNN, LSTM and GRU: name one of these",
        "RNNCellBase": "it is the base of the cells",
        "RNNCell": "it is one step; RNN goes through all of a sequence",
        "LSTMCell": "it is one step; LSTM goes through all of a sequence",
        "GRUCell": "it is one step; GRU goes through all of a sequence",
        "Container": "torch has deprecated it for Sequential",
        "ModuleList": "it has no forward; Parallel and Graph hold layers that have one",
        "ModuleDict": "it has no forward; Parallel and Graph hold layers that have one",
        "ParameterList": "it has no forward",
        "ParameterDict": "it has no forward",
        "DataParallel": "the trainer places the net on its devices",
        "SyncBatchNorm": "it joins processes, which the trainer decides; BatchNorm2d is the layer",
        "CrossMapLRN2d": "torch keeps it for old nets; LocalResponseNorm is the layer",
        "MaxUnpool1d": "it takes the indices of a pooling, which layers here do not give",
        "MaxUnpool2d": "it takes the indices of a pooling, which layers here do not give",
        "MaxUnpool3d": "it takes the indices of a pooling, which layers here do not give",
        **{
            f"Lazy{kind}{n}d": f"{kind}{n}d is as lazy here: leave its input size out"
            for kind in ("BatchNorm", "Conv", "ConvTranspose", "InstanceNorm")
            for n in (1, 2, 3)
        },
        "LazyLinear": "Linear is as lazy here: leave in_features out",
    },
    left_out={
        "*.device": "the trainer places the net",
        "*.dtype": "the trainer's precision decides",
        "*.return_indices": "it makes the output a tuple, which no next layer takes",
        "*.sparse": "optimizers here take dense gradients",
        **{f"{name}.mode": "the type says which it is" for name in ("RNN", "LSTM", "GRU")},
        "*._weight": "it is torch's own way in; weights come from `initialize` or a checkpoint",
        "*._freeze": "`freeze` says which parameters stay",
        "*._random_samples": "it is for torch's own tests",
        "*.enable_nested_tensor": "it only speeds up padded batches with a mask, which aren't made here",
        "*.mask_check": "no mask is given",
        "*.custom_encoder": "a Graph joins an encoder and a decoder of any kind",
        "*.custom_decoder": "a Graph joins an encoder and a decoder of any kind",
        **{
            f"{name}.{word}": "it writes into the weights during the forward pass, which no gradient sees"
            for name in ("Embedding", "EmbeddingBag")
            for word in ("max_norm", "norm_type")
        },
        "EmbeddingBag.include_last_offset": "bags here are the rows of a batch",
        "Hardtanh.min_value": "torch has deprecated it for min_val",
        "Hardtanh.max_value": "torch has deprecated it for max_val",
        "RNN.proj_size": "only LSTM projects",
        "GRU.proj_size": "only LSTM projects",
    },
    overrides={
        "*.batch_first": Override(_ROWS_FIRST, bool, True, only=True),
        **{
            f"Conv{n}d.padding": Override(
                "the signature says str; these two words are all it takes",
                Literal["same", "valid"] | int | shape,
            )
            for n, shape in ((1, tuple[int]), (2, tuple[int, int]), (3, tuple[int, int, int]))
        },
        **{
            f"BatchNorm{n}d.track_running_stats": Override(
                "without them an answer would depend on who else is in its batch", bool, True, only=True
            )
            for n in (1, 2, 3)
        },
        "GELU.approximate": Override("the signature says str", Literal["none", "tanh"]),
        "Softmax.dim": Override("torch's None guesses a dimension and warns; 1 holds the classes", int, 1),
        "Softmin.dim": Override("torch's None guesses a dimension and warns; 1 holds the classes", int, 1),
        "LogSoftmax.dim": Override("torch's None guesses a dimension and warns; 1 holds the classes", int, 1),
        "EmbeddingBag.mode": Override("the signature says str", Literal["mean", "sum", "max"]),
        "Upsample.mode": Override(
            "the signature says str", Literal["nearest", "linear", "bilinear", "bicubic", "trilinear"]
        ),
        **{
            f"{name}.normalized_shape": Override("the signature's torch.Size is a list", int | list[int])
            for name in ("LayerNorm", "RMSNorm")
        },
        "Unflatten.unflattened_size": Override("the signature's torch.Size is a list", list[int]),
        "MultiheadAttention.embed_dim": Override("the signature has no annotations", int),
        "MultiheadAttention.num_heads": Override("the signature has no annotations", int),
        "MultiheadAttention.dropout": Override(
            "the signature has no annotations", Annotated[float, Meta(ge=0, le=1)]
        ),
        "MultiheadAttention.kdim": Override("the signature has no annotations", int | None),
        "MultiheadAttention.vdim": Override("the signature has no annotations", int | None),
        **{
            f"{name}.activation": _ACTIVATION
            for name in ("Transformer", "TransformerEncoderLayer", "TransformerDecoderLayer")
        },
        "TransformerEncoder.encoder_layer": Override(
            "a layer is a component", Holds("layer", is_list=False, types=("TransformerEncoderLayer",))
        ),
        "TransformerDecoder.decoder_layer": Override(
            "a layer is a component", Holds("layer", is_list=False, types=("TransformerDecoderLayer",))
        ),
        **{
            f"{name}.norm": Override(
                "a layer is a component",
                Holds("layer", is_list=False, is_optional=True, types=("LayerNorm", "RMSNorm")),
            )
            for name in ("TransformerEncoder", "TransformerDecoder")
        },
    },
    extras={
        f"{SEQUENTIAL}.layers": Extra("torch takes them as *args", Holds("model"), is_passed=True),
        f"{RESIDUAL}.layers": Extra("components, one after another", Holds("model"), is_passed=True),
        f"{RESIDUAL}.shortcut": Extra(
            "components, one after another", Holds("model", is_optional=True), is_passed=True
        ),
        f"{PARALLEL}.branches": Extra("components side by side", Holds("model"), is_passed=True),
        f"{GRAPH}.nodes": Extra("components with a name and inputs", Holds("node")),
        f"{GRAPH}.output": Extra("which node's value is the net's", str | list[str]),
        f"{GRAPH}.input_names": Extra(
            "what its nodes call its inputs; left out they are the net's", list[str], is_optional=True
        ),
        **{f"{name}.{word}": extra for name in ("RNN", "LSTM", "GRU") for word, extra in _RECURRENT.items()},
        "RNN.nonlinearity": Extra(
            "RNN takes it out of **kwargs", Literal["tanh", "relu"], "tanh", is_passed=True
        ),
    },
    least={
        **dict.fromkeys(
            (
                "in_features",
                "in1_features",
                "in2_features",
                "out_features",
                "in_channels",
                "out_channels",
                "num_features",
                "num_channels",
                "num_groups",
                "num_embeddings",
                "embedding_dim",
                "num_parameters",
                "input_size",
                "hidden_size",
                "num_layers",
                "num_encoder_layers",
                "num_decoder_layers",
                "d_model",
                "nhead",
                "embed_dim",
                "num_heads",
                "dim_feedforward",
                "normalized_shape",
                "kernel_size",
                "stride",
                "dilation",
                "groups",
                "output_size",
                "size",
                "divisor_override",
                "upscale_factor",
                "downscale_factor",
                "chunks",
            ),
            1,
        ),
        **dict.fromkeys(("padding", "output_padding", "proj_size"), 0),
    },
    inferred={
        "in_features": Size(-1),
        "in1_features": Size(-1),
        "in2_features": Size(-1, of=1),
        "in_channels": Size(1),
        "num_features": Size(1),
        "num_channels": Size(1),
        "input_size": Size(-1),
        "normalized_shape": Size(-1, is_list=True),
        "d_model": Size(-1),
        "embed_dim": Size(-1),
    },
    from_data=frozenset({"Embedding.num_embeddings", "EmbeddingBag.num_embeddings"}),
)
