"""`/v1/datasets`: uploads and what became of them."""

import asyncio
import re
from collections.abc import AsyncIterator
from email.message import Message
from typing import Annotated, Any, get_args

import msgspec
from litestar import Controller, Response, delete, get, post, put
from litestar.datastructures import UploadFile
from litestar.exceptions import InternalServerException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.params import QueryParameter

from core.db.models import Dataset as Row
from core.db.statements import datasets
from core.errors import Invalid, Malformed, NotFound, TooLarge
from core.faults import fault, show, suggestion
from core.nets.parse import parse_spec
from modelyard.specs import Dataset, DatasetSource, DatasetUpload, Page, ProblemError
from modelyard.specs.common import NAME_PATTERN
from modelyard.specs.datasets import Format
from service.api.paging import page_of
from service.api.parameters import DEFAULT_LIMIT, After, IdempotencyKey, Limit, NamePath, VersionPath, Wait
from service.auth import Scope, needs
from service.bodies import MIB, AnyRequest, chunks, decode, read_body
from service.fetches import accept_source
from service.from_upload import accept_upload, names_upload
from service.idempotency import Once
from service.parts import Wired
from service.schema import BINARY, TEXT, also_answers, body, form
from service.spool import spool
from service.storage_quota import require_quota, within_quota
from service.uploads import Upload, accept, delete_versions
from service.views import dataset_view

MAX_FORM_BYTES = 10 * 1000 * 1000
MAX_OPTIONS_BYTES = 16 * 1024
MAX_SOURCE_BYTES = 64 * 1024
FORM_FIELDS = ("file", "name", "format", "options")
FORM = form("file", "name", file=BINARY, name=TEXT, format=TEXT, options=TEXT)
FORMATS: tuple[str, ...] = get_args(Format)

FormatQuery = Annotated[str, QueryParameter(name="format", description=f"one of {', '.join(FORMATS)}")]
OptionsQuery = Annotated[
    str, QueryParameter(name="options", description="a JSON object, as the format takes it")
]
FilenameQuery = Annotated[
    str | None, QueryParameter(name="filename", description="a label; else Content-Disposition says it")
]


