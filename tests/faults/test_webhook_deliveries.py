"""A message to a webhook arrives, whatever dies or hangs: at least once, with one id, by one at a time."""

import asyncio
import base64
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select, update
from standardwebhooks import Webhook as ForeignWebhook

import migrations
from core.db.engines import open_database
from core.db.models import Base, Delivery
from modelyard import Client
from service.webhooks.sender import MAX_OF_WEBHOOK
from tests import house as homes
from tests.outbox import SECRET, Office, opened
from tests.receiver import receiving
from tests.running_service import run_service
from workers.house import House
from workers.tasks import train_one

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    create_tables(database_url)
    async with opened(database_url, timeout_s=2) as one:
        yield one


async def test_a_receiver_that_was_down_gets_the_message_once_it_is_up(office: Office) -> None:
    with receiving() as receiver:
        webhook = await office.webhook(receiver.url)
    await office.tell()  # nobody listens there any more
    await office.look()
    (waiting,) = await office.deliveries(webhook)
    assert (waiting.state, waiting.status) == ("waiting", None)
    assert waiting.error == "nothing takes connections there"
    assert timedelta(seconds=3.9) < waiting.next_at - waiting.created_at < timedelta(seconds=8)
    await office.look()
    assert (await office.deliveries(webhook))[0].attempts == 1, "it is not due yet"
    with receiving(port=receiver.port) as again:
        await office.hurry()
        await office.look()
    (message,) = again.messages
    (delivered,) = await office.deliveries(webhook)
    assert (delivered.state, delivered.attempts, delivered.error) == ("delivered", 2, None)
    assert (message.id, message.body.decode()) == (waiting.message_id, waiting.body)


async def test_after_the_last_try_it_is_a_dead_letter(office: Office) -> None:
    with receiving() as receiver:
        receiver.statuses = [500]
        webhook = await office.webhook(receiver.url)
        await office.tell()
        for _ in range(4):  # three tries by this office's schedule
            await office.look()
            await office.hurry()
    (dead,) = await office.deliveries(webhook)
    assert (dead.state, dead.attempts, dead.status) == ("dead", 3, 500)
    assert dead.error == "answered 500: no 2xx"
    assert len({message.id for message in receiver.messages}) == 1
    assert len(receiver.messages) == 3


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_puts_the_next_try_off(office: Office, status: int) -> None:
    with receiving() as receiver:
        receiver.statuses, receiver.headers = [status], {"Retry-After": "3600"}
        webhook = await office.webhook(receiver.url)
        await office.tell()
        await office.look()
    (waiting,) = await office.deliveries(webhook)
    assert waiting.next_at - waiting.created_at > timedelta(seconds=3599)


