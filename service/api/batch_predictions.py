"""`/v1/batch-predictions`: post, list, show, cancel, and the two files of one that has succeeded."""

import asyncio
from http import HTTPStatus
from typing import Annotated, Any

from litestar import Controller, Response, get, post
from litestar.params import PathParameter, QueryParameter
from litestar.response import Stream
from sqlalchemy.ext.asyncio import AsyncSession

from core.db.models import BatchPrediction as Row
from core.db.models import Dataset, utc_now
from core.db.statements import batch_predictions as statements
from core.db.statements import datasets
from core.db.statements.batch_predictions import TERMINAL
from core.errors import Conflict, Gone, NotFound
from modelyard.specs import BatchPrediction, BatchRequest, BatchState, Page, Wanted
from service.api.paging import page_of
from service.api.parameters import DEFAULT_LIMIT, After, IdempotencyKey, Limit, Wait
from service.auth import Scope, needs
from service.batch_predictions import accept
from service.bodies import AnyRequest, decode, read_body, require_json
from service.files import matches, send_file
from service.idempotency import Once
from service.parts import Parts, Wired
from service.schema import also_answers, answers_file, body
from service.views import batch_view

MAX_BODY_BYTES = 64 * 1024

MEDIA_TYPES = {
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson",
}

BatchPath = Annotated[str, PathParameter(description="a batch prediction's id")]
StateQuery = Annotated[BatchState | None, QueryParameter(name="state")]


class BatchPredictions(Controller):
    path = "/v1/batch-predictions"
    tags = ("batch predictions",)

    @post(opt=needs(Scope.PREDICT), status_code=202, operation_class=body("application/json", BatchRequest))
    async def create(
        self, request: AnyRequest, parts: Wired, idempotency_key: IdempotencyKey = None
    ) -> Response[Any]:
        """202 and the queued batch prediction, of the version that `model` means now."""
        require_json(request)
        owner = request.user.owner
        raw = await read_body(request, limit=MAX_BODY_BYTES, timeout_s=parts.settings.chunk_timeout_s)
        once = Once.of(owner, "POST /v1/batch-predictions", idempotency_key, raw)
        async with parts.database.read() as session:
            if (earlier := await once.earlier(session)) is not None:
                return earlier
        return await accept(parts, owner, decode(raw, BatchRequest), once)

    @get(opt=needs(Scope.READ))
    async def list_all(
        self,
        request: AnyRequest,
        parts: Wired,
        batch_state: StateQuery = None,
        limit: Limit = DEFAULT_LIMIT,
        after: After = None,
    ) -> Page[BatchPrediction]:
        async with parts.database.read() as session:
            query = statements.list_all(request.user.owner, state=batch_state, after=after, limit=limit)
            rows = list(await session.scalars(query))
            read = await _datasets_of(session, rows)
        return page_of(rows, limit, lambda row: batch_view(row, read.get(row.dataset_id)), lambda row: row.id)

    @get("/{batch_id:str}", opt=needs(Scope.READ), responses=also_answers({}, may_be_unchanged=True))
    async def show(
        self, request: AnyRequest, parts: Wired, batch_id: BatchPath, wait: Wait = 0
    ) -> Response[BatchPrediction | None]:
        """`wait`, `If-None-Match` and 304 as for a job."""
        owner = request.user.owner
        known = request.headers.get("if-none-match")
        row, dataset = await _one(parts, owner, batch_id)
        is_news = known is not None and not matches(known, _etag(row))
        may_change = not is_news and BatchState(row.state) not in TERMINAL
        if may_change and await parts.batches_watcher.changed(row.id, row.revision, wait):
            row, dataset = await _one(parts, owner, batch_id)
        headers = {"ETag": _etag(row), "Cache-Control": "private, no-cache"}
        if matches(known, _etag(row)):
            return Response(None, status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(batch_view(row, dataset), headers=headers)

    @post(
        "/{batch_id:str}/cancel",
        opt=needs(Scope.PREDICT),
        status_code=200,
        responses=also_answers({202: (BatchPrediction, "its worker has yet to stop it")}),
    )
    async def cancel(
        self, request: AnyRequest, parts: Wired, batch_id: BatchPath
    ) -> Response[BatchPrediction]:
        """200 and the cancelled one where it was queued; 202 where its worker has yet to stop it."""
        async with parts.database.write() as session:
            query = statements.lock(batch_id, owner=request.user.owner)
            row = (await session.scalars(query)).one_or_none()
            if row is None:
                raise _unknown(batch_id)
            status = HTTPStatus.OK
            if row.state == BatchState.RUNNING:
                row.revision += 1  # its supervisor reads the wish with its next beat
                status = HTTPStatus.ACCEPTED
            else:
                statements.move(row, BatchState.CANCELLED, "cancelled by its owner", utc_now())
            row.wanted = Wanted.CANCEL
            read = await _datasets_of(session, [row])
            await session.commit()
        return Response(batch_view(row, read.get(row.dataset_id)), status_code=status)

    @get(
        "/{batch_id:str}/output",
        opt=needs(Scope.READ),
        media_type="application/octet-stream",
        responses=answers_file(),
    )
    async def output(
        self, request: AnyRequest, parts: Wired, batch_id: BatchPath
    ) -> Response[bytes] | Stream:
        """The answers, in the order of the rows; with Range, and `ETag` = sha256."""
        return await _file(request, parts, batch_id, "output")

    @get(
        "/{batch_id:str}/errors",
        opt=needs(Scope.READ),
        media_type="application/octet-stream",
        responses=answers_file(),
    )
    async def errors(
        self, request: AnyRequest, parts: Wired, batch_id: BatchPath
    ) -> Response[bytes] | Stream:
        """The rows that have no answer: number, code, message; with Range, and `ETag` = sha256."""
        return await _file(request, parts, batch_id, "errors")


async def _file(request: AnyRequest, parts: Parts, batch_id: str, which: str) -> Response[bytes] | Stream:
    row, _ = await _one(parts, request.user.owner, batch_id)
    if row.results is None:
        raise Conflict(
            f"{row.id} is {row.state}: its files are there once it has succeeded. "
            f"GET /v1/batch-predictions/{row.id}?wait=30 waits for that.",
            code="batch_prediction_not_succeeded",
        )
    stored = row.results[which]
    try:
        path = await asyncio.to_thread(parts.storage.fetch, stored["key"])
    except FileNotFoundError as error:
        raise Gone(f"The {which} of {row.id} are no longer there.", code="collected") from error
    return send_file(
        request,
        path,
        sha256=stored["sha256"],
        filename=f"{row.id}-{which}.{row.format}",
        media_type=MEDIA_TYPES[row.format],
    )


async def _one(parts: Parts, owner: str, batch_id: str) -> tuple[Row, Dataset | None]:
    async with parts.database.read() as session:
        row = (await session.scalars(statements.get(owner, batch_id))).one_or_none()
        if row is None:
            raise _unknown(batch_id)
        return row, (await _datasets_of(session, [row])).get(row.dataset_id)


async def _datasets_of(session: AsyncSession, rows: list[Row]) -> dict[str | None, Dataset]:
    """By their ids: what the rows of those that read a dataset come from."""
    wanted = sorted({row.dataset_id for row in rows if row.dataset_id is not None})
    return {row.id: row for row in await session.scalars(datasets.by_ids(wanted))} if wanted else {}


def _unknown(batch_id: str) -> NotFound:
    return NotFound(f"You have no batch prediction {batch_id[:100]}; GET /v1/batch-predictions lists them.")


def _etag(row: Row) -> str:
    return f'"{row.revision}"'