class Datasets(Controller):
    path = "/v1/datasets"
    tags = ("datasets",)

    @put(
        "/{name:str}",
        opt=needs(Scope.TRAIN),
        request_max_body_size=None,
        operation_class=body("application/octet-stream"),
        responses=also_answers({202: (Dataset, "a new version, which a worker reads")}),
    )
    async def upload(
        self,
        request: AnyRequest,
        parts: Wired,
        name: NamePath,
        kind: FormatQuery = "auto",
        options: OptionsQuery = "{}",
        filename: FilenameQuery = None,
    ) -> Response[Dataset]:
        """A file as the raw body, streamed. 202 and a new version; 200 and the newest one where bytes,
        format and options are the same."""
        label = filename or _disposition_filename(request.headers.get("content-disposition", ""))
        upload = _upload(name, kind, options, label)
        owner, limit = request.user.owner, parts.settings.max_upload_bytes
        said = request.headers.get("content-length", "0")
        announced = min(int(said), limit) if said.isdigit() else 0  # beyond the limit reading refuses it
        left = await require_quota(parts, owner, announced)
        came = chunks(request, limit=limit, timeout_s=parts.settings.chunk_timeout_s)
        spooled = await spool(within_quota(parts, came, left), parts.settings, announced=announced)
        return await accept(parts, owner, upload, spooled, Once(owner, "", None, ""))

    @post(
        opt=needs(Scope.TRAIN),
        status_code=202,
        request_max_body_size=MAX_FORM_BYTES,
        operation_class=body("application/json", DatasetSource, DatasetUpload, forms=FORM),
        responses=also_answers({200: (Dataset, "the newest version, which is of the same")}),
    )
    async def create(
        self, request: AnyRequest, parts: Wired, idempotency_key: IdempotencyKey = None
    ) -> Response[Dataset]:
        """JSON names a source that a worker fetches: 202 and a new version; 200 and the newest one where it
        is of the same source. Or a form with `file`, `name`, perhaps `format` and `options`, up to 10 MB;
        larger files take PUT."""
        if request.content_type[0] != "application/json":
            return await self._upload_form(request, parts, idempotency_key)
        raw = await read_body(request, limit=MAX_SOURCE_BYTES, timeout_s=parts.settings.chunk_timeout_s)
        owner = request.user.owner
        once = Once.of(owner, "POST /v1/datasets", idempotency_key, raw)
        if names_upload(raw):
            return await accept_upload(parts, owner, decode(raw, DatasetUpload), once)
        return await accept_source(parts, owner, decode(raw, DatasetSource), once)

    async def _upload_form(
        self, request: AnyRequest, parts: Wired, idempotency_key: str | None
    ) -> Response[Dataset]:
        form = await _form(request, parts.settings.chunk_timeout_s)
        _require_known_fields(list(form))
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Invalid(
                "The form has no file; send the bytes in a part named `file` with a filename.", code="no_file"
            )
        texts = {key: value for key, value in form.items() if isinstance(value, str)}
        name, kind, options = texts.get("name", ""), texts.get("format", "auto"), texts.get("options", "{}")
        upload = _upload(name, kind, options, file.filename)
        owner = request.user.owner
        left = await require_quota(parts, owner)
        spooled = await spool(within_quota(parts, _pieces(file), left), parts.settings)
        meant = msgspec.json.encode([name, kind, options, spooled.sha256])
        once = Once.of(owner, "POST /v1/datasets", idempotency_key, meant)
        return await accept(parts, owner, upload, spooled, once)

    @get(opt=needs(Scope.READ))
    async def list_all(
        self, request: AnyRequest, parts: Wired, limit: Limit = DEFAULT_LIMIT, after: After = None
    ) -> Page[Dataset]:
        """The newest version of every name."""
        async with parts.database.read() as session:
            rows = list(await session.scalars(datasets.list_datasets(request.user.owner, after, limit)))
        return page_of(rows, limit, dataset_view, lambda row: row.id)

    @get("/{name:str}", opt=needs(Scope.READ))
    async def show(self, request: AnyRequest, parts: Wired, name: NamePath, wait: Wait = 0) -> Dataset:
        """The newest version; `wait` holds the reply while it is processed."""
        row = await newest(parts, request.user.owner, name)
        if row.state in ("queued", "ingesting") and await parts.datasets_watcher.changed(
            row.id, row.revision, wait
        ):
            row = await newest(parts, request.user.owner, name)
        return dataset_view(row)

    @get("/{name:str}/versions", opt=needs(Scope.READ))
    async def list_versions(
        self,
        request: AnyRequest,
        parts: Wired,
        name: NamePath,
        limit: Limit = DEFAULT_LIMIT,
        after: After = None,
    ) -> Page[Dataset]:
        async with parts.database.read() as session:
            rows = list(await session.scalars(datasets.list_versions(request.user.owner, name, after, limit)))
        if not rows and after is None:
            raise _unknown(name)
        return page_of(rows, limit, dataset_view, lambda row: row.id)

    @get("/{name:str}/versions/{version:int}", opt=needs(Scope.READ))
    async def show_version(
        self, request: AnyRequest, parts: Wired, name: NamePath, version: VersionPath, wait: Wait = 0
    ) -> Dataset:
        row = await one_version(parts, request.user.owner, name, version)
        if row.state in ("queued", "ingesting") and await parts.datasets_watcher.changed(
            row.id, row.revision, wait
        ):
            row = await one_version(parts, request.user.owner, name, version)
        return dataset_view(row)

    @delete("/{name:str}", opt=needs(Scope.TRAIN))
    async def remove(self, request: AnyRequest, parts: Wired, name: NamePath) -> None:
        """All versions; 409 while a job that is not terminal reads one of them."""
        async with parts.database.read() as session:
            rows = list(await session.scalars(datasets.ids_of(request.user.owner, name)))
        if not rows:
            raise _unknown(name)
        await delete_versions(parts, rows)

    @delete("/{name:str}/versions/{version:int}", opt=needs(Scope.TRAIN))
    async def remove_version(
        self, request: AnyRequest, parts: Wired, name: NamePath, version: VersionPath
    ) -> None:
        row = await one_version(parts, request.user.owner, name, version)
        await delete_versions(parts, [row.id])


