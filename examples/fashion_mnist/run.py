"""The PyTorch quickstart's NeuralNetwork on Fashion-MNIST's own files.

python -m examples.fashion_mnist.run --data fashion-mnist.zip
"""

from examples.command import follow, options, read_job
from modelyard import Client

CLASSES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]


def main() -> None:
    arguments = options(__doc__, data="fashion-mnist.zip")
    with Client() as client:
        client.datasets.push("fashion-mnist", arguments.data, format="idx", options={"classes": CLASSES})
        model = follow(client.jobs.submit(read_job(__file__, arguments.epochs)))
        samples = client.datasets.samples("fashion-mnist", split="test", limit=5).items
        reply = client.models.predict(model, [sample.values["x"] for sample in samples])
    for sample, prediction in zip(samples, reply.predictions, strict=True):
        print(f"{sample.values['y']} is taken for {prediction.label} ({prediction.score:.3f})")


if __name__ == "__main__":
    main()
