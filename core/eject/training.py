"""The part of a script that trains: net, loss, optimizer, schedule and the loop."""

import re
from typing import Any

from msgspec import Struct

from core.eject.code import Bracketed, Node, assign, call, literal, show, text
from core.eject.components import Component, Written
from core.nets import products
from core.nets.matching import full_matches
from core.nets.pretrained import architectures_in
from modelyard.specs import JobSpec

EVALUATION_ROWS = 256

#: Of a job's `resolved.precision`.
AUTOCAST = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}

MATCHES = """
def matches(name, patterns):
    return any(re.fullmatch(pattern, name) for pattern in patterns)
"""

FREEZE = '''
def freeze(epoch):
    """What is frozen in an epoch has no gradient, and its batch norms stay as they are."""
{since}    for name, parameter in net.named_parameters():
        if matches(name, FROZEN):
            parameter.requires_grad = {thawed}
'''

FREEZE_NORMS = """    for module in net.modules():
        own = list(module.parameters(recurse=False))
        is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if is_norm and own and not any(each.requires_grad for each in own):
            module.eval()
"""


#: What both read alike, without repetitions in repetitions.
_PLAIN = re.compile(r"(?:\\[.dw]|[A-Za-z0-9_.*+?|()]|\[[A-Za-z0-9_.-]+\])*")
_REPEATED = re.compile(r"\(\?|\)[*+?]|[*+?]{2}")


class Settings(Struct, frozen=True):
    """What the sections depend on beside the spec. `names` are those of the parameters; `inputs` and
    `eval_inputs` are the expressions of a batch; targets are `is_reshaped` to what the net gives. `rows`
    train. Where a job ended within an epoch `steps` says after how many."""

    resolved: dict[str, Any]
    names: list[str]
    inputs: str
    eval_inputs: str
    is_reshaped: bool
    counts_right: bool
    has_batch_norm: bool
    rows: int
    has_test: bool
    steps: int | None


def net_lines(spec: JobSpec, settings: Settings, written: Written) -> list[str]:
    lines = [f"torch.set_num_threads({settings.resolved['threads']})"]
    if settings.resolved["deterministic"]:
        lines.append("torch.use_deterministic_algorithms(True)")
    if settings.resolved.get("products") == "onednn":
        lines.append(f"{written.ours.name(products.multiply_by_onednn)}()")
    lines += ["torch.manual_seed(SEED)", assign("net", written.model(spec.model))]
    for path, component in architectures_in(spec.model):
        if component["weights"] is not None:
            lines += _pretrained(path, component)
    if spec.initialize:
        lines += _initialize(spec.initialize, settings)
    if settings.resolved["memory_format"] == "channels_last":
        lines.append("net = net.to(memory_format=torch.channels_last)")
    return lines


def objective_lines(spec: JobSpec, settings: Settings, written: Written) -> list[str]:
    assert spec.loss is not None, "a queued spec has every default filled in"
    lines = [assign("criterion", _loss(spec.loss, written))]
    optimizer = {name: value for name, value in spec.optimizer.items() if name != "param_groups"}
    if settings.resolved["fused"] and not any(
        optimizer.get(name) for name in ("fused", "foreach", "capturable", "differentiable")
    ):
        optimizer["fused"] = True
    lines += _optimizer(optimizer, spec, settings, written)
    if spec.scheduler is not None:
        lines.append(assign("scheduler", _scheduler(spec.scheduler, written)))
    if settings.resolved["precision"] == "fp16":
        lines.append('scaler = torch.amp.GradScaler("cpu")')
    if spec.trainer.ema is not None:
        decay = literal(spec.trainer.ema.decay)
        ema = call("swa_utils.get_ema_multi_avg_fn", decay)
        lines.append(assign("average", call("swa_utils.AveragedModel", "net", multi_avg_fn=ema)))
    if settings.resolved["compile"]:
        lines.append("net.compile()")
    return lines