async def newest(parts: Wired, owner: str, name: str, *, state: str | None = None) -> Row:
    async with parts.database.read() as session:
        row = (await session.scalars(datasets.newest_version(owner, name, state=state))).one_or_none()
    if row is None:
        raise _unknown(name)
    return row


async def one_version(parts: Wired, owner: str, name: str, version: int) -> Row:
    async with parts.database.read() as session:
        row = (await session.scalars(datasets.get_version(owner, name, version))).one_or_none()
    if row is None:
        raise _unknown(f"{name}@{version}")
    return row


def _unknown(reference: str) -> NotFound:
    return NotFound(f"You have no dataset {reference[:100]}; GET /v1/datasets lists them.")


def _upload(name: str, kind: str, options: str, filename: str | None) -> Upload:
    """Raises Invalid with everything that is wrong, before a byte of the file is read."""
    errors = []
    if re.fullmatch(NAME_PATTERN, name) is None:
        errors.append(ProblemError("", "name", f"name: expected {NAME_PATTERN}, got {name[:100]!r}"))
    if kind not in FORMATS:
        errors.append(
            ProblemError("", "format", f"format: expected one of {', '.join(FORMATS)}, got {kind[:100]!r}")
        )
    if errors:
        raise Invalid(f"This upload cannot be taken: {'; '.join(e.message for e in errors)}.", errors=errors)
    return Upload(name, kind, _options(options), _label(filename or name))


def _require_known_fields(names: list[str]) -> None:
    errors: list[ProblemError] = []
    for name in names:
        if name not in FORM_FIELDS:
            message = f"unknown field {show(name)}; a form takes {', '.join(FORM_FIELDS)}."
            fault(errors, "", "unknown_field", f"{message}{suggestion(name, FORM_FIELDS)}")
    if errors:
        raise Invalid(f"The form can't be taken: {errors[0].message}", code="unknown_field", errors=errors)


def _options(text: str) -> dict[str, Any]:
    if len(text) > MAX_OPTIONS_BYTES:
        raise TooLarge(f"options have at most {MAX_OPTIONS_BYTES} characters, got {len(text)}.")
    options = parse_spec(text.encode("utf-8", "surrogatepass"))
    if not isinstance(options, dict):
        raise Invalid(
            f"options: expected a JSON object, got {type(options).__name__}.", code="invalid_options"
        )
    return options


def _label(filename: str) -> str:
    """The last part of what may look like a path, without control characters."""
    last = re.split(r"[/\\]", filename)[-1]
    return "".join(character for character in last if character.isprintable())[:255] or "upload"


def _disposition_filename(header: str) -> str | None:
    message = Message()
    message["Content-Disposition"] = header.replace("\r", " ").replace("\n", " ")
    return message.get_filename()


async def _form(request: AnyRequest, timeout_s: float) -> dict[str, Any]:
    try:
        async with asyncio.timeout(timeout_s):
            return dict(await request.form())
    except TimeoutError as error:
        raise Malformed(
            f"The form was not complete after {timeout_s:g} s; send it again.", code="body_timeout"
        ) from error
    except InternalServerException as error:  # what the framework makes of a client that left
        raise Malformed(
            "The connection was closed before the form was complete.", code="body_incomplete"
        ) from error
    except RequestEntityTooLarge as error:
        raise TooLarge(
            f"A form has at most {MAX_FORM_BYTES} bytes; send larger files by PUT /v1/datasets/{{name}}."
        ) from error


async def _pieces(file: UploadFile) -> AsyncIterator[bytes]:
    while piece := await file.read(MIB):
        yield piece
