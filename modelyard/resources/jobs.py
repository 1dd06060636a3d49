"""Jobs: submit a training, follow it, pause it, stop it, fork it."""

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeAlias

from modelyard.errors import JobFailed
from modelyard.resources import following
from modelyard.resources.downloads import Downloading
from modelyard.resources.following import Happening
from modelyard.specs import Checkpoint, Job, JobSpec, JobState, Metric, Plan, Suspects
from modelyard.transport import calls
from modelyard.transport.calls import path
from modelyard.transport.resource import R, Resource, operation, streaming
from modelyard.transport.story import AsyncRunner, Call, Story, Stream, SyncRunner

Spec: TypeAlias = Mapping[str, Any] | JobSpec


class Jobs(Downloading[R]):
    """`client.jobs`."""

    @operation
    def submit(self, spec: Spec, idempotency_key: str | None = None) -> Story["JobHandleOf[R]"]:
        """Queue a training. Raises Invalid with every error of the spec, each with its JSON pointer.

        The same `idempotency_key` within 24 h gives the job that is there instead of a second one;
        without one, a key is made up, so that a call repeated after a lost connection trains once.
        """
        call = _once("/v1/jobs", spec, idempotency_key)
        job = yield from self._fetch(call, Job)
        return JobHandleOf(self._runner, job)

    @operation
    def plan(self, spec: Spec) -> Story[Plan]:
        """What the spec would train, without queueing it. Raises Invalid like `submit`."""
        call = calls.send_json("POST", "/v1/plans", spec, is_repeatable=True)
        return (yield from self._fetch(call, Plan))

    @operation
    def get(self, job_id: str, wait_s: float | None = None) -> Story[Job]:
        """With `wait_s` (at most 30) the answer is held until the job changes."""
        return (yield from self._get(job_id, wait_s))

    @operation
    def handle(self, job_id: str) -> Story["JobHandleOf[R]"]:
        """A job that was submitted earlier, to follow it."""
        return JobHandleOf(self._runner, (yield from self._get(job_id, None)))

    @streaming
    def list(self, state: str | None = None, name: str | None = None) -> Stream[Job]:
        """Newest first; only those in `state`, only those that train the model `name`."""
        yield from self._pages(calls.get("/v1/jobs", state=state, name=name), Job)

    @operation
    def cancel(self, job_id: str) -> Story[Job]:
        """The job as it then is: a running one ends in `cancelled` soon after."""
        return (yield from self._fetch(_ask(job_id, "cancel"), Job))

    @operation
    def pause(self, job_id: str) -> Story[Job]:
        """The job as it then is: a running one saves a checkpoint and is `paused` soon after. Raises Conflict
        where it has ended, or is being cancelled."""
        return (yield from self._fetch(_ask(job_id, "pause"), Job))

    @operation
    def resume(self, job_id: str) -> Story[Job]:
        """A paused job goes back to the queue and on from its last checkpoint; one that was only asked to
        pause runs on. Raises Conflict where nobody paused it."""
        return (yield from self._fetch(_ask(job_id, "resume"), Job))

    @operation
    def fork(
        self,
        job_id: str,
        patch: Mapping[str, Any] | None = None,
        start: str | None = None,
        idempotency_key: str | None = None,
    ) -> Story["JobHandleOf[R]"]:
        """Queue a new job: the spec of this one, in any state, with a JSON merge patch (RFC 7396).

        `start` is `best`, `last` or a checkpoint's id: the new job begins with its weights, and a new
        optimizer and schedule; without one it begins anew. Raises Invalid with every error, its pointer into
        the patched spec.
        """
        call = _fork(job_id, patch, start, idempotency_key)
        return JobHandleOf(self._runner, (yield from self._fetch(call, Job)))

    @operation
    def delete(self, job_id: str) -> Story[None]:
        """Raises Conflict while the job is not terminal."""
        yield from self._send(calls.delete(path("/v1/jobs/{}", job_id)))

    @operation
    def suspects(self, job_id: str, split: str = "train", limit: int = 50) -> Story[Suspects]:
        """Rows that the trained net doubts, the worst first. Raises Conflict before the job has succeeded."""
        call = calls.get(path("/v1/jobs/{}/suspects", job_id), split=split, limit=limit)
        return (yield from self._fetch(call, Suspects))

    @operation
    def suspects_png(self, job_id: str, split: str = "train", rows: int = 4, cols: int = 4) -> Story[bytes]:
        """The same as a grid of images, each over `given -> predicted`. Raises Conflict without classes."""
        call = calls.get(path("/v1/jobs/{}/suspects.png", job_id), split=split, rows=rows, cols=cols)
        return (yield from self._send(call)).content

    @operation
    def eject(self, job_id: str) -> Story[bytes]:
        """A zip of the job as plain PyTorch, which gives its weights again. Raises Conflict with every reason
        for which that can't be written."""
        return (yield from self._send(calls.get(path("/v1/jobs/{}/eject.zip", job_id)))).content

    @operation
    def tensorboard(self, job_id: str, file: str | os.PathLike[str]) -> Story[Path]:
        """Write what TensorBoard shows of the job to `file`, a zip: unpack it and run `tensorboard --logdir`
        on the folder. Renewed with checkpoints, half a minute apart, and at the job's end.

        Raises NotFound where nothing is stored yet, UnexpectedReply where the bytes came damaged; OSError.
        """
        call = calls.get(path("/v1/jobs/{}/tensorboard.zip", job_id))
        return (yield from self._download(call, file))

    def _get(self, job_id: str, wait_s: float | None) -> Story[Job]:
        call = calls.held(calls.get(path("/v1/jobs/{}", job_id)), wait_s)
        return (yield from self._fetch(call, Job))


