"""A pretrained ResNet-18 on new classes: a frozen base, two learning rates, a part that thaws.

python -m examples.fine_tuning.run --data pictures.zip --weights resnet18.pt --picture cat.jpg
"""

from pathlib import Path

import httpx2

from examples.command import follow, options, read_job
from modelyard import Client
from modelyard.address import resolve_key


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
            spec["model"]["weights"] = {"upload": upload(client, Path(arguments.weights))}
        model = follow(client.jobs.submit(spec))
        if arguments.picture:
            reply = client.models.predict_image(model, arguments.picture)
            print(f"{arguments.picture}: {reply.predictions[0].label} ({reply.predictions[0].score:.3f})")


def upload(client: Client, file: Path) -> str:
    """In one piece; `POST /v1/uploads` announces it, PATCH brings it."""
    headers = {"Authorization": f"Bearer {resolve_key(None, client.base_url)}"}
    with httpx2.Client(base_url=client.base_url, headers=headers, timeout=60, trust_env=False) as http:
        announced = {"filename": file.name, "length": file.stat().st_size}
        upload_id: str = http.post("/v1/uploads", json=announced).raise_for_status().json()["id"]
        piece = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
        http.patch(f"/v1/uploads/{upload_id}", content=file.read_bytes(), headers=piece).raise_for_status()
    return upload_id


if __name__ == "__main__":
    main()