def definitions(spec: JobSpec, settings: Settings) -> list[str]:
    parts = []
    if spec.freeze or spec.optimizer.get("param_groups"):
        parts.append(MATCHES)
    if spec.freeze:
        since = "    thawed = [pattern for since, pattern in THAWED if epoch >= since]\n"
        freeze = FREEZE.format(
            since=since if spec.unfreeze else "",
            thawed="matches(name, thawed)" if spec.unfreeze else "False",
        )
        parts.append(freeze + (FREEZE_NORMS if settings.has_batch_norm else ""))
    return [part.strip("\n") for part in parts] + [_evaluate(settings)]


def loop_lines(spec: JobSpec, settings: Settings, mixers: list[Node]) -> list[str]:
    trainer, served = spec.trainer, "net" if spec.trainer.ema is None else "average.module"
    lines = ["step = 0"] if settings.steps is not None else []
    lines += [assign("mix", mixer) for mixer in mixers]
    lines += ["for epoch in range(EPOCHS):", "    net.train()"]
    if spec.freeze:
        lines.append("    freeze(epoch)")
    lines += _batches(spec, settings)
    pad = " " * 4
    step = [*_step(spec, settings, mixers)]
    if trainer.accumulate == 1:
        lines += [f"{pad}for rows in batches:", *(f"{pad * 2}{line}" for line in step)]
    else:
        lines += [
            f"{pad}for start in range(0, len(batches), ACCUMULATE):",
            *(f"{pad * 2}{line}" for line in step),
        ]
    named = "loss, accuracy" if settings.counts_right else "loss"
    told = "loss {loss:.4f}" + (", accuracy {accuracy:.4f}" if settings.counts_right else "")
    lines.append(f"    {named} = evaluate({served}, validation)")
    lines.append(f'    print(f"epoch {{epoch + 1}}: validation {told}")')
    if spec.scheduler is not None and spec.scheduler["interval"] == "epoch":
        is_waiting = spec.scheduler["type"] == "ReduceLROnPlateau"
        lines.append("    scheduler.step(loss)" if is_waiting else "    scheduler.step()")
    lines.append("")
    if settings.has_test:
        lines += [f"{named} = evaluate({served}, test)", f'print(f"test {told}")']
    lines += [
        f'torch.save({served}.state_dict(), "weights.pt")',
        f"print(fingerprint({served}.state_dict()))",
    ]
    return lines


def pattern(match: str, names: list[str]) -> str:
    """RE2's patterns are Python's, but for some; of those, and of what Python might not end with, the names
    that match stand in its place."""
    if _PLAIN.fullmatch(match) and not _REPEATED.search(match):
        return match
    return "|".join(re.escape(name) for name in full_matches(match, names))


def _pretrained(path: str, component: Component) -> list[str]:
    module = "net" + "".join(
        f"[{part}]" if part.isdigit() else f".{part}" for part in path.split(".") if part
    )
    return [
        f"own = {module}.state_dict()",
        f'weights = models.get_model_weights("{component["type"]}").DEFAULT.get_state_dict()',
        "# A head for another number of classes keeps its first values.",
        "fits = {name: w for name, w in weights.items() if w.shape == own[name].shape}",
        f"{module}.load_state_dict(fits, strict=False)",
    ]


def _initialize(entries: list[Component], settings: Settings) -> list[str]:
    """The last entry that speaks of a parameter fills it, in the order of the net."""
    written, lines = Written(), list[str]()
    for place, entry in enumerate(reversed(entries)):
        conditions = []
        if entry["layer"] is not None:
            conditions.append(f"is_a(layer, {text(entry['layer'])})")
        if entry["parameter"] is not None:
            conditions.append(f"name == {text(entry['parameter'])}")
        if entry["match"] is not None:
            match = text(pattern(entry["match"], settings.names))
            conditions.append(f're.fullmatch({match}, f"{{path}}.{{name}}".lstrip("."))')
        word = "elif" if place else "if"
        lines.append(f"        {word} {' and '.join(conditions) or 'True'}:")
        fill = written.component("initializer", entry, "parameter")
        lines.append(f"            {show(fill, 12)}")
    needs_path = any(entry["match"] is not None for entry in entries)
    return [
        "for path, layer in net.named_modules():" if needs_path else "for layer in net.modules():",
        "    for name, parameter in layer.named_parameters(recurse=False):",
        *lines,
    ]


