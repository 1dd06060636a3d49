"""A pretrained ResNet-18 on new classes: a frozen base, two learning rates, a part that thaws.

python -m examples.fine_tuning.run --data pictures.zip --weights resnet18.pt --picture cat.jpg
"""

from examples.command import follow, options, read_job
from modelyard import Client


def main() -> None:
    arguments = options(
        __doc__,
        data="pictures.zip",
        weights="a state_dict of resnet18; without it torchvision's own are fetched",
        picture="a picture to ask about",
    )
    with Client() as client:
        client.datasets.push("pictures", arguments.data)
        spec = read_job(__file__, arguments.epochs)
        if arguments.weights:
            spec["model"]["weights"] = {"upload": client.uploads.create(arguments.weights).id}
        model = follow(client.jobs.submit(spec))
        if arguments.picture:
            reply = client.models.predict_image(model, arguments.picture)
            print(f"{arguments.picture}: {reply.predictions[0].label} ({reply.predictions[0].score:.3f})")


if __name__ == "__main__":
    main()
