"""What `make demo` runs: the whole way on this machine, from pictures to predictions, in about a minute.

It starts the embedded stack on a free port in a temporary folder, uploads scikit-learn's digits, trains the
net of `job.json`, asks the trained model about five test pictures over HTTP, and stops everything. Exits
with 0 if all of that worked and the test accuracy is at least `LEAST_ACCURACY`, else says what did not.
"""

import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from deploy.embed import StackFailed, running_stack
from examples.digits.make_digits import pictures, write_zip
from modelyard import Client, Job, JobHandle, ModelyardError, ProgressUpdate

LEAST_ACCURACY = 0.97
ASKED = 5

console = Console()


class DemoFailed(Exception):
    """Everything ran, and the outcome is not what it should be."""


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: nothing is left running
    folder = Path(tempfile.mkdtemp(prefix="modelyard-demo-"))
    try:
        console.print("starting broker, database, service and workers …")
        with running_stack(folder / "home") as stack, Client(stack.url, stack.key) as client:
            console.print(f"ready at {stack.url}")
            run(client, folder)
    except KeyboardInterrupt:
        console.print("interrupted; everything was stopped")
        shutil.rmtree(folder)
        return 130
    except (DemoFailed, StackFailed, ModelyardError, OSError) as error:
        print(f"the demo failed: {error}\nlogs: {folder / 'home' / 'logs'}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


def run(client: Client, folder: Path) -> None:
    write_zip(folder / "digits.zip")
    dataset = client.datasets.push("digits", folder / "digits.zip")
    console.print(
        f"dataset {dataset.name}@{dataset.version}: {dataset.splits}, {len(dataset.classes or [])} classes"
    )

    spec = json.loads(Path(__file__).with_name("job.json").read_text())
    submitted = client.jobs.submit(spec)
    console.print(f"job {submitted.id}")
    show_progress(submitted)
    job = submitted.wait(timeout_s=60)
    accuracy = accuracy_of(job)
    assert job.registered is not None  # a succeeded job has registered a version
    console.print(f"model {job.registered.model}, version {job.registered.version}")
    console.print(f"test accuracy {accuracy:.4f}")

    ask(client, f"{job.registered.model}@{job.registered.version}")
    if accuracy < LEAST_ACCURACY:
        raise DemoFailed(f"expected a test accuracy of at least {LEAST_ACCURACY}, got {accuracy:.4f}")


def show_progress(submitted: JobHandle) -> None:
    """A bar while the job runs, and a line for each epoch that stays."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("queued", total=1.0)
        for happening in submitted.watch():
            if isinstance(happening, ProgressUpdate):
                description = f"{happening.state} {numbers_of(happening.metrics)}"
                bar.update(task, description=description, completed=happening.progress.fraction)
            elif happening.type == "epoch":
                console.print(f"epoch {happening.data['epoch']}: {numbers_of(happening.data['metrics'])}")


def numbers_of(metrics: dict[str, float | None]) -> str:
    shown = ("train_loss", "val_loss", "val_accuracy")
    return ", ".join(f"{name} {value:.4f}" for name in shown if (value := metrics.get(name)) is not None)


def accuracy_of(job: Job) -> float:
    accuracy = job.metrics.get("test_accuracy")
    if job.state != "succeeded" or accuracy is None:
        raise DemoFailed(f"expected a succeeded job with a test accuracy, got {job.state} with {job.metrics}")
    return accuracy


def ask(client: Client, model: str) -> None:
    table = Table("picture", "truth", "prediction", "score", title=f"{ASKED} test pictures, asked over HTTP")
    members = pictures("test")
    for picture in members[:: len(members) // ASKED][:ASKED]:
        prediction = client.models.predict_image(model, picture.png).predictions[0]
        if prediction.error:
            raise DemoFailed(f"{picture.path}: {prediction.error.detail}")
        table.add_row(picture.path, str(picture.label), str(prediction.label), f"{prediction.score:.3f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