def _loss(loss: Component, written: Written) -> Node:
    more: dict[str, Node] = {}
    for name, word in (("class_weights", "weight"), ("pos_weight", "pos_weight")):
        if loss.get(name) is not None:
            more[word] = call("torch.tensor", literal(loss[name]))
    plain = {name: value for name, value in loss.items() if name not in ("class_weights", "pos_weight")}
    return written.component("loss", plain, **more)


def _optimizer(optimizer: Component, spec: JobSpec, settings: Settings, written: Written) -> list[str]:
    groups = spec.optimizer.get("param_groups") or []
    if not groups and not spec.freeze:
        return [assign("optimizer", written.component("optimizer", optimizer, "net.parameters()"))]
    lines: list[str] = []
    if spec.freeze:
        lines.append(assign("FROZEN", literal([pattern(each, settings.names) for each in spec.freeze])))
        if spec.unfreeze:
            lines.append(
                assign(
                    "THAWED",
                    literal([(each.epoch, pattern(each.match, settings.names)) for each in spec.unfreeze]),
                )
            )
    frozen = "not matches(name, FROZEN)" if spec.freeze else ""
    if spec.unfreeze:
        frozen += " or matches(name, [pattern for _, pattern in THAWED])"
    if frozen:
        lines += [
            "trained = {",
            "    name: parameter",
            "    for name, parameter in net.named_parameters()",
            f"    if {frozen}",
            "}",
        ]
    else:
        lines.append("trained = dict(net.named_parameters())")
    if not groups:
        return [*lines, assign("optimizer", written.component("optimizer", optimizer, "trained.values()"))]
    patterns = literal([pattern(group["match"], settings.names) for group in groups])
    lines.append(assign("GROUPS", patterns))
    lines.append("rest = [p for name, p in trained.items() if not matches(name, GROUPS)]")
    items: list[Node] = [Bracketed([('"params": ', "rest")], bracket="{")]
    for place, group in enumerate(groups):
        own = {name: value for name, value in group.items() if name != "match"}
        members = f"[p for name, p in trained.items() if matches(name, GROUPS[{place}:{place + 1}])]"
        lines.append(f"group_{place} = {members}")
        items.append(
            Bracketed(
                [('"params": ', f"group_{place}"), *_group_keywords(optimizer | own, own, written)],
                bracket="{",
            )
        )
    lines.append(assign("groups", Bracketed([("", item) for item in items], bracket="[")))
    lines.append('groups = [group for group in groups if group["params"]]')
    return [*lines, assign("optimizer", written.component("optimizer", optimizer, "groups"))]


def _group_keywords(whole: Component, own: Component, written: Written) -> list[tuple[str, Node]]:
    """As the optimizer itself would be given them."""
    made = written.component("optimizer", whole)
    nodes = {word.rstrip("="): node for word, node in made.items if word}
    return [(f'"{name}": ', nodes.get(name, literal(value))) for name, value in own.items()]


def _scheduler(scheduler: Component, written: Written) -> Node:
    children = scheduler.get("schedulers")
    if not children:
        return written.component("scheduler", scheduler, "optimizer")
    held = Bracketed([("", _scheduler(child, written)) for child in children], bracket="[")
    if scheduler["type"] == "ChainedScheduler":
        return call("lr_scheduler.ChainedScheduler", held, optimizer="optimizer")
    milestones = literal(scheduler["milestones"])
    return call("lr_scheduler.SequentialLR", "optimizer", held, milestones=milestones)