async def test_a_receiver_that_hangs_keeps_nobody_else_waiting(office: Office) -> None:
    freed = threading.Event()
    with receiving() as hangs, receiving() as answers:
        hangs.before = lambda: bool(freed.wait(20)) and None
        stuck = await office.webhook(hangs.url, owner="ada")
        await office.webhook(answers.url, owner="bob")
        await office.tell(10, owner="ada")
        await office.tell(10, owner="bob")
        started = time.monotonic()
        running = asyncio.create_task(office.sender.run())
        await asyncio.to_thread(answers.wait_for, 10, 10)
        assert time.monotonic() - started < 2, "the others do not wait for a timeout"
        assert len(hangs.messages) == MAX_OF_WEBHOOK
        await asyncio.to_thread(hangs.wait_for, MAX_OF_WEBHOOK + 1, 10)  # the first were given up
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        freed.set()
    states = {delivery.error for delivery in await office.deliveries(stuck) if delivery.error}
    assert states == {"no answer within 2 s"}
    assert all(delivery.state == "waiting" for delivery in await office.deliveries(stuck)), "given back"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"",
    ],
    ids=["endless head", "endless interim answers", "another protocol", "nothing"],
)
async def test_an_answer_that_is_none_is_a_failed_try_and_is_not_taken_in(
    office: Office, answer: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        webhook = await office.webhook(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        await office.tell()
        await office.look()
        thread.join(5)
    (waiting,) = await office.deliveries(webhook)
    assert (waiting.state, waiting.status, waiting.attempts) == ("waiting", None, 1)
    assert waiting.error


async def test_an_endless_body_after_a_status_is_a_delivered_message(office: Office) -> None:
    sent = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            nonlocal sent
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                while sent < 50_000_000:
                    sent += connection.send(b"a" * 65536)

        thread = threading.Thread(target=serve)
        thread.start()
        webhook = await office.webhook(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        await office.tell()
        await office.look()
        thread.join(5)
    (delivered,) = await office.deliveries(webhook)
    assert (delivered.state, delivered.status) == ("delivered", 200)
    assert sent < 20_000_000, "the rest was read"


async def test_two_senders_on_one_database_send_each_message_once(database_url: str) -> None:
    create_tables(database_url)
    with receiving() as receiver:
        async with opened(database_url) as one, opened(database_url) as other:
            for owner in ("ada", "bob", "cleo"):
                for _ in range(3):
                    await one.webhook(receiver.url, owner)
                await one.tell(5, owner)
            running = [asyncio.create_task(office.sender.run()) for office in (one, other)]
            await asyncio.to_thread(receiver.wait_for, 45, 30)
            await asyncio.sleep(0.5)  # for a second one, if it were to come
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    assert len(receiver.messages) == 45
    assert len({message.id for message in receiver.messages}) == 15  # a message to three webhooks has one id


async def test_a_sender_that_slept_past_its_claim_writes_nothing(office: Office) -> None:
    with receiving() as receiver:
        webhook = await office.webhook(receiver.url)
        await office.tell()

        def taken_over() -> None:
            """While the answer is under way, another process claims the message anew."""
            database = open_database(office.database.engine.url.render_as_string(hide_password=False))
            with database.write() as session:
                session.execute(update(Delivery).values(fence=Delivery.fence + 1))
                session.commit()
            database.close()

        receiver.before = taken_over
        await office.look()
    (theirs,) = await office.deliveries(webhook)
    assert (theirs.state, theirs.fence, theirs.status) == ("sending", 2, None)


@pytest.mark.parametrize("moment", ["before the answer", "after the answer"])
async def test_a_sender_killed_between_the_message_and_its_row_sends_again_with_the_same_id(
    database_url: str, moment: str
) -> None:
    create_tables(database_url)
    async with opened(database_url, timeout_s=1) as office:
        with receiving() as receiver, sending(database_url) as process:
            webhook = await office.webhook(receiver.url)
            receiver.before = process.kill  # it has sent, and will never hear the answer
            if moment == "after the answer":
                receiver.before = partial(killed_at_the_row, process, database_url)
            await office.tell()
            (first,) = await asyncio.to_thread(receiver.wait_for, 1, 60)
            await asyncio.to_thread(process.wait, 20)
            (standing,) = await office.deliveries(webhook)
            receiver.before = lambda: None
            running = asyncio.create_task(office.sender.run())
            _, again, *others = await asyncio.to_thread(receiver.wait_for, 2, 20)
            await office.sender.settled()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        (delivered,) = await office.deliveries(webhook)
    assert (standing.state, standing.attempts, standing.status) == ("sending", 1, None)
    assert (delivered.state, delivered.attempts, others) == ("delivered", 2, [])
    assert (again.id, again.body) == (first.id, first.body)
    secret = f"whsec_{base64.b64encode(SECRET).decode()}"
    for message in (first, again):
        ForeignWebhook(secret).verify(message.body, message.headers)


def test_cancel_race_complete_one_end_is_told_by_job_stream_and_webhook(
    database_url: str, tmp_path: Path
) -> None:
    """The first job is left alone and says how long one takes; the others are cancelled near their end."""
    migrations.upgrade(database_url)
    settings: dict[str, Any] = {"auth": "off", "webhook_allow": "127.0.0.0/8"}
    with receiving() as receiver, run_service(database_url, tmp_path / "home", **settings) as service:
        house = House(service.settings)
        homes.add_digits(house, tmp_path)
        with Client(service.url) as client, service.client() as http:
            client.webhooks.create(receiver.url, ["job.succeeded", "job.failed", "job.cancelled"])
            whole_s = raced(client, http, house, None).took_s
            races = [raced(client, http, house, whole_s * part) for part in (0.4, 0.7, 0.85, 1.0)]
            receiver.wait_for(1 + len(races))
            time.sleep(1.5)  # a second message to one of them would come with the next look
            states = {race.job_id: str(client.jobs.get(race.job_id).state) for race in races}
        house.database.close()
    told = [message.said["data"] for message in receiver.messages]
    print(f"a job took {whole_s:.2f} s; cancelled near its end: {sorted(states.values())}")
    for race in races:
        assert states[race.job_id] in {"succeeded", "cancelled"}
        assert race.told_by_stream == [states[race.job_id]]
        assert [data["state"] for data in told if data["id"] == race.job_id] == [states[race.job_id]]
        assert race.answered in (200, 202, 409)


@dataclass(frozen=True)
class Race:
    """`answered` is the status of the cancel; `told_by_stream` are the ends that the event stream told."""

    job_id: str
    took_s: float
    answered: int | None
    told_by_stream: list[str]


def raced(client: Client, http: httpx2.Client, house: House, cancel_after_s: float | None) -> Race:
    """A job, trained in a thread as a worker does, and cancelled so long after it was claimed."""
    spec = {"name": "digits", "dataset": "digits", "model": homes.NET, "trainer": {"epochs": 1}}
    job = client.jobs.submit(spec)
    stream, training = Stream(http, job.id), threading.Thread(target=train_one, args=(house,))
    started = time.monotonic()
    training.start()
    answered = None
    if cancel_after_s is not None:
        time.sleep(cancel_after_s)
        answered = http.post(f"/v1/jobs/{job.id}/cancel").status_code
    training.join(60)
    took_s = time.monotonic() - started
    return Race(job.id, took_s, answered, stream.ends())


class Stream:
    """A job's event stream, read to its end in a thread."""

    def __init__(self, http: httpx2.Client, job_id: str) -> None:
        self._lines: list[str] = []
        self._reading = threading.Thread(target=self._read, args=(http, job_id))
        self._reading.start()

    def ends(self) -> list[str]:
        """The terminal states that it told."""
        self._reading.join(60)
        assert "event: end" in self._lines
        states = [line for line in self._lines if line.startswith("data: ") and '"reason"' in line]
        return [end for line in states for end in ("succeeded", "failed", "cancelled") if f'"{end}"' in line]

    def _read(self, http: httpx2.Client, job_id: str) -> None:
        accept = {"Accept": "text/event-stream"}
        with http.stream("GET", f"/v1/jobs/{job_id}/events", headers=accept) as reply:
            self._lines.extend(reply.iter_lines())


@contextlib.contextmanager
def sending(database_url: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-m", "tests.sending", database_url], cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait(20)


def killed_at_the_row(process: "subprocess.Popen[bytes]", database_url: str) -> None:
    """It hears the answer and cannot write it down, for somebody else has the row; then it is killed."""
    database = open_database(database_url)
    session = database.write()
    session.scalars(select(Delivery).with_for_update()).one()

    def kill() -> None:
        process.kill()
        process.wait(20)
        session.close()
        database.close()

    threading.Timer(0.5, kill).start()


def create_tables(database_url: str) -> None:
    database = open_database(database_url)
    Base.metadata.create_all(database.engine)
    database.close()
