"""The Celery app, its queues and `wake`. No task bodies: those are the workers' own.

A message is a hint without an id: "somebody in this pool may look". The database says what there is
to do, so a lost hint is repeated by the sweep and one too many finds nothing to claim.
"""

from urllib.parse import urlsplit

from celery import Celery
from kombu.exceptions import OperationalError

from core.settings import Settings

#: So many hints wait for a pool at most: where nobody takes them, one more says nothing new. They don't
#: expire by a time: that would be the sender's clock against the receiver's.
MAX_HINTS = 256

WAKE = "modelyard.wake"


def make_celery(settings: Settings) -> Celery:
    app = Celery("modelyard", broker=kombu_url(settings.resolved_broker_url()))
    app.conf.update(
        # One id-less task; a worker serves the queue of its pool.
        task_default_queue="cpu",
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        # Early ack: a task of hours with a late ack is redelivered at the visibility timeout.
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        task_publish_retry=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=5,
        broker_transport_options={
            "global_keyprefix": "modelyard:",
            "socket_timeout": 5,
            "socket_connect_timeout": 5,
            # Who waits for a message on a connection that no packet passes any more notices after twice this.
            "health_check_interval": 15,
            "retry_on_timeout": False,
            # A wake-up that cannot be sent fails at once: whoever sends it tries again.
            "max_retries": 1,
            "interval_start": 0,
        },
    )
    return app


def kombu_url(url: str) -> str:
    """`unix:///path` as Redis writes it is `redis+socket:///path` to kombu."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"redis+socket://{parts.path}" + (f"?{parts.query}" if parts.query else "")
    if parts.scheme in {"redis", "rediss", "redis+socket"}:
        return url
    raise ValueError(f"MODELYARD_BROKER_URL: expected redis://, rediss:// or unix://, got {parts.scheme}://")


def wake(app: Celery, pool: str) -> None:
    """Sends one hint to a pool. Blocks up to the socket timeout; raises kombu's OperationalError when
    the broker is away, which the caller answers by trying again at the next sweep."""
    with app.producer_or_acquire() as producer:
        connection = producer.connection
        try:
            if producer.channel.client.llen(pool) < MAX_HINTS:
                app.send_task(WAKE, queue=pool, ignore_result=True, producer=producer)
        except (*connection.recoverable_connection_errors, *connection.recoverable_channel_errors) as error:
            raise OperationalError(str(error)) from error