def _evaluate(settings: Settings) -> str:
    returned = "loss_sum / len(rows)" + (", right / len(rows)" if settings.counts_right else "")
    told = "Mean loss" + (" and accuracy" if settings.counts_right else "")
    labels = "y[batch].reshape(outputs.shape)" if settings.is_reshaped else "y[batch]"
    inner = [f"outputs = model({settings.eval_inputs})", f"loss = criterion(outputs, {labels})"]
    if settings.resolved["precision"] in AUTOCAST:
        dtype = AUTOCAST[settings.resolved["precision"]]
        inner = [f'with torch.autocast("cpu", {dtype}):', *(f"    {line}" for line in inner)]
    inner.append("loss_sum += loss.item() * len(batch)")
    if settings.counts_right:
        inner.append("right += (outputs.argmax(1) == y[batch]).sum().item()")
    lines = [
        "def evaluate(model, rows):",
        f'    """{told} of these rows."""',
        "    model.eval()",
        f"    loss_sum{', right = 0.0, 0' if settings.counts_right else ' = 0.0'}",
        "    with torch.no_grad():",
        f"        for batch in rows.split({EVALUATION_ROWS}):",
        *(f"            {line}" for line in inner),
        f"    return {returned}",
    ]
    return "\n".join(lines)


def _batches(spec: JobSpec, settings: Settings) -> list[str]:
    trainer, rows = spec.trainer, settings.rows
    is_shuffled = (
        trainer.shuffle if trainer.sampler is None else trainer.sampler["type"] != "SequentialSampler"
    )
    lines = ["    batches = train.split(BATCH_SIZE)"]
    if is_shuffled:
        lines = [
            "    order = train[permutation(SEED, epoch, len(train))]",
            "    batches = order.split(BATCH_SIZE)",
        ]
    left = rows % trainer.batch_size
    if trainer.drop_last and rows >= trainer.batch_size:
        return [*lines, "    batches = batches[:-1]  # the last one is not full"] if left else lines
    if settings.has_batch_norm and left == 1 and rows > trainer.batch_size:
        lines.append("    # Batch norm takes no single row: the last one joins those before.")
        lines.append("    batches = [*batches[:-2], torch.cat(batches[-2:])]")
    return lines


def _step(spec: JobSpec, settings: Settings, mixers: list[Node]) -> list[str]:
    trainer = spec.trainer
    inputs = [f"inputs, labels = {settings.inputs}, y[rows]"]
    inputs += ["inputs, labels = mix(inputs, labels)" for _ in mixers]
    labels = "labels.reshape(outputs.shape)" if settings.is_reshaped else "labels"
    precision = settings.resolved["precision"]
    if precision in AUTOCAST:
        forward = [
            f'with torch.autocast("cpu", {AUTOCAST[precision]}):',
            "    outputs = net(inputs)",
            f"    loss = criterion(outputs, {labels})",
        ]
    elif settings.is_reshaped:
        forward = ["outputs = net(inputs)", f"loss = criterion(outputs, {labels})"]
    else:
        forward = ["loss = criterion(net(inputs), labels)"]
    is_sum = (spec.loss or {}).get("reduction") == "sum"
    is_accumulated = trainer.accumulate > 1
    if is_accumulated and not is_sum:
        forward.append("loss = loss * (len(rows) / sum(map(len, window)))")
    backward = "scaler.scale(loss).backward()" if precision == "fp16" else "loss.backward()"
    if is_accumulated:
        lines = [
            "window = batches[start : start + ACCUMULATE]",
            "optimizer.zero_grad()",
            "for rows in window:",
            *(f"    {line}" for line in [*inputs, *forward, backward]),
        ]
    else:
        lines = [*inputs, "optimizer.zero_grad()", *forward, backward]
    return [*lines, *_update(spec, settings, precision)]


def _update(spec: JobSpec, settings: Settings, precision: str) -> list[str]:
    lines: list[str] = []
    if spec.trainer.clip_grad_norm is not None:
        if precision == "fp16":
            lines.append("scaler.unscale_(optimizer)")
        bound = repr(spec.trainer.clip_grad_norm)
        lines.append(f"nn.utils.clip_grad_norm_(net.parameters(), {bound})")
    lines += ["scaler.step(optimizer)", "scaler.update()"] if precision == "fp16" else ["optimizer.step()"]
    if spec.scheduler is not None and spec.scheduler["interval"] == "step":
        lines.append("scheduler.step()")
    if spec.trainer.ema is not None:
        lines.append("average.update_parameters(net)")
    if settings.steps is not None:
        lines += ["step += 1", "if step == STEPS:", "    break"]
    return lines
