"""The part of a script that reads the dataset: rows, inputs and targets, as tensors in memory."""

from core.data.images import is_channels_last
from core.data.manifest import Kind, Manifest
from core.data.targets import Targets, is_labelled
from core.eject.code import Node
from core.eject.data import Reading

OPENING = '''
def read_table(path):
    """The dataset, once its bytes are those that the job read."""
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != DATA["sha256"]:
        raise SystemExit(f"{path} is not {DATA['dataset']}: its sha256 is {sha256}")
    return pa.ipc.open_file(pa.memory_map(path)).read_all()


def rows_of(rule):
    """Row numbers: a list, or all of a stretch."""
    if isinstance(rule, dict):
        return torch.arange(rule["from"], rule["to"])
    return torch.tensor(rule)
'''

IMAGES = '''
def read_image(data{argument}):
    """An encoded image as uint8 [C, H, W], upright."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    return {prefix}
'''

ROWS = """
validation, test = rows_of(DATA["rows"]["validation"]), rows_of(DATA["rows"]["test"])
train = rows_of(DATA["rows"]["train"])
train = train[~torch.isin(train, validation)]
"""

COLUMNS = '''
def read_column(table, column):
    """float64 [N, F], with what was learned on the training rows."""
    values = table[column["name"]]
    if column["kind"] == "string":
        values = np.array(values.to_pylist(), dtype=object)
    else:
        values = values.cast("float64", safe=False).to_numpy()[:, None]
    for step in column["steps"]:
        {replay}
    return values
'''

STEPS = {
    "Imputed": 'values = np.where(np.isnan(values), step["values"], values)',
    "Standardized": 'values = (values - np.array(step["means"])) / np.array(step["stds"])',
    "MinMaxed": 'values = values * np.array(step["scales"]) + np.array(step["offsets"])',
    "Clipped": 'values = values.clip(*np.array([step["lows"], step["highs"]], dtype=float))',
    "Spread": 'values = one_hot(values, step["features"])',
}

ONE_HOT = '''
def one_hot(values, features):
    """A one at the place of each value; an unknown one is all zeros, or the last."""
    parts = []
    columns = [values] if values.ndim == 1 else values.T
    for column, feature in zip(columns, features, strict=True):
        other = feature["width"] - 1 if feature["has_other"] else -1
        places = {value: place for place, value in enumerate(feature["categories"])}
        found = np.array([places.get(value, other) for value in column.tolist()])
        parts.append((found[:, None] == np.arange(feature["width"])).astype(float))
    return np.concatenate(parts, axis=1)
'''

NUMBERS = '''
def numbers(column):
    """float64 [N, K] of a column of numbers, or of lists of them."""
    column = column.combine_chunks()
    flat = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    flat = flat.cast("float64", safe=False).to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1)
'''


def definitions(
    manifest: Manifest, targets: Targets, reading: Reading, prefixes: list[list[Node]]
) -> list[str]:
    parts = [OPENING]
    if manifest.kind is Kind.IMAGES:
        parts.append(_image_reader(manifest, prefixes))
    kinds = {type(step).__name__ for column in reading.prepared for step in column.operations}
    if manifest.kind is Kind.TABLE:
        if "Spread" in kinds:
            parts.append(ONE_HOT)
        parts.append(_column_reader(kinds))
    if targets.task != "classification":
        parts.append(NUMBERS)
    return [part.strip("\n") for part in parts]


def inputs(manifest: Manifest, targets: Targets, prefixes: list[list[Node]]) -> list[str]:
    """`x`, and `x_eval` where other transforms come before evaluation."""
    names = ["x", "x_eval"][: len(prefixes)]
    match manifest.kind:
        case Kind.IMAGES:
            calls = ["(image)"] if len(prefixes) == 1 else ["(image, PREFIX)", "(image, EVAL_PREFIX)"]
            images = 'table["image"].to_pylist()'
            return [
                f"{x} = torch.stack([read_image{arguments} for image in {images}])"
                for x, arguments in zip(names, calls, strict=True)
            ]
        case Kind.TABLE:
            parts = 'np.concatenate([read_column(table, c) for c in DATA["columns"]], axis=1)'
            return [f"x = {parts}", "x = torch.from_numpy(x.astype(np.float32))"]
        case Kind.ARRAYS:
            return _array_lines(manifest, targets, prefixes)


