"""A small CNN on folders of JPEGs, mirrored at random and normalised.

python -m examples.cifar10.run --data cifar10.zip --picture cat.jpg
"""

from examples.command import follow, options, read_job
from modelyard import Client


def main() -> None:
    arguments = options(__doc__, data="cifar10.zip", picture="a picture of 32x32 to ask about")
    with Client() as client:
        client.datasets.push("cifar10", arguments.data)
        model = follow(client.jobs.submit(read_job(__file__, arguments.epochs)))
        if arguments.picture:
            reply = client.models.predict_image(model, arguments.picture, top_k=3)
            for guess in reply.predictions[0].top or []:
                print(f"{arguments.picture}: {guess.label} ({guess.score:.3f})")


if __name__ == "__main__":
    main()