class JobHandleOf(Resource[R], Generic[R]):
    """One job: `id`, and `job` as it was last seen."""

    def __init__(self, runner: R, job: Job) -> None:
        super().__init__(runner)
        self.job = job

    @property
    def id(self) -> str:
        return self.job.id

    def __repr__(self) -> str:
        return f"<job {self.id} {self.job.state}>"

    @operation
    def refresh(self) -> Story[Job]:
        """The job as it is now."""
        self.job = yield from self._fetch(calls.get(path("/v1/jobs/{}", self.id)), Job)
        return self.job

    @operation
    def wait(self, timeout_s: float | None = None, raise_on_failure: bool = True) -> Story[Job]:
        """Returns the job once it is terminal; a cancelled one is no error, and a paused one is waited for.

        Raises JobFailed where it failed, unless told not to; WaitTimeout after `timeout_s`, and the
        job goes on. A service that restarts in between is waited for, a minute at most.
        """
        self.job = yield from following.wait_until_terminal(self.id, timeout_s)
        if raise_on_failure and self.job.state is JobState.FAILED:
            raise JobFailed(self.job)
        return self.job

    @streaming
    def watch(self, after: int = 0) -> Stream[Happening]:
        """What happens, from the first event (or the one after number `after`) to the end of the job.

        Numbered `Event`s come each once and in order, whatever breaks in between; a `ProgressUpdate` says
        how the job stands now. Ends when the job is terminal.
        """
        yield from following.watch(self.id, after)

    @operation
    def cancel(self) -> Story[Job]:
        """The job as it then is: a running one ends in `cancelled` soon after."""
        self.job = yield from self._fetch(_ask(self.id, "cancel"), Job)
        return self.job

    @operation
    def pause(self) -> Story[Job]:
        """The job as it then is: a running one saves a checkpoint and is `paused` soon after."""
        self.job = yield from self._fetch(_ask(self.id, "pause"), Job)
        return self.job

    @operation
    def resume(self) -> Story[Job]:
        """Back to the queue, and on from its last checkpoint; one that was only asked to pause runs on."""
        self.job = yield from self._fetch(_ask(self.id, "resume"), Job)
        return self.job

    @operation
    def fork(
        self,
        patch: Mapping[str, Any] | None = None,
        start: str | None = None,
        idempotency_key: str | None = None,
    ) -> Story["JobHandleOf[R]"]:
        """Queue a new job of this one's spec; see `Jobs.fork`."""
        call = _fork(self.id, patch, start, idempotency_key)
        return JobHandleOf(self._runner, (yield from self._fetch(call, Job)))

    @streaming
    def metrics(self, names: Sequence[str] | None = None, from_step: int = 0) -> Stream[Metric]:
        """Every number the job reported, or only those of `names`, by step; or those from `from_step` on."""
        joined = ",".join(names) if names is not None else None
        after = f"{from_step}:" if from_step else None  # no name comes before the empty one
        call = calls.get(path("/v1/jobs/{}/metrics", self.id), names=joined, after=after)
        yield from self._pages(call, Metric)

    @streaming
    def checkpoints(self) -> Stream[Checkpoint]:
        """What the job saved and what is still kept of it."""
        yield from self._pages(calls.get(path("/v1/jobs/{}/checkpoints", self.id)), Checkpoint)


JobHandle: TypeAlias = JobHandleOf[SyncRunner]
AsyncJobHandle: TypeAlias = JobHandleOf[AsyncRunner]


def _ask(job_id: str, what: str) -> Call:
    return Call(method="POST", path=path("/v1/jobs/{}/{}", job_id, what))


def _fork(
    job_id: str, patch: Mapping[str, Any] | None, start: str | None, idempotency_key: str | None
) -> Call:
    body: dict[str, Any] = {"patch": patch or {}}
    if start is not None:
        body["from"] = start
    return _once(path("/v1/jobs/{}/fork", job_id), body, idempotency_key)


def _once(route: str, body: object, idempotency_key: str | None) -> Call:
    """A call that may be repeated: the service gives the first answer again."""
    headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
    return calls.send_json("POST", route, body, headers=headers, is_repeatable=True)