def labels(manifest: Manifest, targets: Targets, reading: Reading, *, is_single: bool) -> list[str]:
    if targets.task == "classification":
        lines = _label_lines(manifest, targets)
        if is_single:
            lines.append("y = y.float()")
        if targets.is_one_hot:
            lines.append(f"y = nn.functional.one_hot(y, {len(reading.classes or [])}).float()")
        return lines
    lines = ['y = np.concatenate([numbers(table[name]) for name in DATA["target"]], axis=1)']
    if reading.scaling is not None:
        if reading.scaling.is_log:
            lines.append("y = np.log1p(y)")
        lines.append('scaling = DATA["scaling"]')
        lines.append('y = (y - np.array(scaling["mean"])) / np.array(scaling["std"])')
    return [*lines, "y = torch.from_numpy(y.astype(np.float32))"]


def _image_reader(manifest: Manifest, prefixes: list[list[Node]]) -> str:
    mode = "L" if manifest.image_mode == "L" else "RGB"
    pixels = f'v2.functional.pil_to_tensor(image.convert("{mode}"))'
    if len(prefixes) > 1:
        return IMAGES.format(argument=", transform", prefix=f"transform({pixels})")
    if not prefixes[0]:
        return IMAGES.format(argument="", prefix=pixels)
    return IMAGES.format(argument="", prefix=f"PREFIX({pixels})")


def _column_reader(kinds: set[str]) -> str:
    pad = " " * 8
    if not kinds:
        text = COLUMNS.split("    for step in")[0] + "    return values\n"
        return text
    used = [kind for kind in STEPS if kind in kinds]
    lines = ['match step["type"]:']
    for kind in used:
        lines += [f'    case "{kind}":', f"        {STEPS[kind]}"]
    return COLUMNS.replace("{replay}", f"\n{pad}".join(lines))


def _array_lines(manifest: Manifest, targets: Targets, prefixes: list[list[Node]]) -> list[str]:
    feature = manifest.features[targets.columns[0]]
    flatten = ".flatten()" if feature.shape else ""
    lines = [
        'x = table[DATA["input"]].combine_chunks()',
        f"x = x{flatten}.to_numpy(zero_copy_only=False)",
    ]
    shape = ", ".join(map(str, [-1, *feature.shape]))
    if feature.dtype != "uint8" or len(feature.shape) < 2:
        return [*lines, f"x = torch.from_numpy(x.reshape({shape}).astype(np.float32))"]
    turned = f"x = torch.from_numpy(x.reshape({shape}).copy())"
    if is_channels_last(feature.shape):
        turned += ".permute(0, 3, 1, 2).contiguous()"
    elif len(feature.shape) == 2:
        turned += "[:, None]"
    lines.append(turned)
    if len(prefixes) > 1:
        lines.append("x, x_eval = PREFIX(x), EVAL_PREFIX(x)")
    elif prefixes[0]:
        lines.append("x = PREFIX(x)")
    return lines


def _label_lines(manifest: Manifest, targets: Targets) -> list[str]:
    (name,) = targets.names
    column = 'table[DATA["target"][0]].to_pylist()'
    if is_labelled(name, manifest):
        return [f"y = torch.tensor({column})"]
    spelled = "str(value).lower()" if manifest.features[name].dtype == "bool" else "str(value)"
    return [
        'places = {label: place for place, label in enumerate(DATA["classes"])}',
        f"y = torch.tensor([places[{spelled}] for value in {column}])",
    ]
