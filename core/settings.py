"""One settings object, read from `MODELYARD_*`. Every process receives it; nobody reads the environment."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024


class Settings(BaseSettings):
    """`database_url`, `broker_url`, `storage_url` left out mean the embedded parts under `home`."""

    model_config = SettingsConfigDict(env_prefix="MODELYARD_", extra="ignore", frozen=True)

    home: Path = Field(
        default=Path("~/.modelyard"), description="database, artifacts, socket, logs, admin key"
    )
    host: str = Field(default="127.0.0.1", description="address the service binds")
    port: int = Field(default=8000, ge=0, le=65535, description="port the service binds; 0 takes a free one")
    insecure: bool = Field(default=False, description="allow auth=off on an address other than loopback")
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="loopback port on which /metrics needs no key; 0 takes a free one",
    )
    auth: Literal["on", "off"] = Field(default="on", description="off: no keys, on loopback only")

    allowed_hosts: str = Field(
        default="", description="names beside its own under which the service is reached, by commas"
    )
    trusted_proxies: str = Field(
        default="", description="addresses or networks whose X-Forwarded-For is believed, by commas"
    )
    requests_per_s: float = Field(
        default=10_000, ge=0, description="requests a key may make, in the long run; 0: any number"
    )
    requests_burst: int = Field(default=20_000, ge=1, description="requests a key may make at once")
    wrong_keys_per_s: float = Field(
        default=20, gt=0, description="wrong keys that a client's address may show, in the long run"
    )
    max_in_flight: int = Field(
        default=4000, ge=1, description="requests answered at once, event streams among them"
    )
    max_queued: int = Field(
        default=10_000, ge=1, description="jobs and batch predictions of an owner that wait"
    )
    max_uploads: int = Field(default=1000, ge=1, description="uploads in pieces that an owner may have")
    max_keys: int = Field(default=1000, ge=1, description="keys of an owner that work")

    database_url: str | None = Field(default=None, description="postgresql://… or sqlite:///…")
    broker_url: str | None = Field(default=None, description="redis://… or unix://…")
    storage_url: str | None = Field(default=None, description="file:///… or s3://bucket/prefix")

    pool: Literal["cpu", "gpu", "data"] = Field(default="cpu", description="which queue a worker serves")
    slots: int = Field(default=1, ge=1, le=256, description="jobs a worker runs at once")

    lease_s: float = Field(
        default=60, gt=0, description="a running job whose beat has not moved for so long is lost"
    )
    beat_s: float = Field(default=10, gt=0, description="a supervisor beats at least this often")
    sweep_s: float = Field(
        default=10, gt=0, description="how often the service looks for lost leases and unwoken jobs"
    )
    max_losses: int = Field(
        default=3, ge=1, description="lost workers or children without a checkpoint between, then failed"
    )
    stall_s: float = Field(
        default=1800, gt=0, description="a training that says nothing for so long is ended as stalled"
    )
    retry_backoff_s: float = Field(
        default=10, ge=0, description="wait after the first loss; doubles with each"
    )

    max_upload_bytes: int = Field(default=20 * 1024 * MIB, gt=0, description="largest dataset upload")
    max_owner_bytes: int = Field(
        default=200 * 1024 * MIB, gt=0, description="bytes of uploads and datasets that one owner may keep"
    )
    min_free_bytes: int = Field(
        default=512 * MIB, ge=0, description="uploads stop while the disk has less free"
    )
    chunk_timeout_s: float = Field(
        default=30, gt=0, description="an upload that sends nothing for so long is cut"
    )
    packed_cache_bytes: int = Field(
        default=20 * 1024 * MIB, ge=0, description="decoded images a worker's machine keeps between jobs"
    )
    ingest_memory_bytes: int = Field(
        default=4096 * MIB, gt=0, description="address space of the ingest process"
    )
    ingest_timeout_s: float = Field(
        default=3600, gt=0, description="seconds the ingest process may take, of CPU and of the clock"
    )
    fetch_timeout_s: float = Field(
        default=4 * 3600, gt=0, description="seconds that fetching a dataset of torchvision may take"
    )
    dataset_mirror: str | None = Field(
        default=None, description="base URL that takes the place of torchvision's own; its bytes are trusted"
    )
    plan_max_parameters: int = Field(
        default=2_000_000_000, gt=0, description="largest net a spec may describe"
    )
    plan_processes: int = Field(default=2, ge=1, le=64, description="specs checked at once")
    plan_deadline_s: float = Field(
        default=1.8, gt=0, description="a spec that takes longer to check is refused"
    )
    plan_memory_bytes: int = Field(
        default=1024 * MIB, gt=0, description="address space a check may take beyond what torch has taken"
    )
    compare_deadline_s: float = Field(
        default=60, gt=0, description="two versions that take longer to be measured are not compared"
    )
    explain_deadline_s: float = Field(
        default=30, gt=0, description="seconds that explaining the rows of one request may take"
    )
    explain_memory_bytes: int = Field(
        default=2048 * MIB,
        gt=0,
        description="address space an explanation may take beyond what torch has taken",
    )
    export_deadline_s: float = Field(
        default=120, gt=0, description="an export of weights that takes longer is ended"
    )
    export_memory_bytes: int = Field(
        default=8192 * MIB, gt=0, description="address space an export may take beyond what torch has taken"
    )
    plugins: str = Field(
        default="",
        description="packages whose layers, transforms and losses a spec may name, by commas; or all",
    )
    webhook_allow: str = Field(
        default="",
        description="networks and hosts that webhooks may reach beside public addresses, by commas",
    )
    webhook_timeout_s: float = Field(
        default=15, gt=0, le=300, description="a webhook's receiver answers within so long"
    )
    model_cache_bytes: int = Field(
        default=2048 * MIB, gt=0, description="bytes of loaded models kept by the predictor"
    )
    inference_processes: int = Field(
        default=0, ge=0, le=64, description="processes that compute predictions; 0: the service itself does"
    )
    inference_deadline_s: float = Field(
        default=60, gt=0, description="a forward that takes longer costs its inference process its life"
    )
    inference_load_deadline_s: float = Field(
        default=300, gt=0, description="loading a model that takes longer does the same"
    )
    tensorboard: Literal["on", "off"] = Field(
        default="on", description="off: jobs write no event files for TensorBoard"
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level logged"
    )
    log_format: Literal["json", "console"] = Field(default="json", description="how a log line looks")

    def resolved_home(self) -> Path:
        return self.home.expanduser().absolute()

    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.resolved_home() / 'modelyard.db'}"

    def resolved_broker_url(self) -> str:
        """The embedded broker's socket. A unix socket's path may have 107 bytes at most, so a long home
        gets its socket in the user's runtime folder; `deploy.local` exports the URL it chose."""
        return self.broker_url or f"unix://{self.resolved_home() / 'broker.sock'}"

    def resolved_storage_url(self) -> str:
        return self.storage_url or f"file://{self.resolved_home() / 'artifacts'}"

    def packed_cache(self) -> Path:
        return self.scratch() / "packed"

    def scratch(self) -> Path:
        """Local working files: spools of uploads, checkpoints being written, the packed cache. On the
        same file system as local storage, so that adopting a file is a rename."""
        return self.resolved_home() / "scratch"

    def cpu_threads(self) -> int:
        """Threads of one training child."""
        return max(1, (os.cpu_count() or 1) // self.slots)


def settings_or_exit() -> Settings:
    """The settings of this environment. Raises SystemExit that names each one that can't be meant."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = (
            f"modelyard: MODELYARD_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}, "
            f"got {fault['input']!r}"
            for fault in error.errors()
        )
        raise SystemExit("\n".join(wrong)) from None
