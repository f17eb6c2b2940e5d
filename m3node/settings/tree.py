"""The whole tree, and where its values come from."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from m3node.errors import ConfigError
from m3node.settings.audit import AuditSettings
from m3node.settings.delivery import DeliverySettings, Destination, RoutingRule
from m3node.settings.intake import (
    CompletenessSettings,
    EligibilitySettings,
    ListenerSettings,
    PriorityRule,
    SelectionSettings,
    WatchSettings,
)
from m3node.settings.jobs import DiskSettings, JobSettings, LogSettings, RetentionSettings
from m3node.settings.method import DetectorSettings, LiverSettings, M3Settings, ResultSettings
from m3node.settings.web import WebSettings


class Settings(BaseSettings):
    """The whole tree.

    Environment variables are ``M3NODE_SECTION__KEY``, for example ``M3NODE_LISTENER__PORT=11113``; lists and
    tables are JSON.

    Attributes
    ----------
    database_url : SecretStr
        SQLAlchemy URL of the jobs' and the ledger's database: ``postgresql://user:password@host/name``. SQLite files
        below the data folder without one.
    database_url_file : Path or None
        A file that holds it instead.
    """

    model_config = SettingsConfigDict(env_prefix="M3NODE_", env_nested_delimiter="__", extra="forbid", frozen=True)

    data_dir: Path = Path("m3node-data")
    database_url: SecretStr = SecretStr("")
    database_url_file: Path | None = None
    listener: ListenerSettings = ListenerSettings()
    completeness: CompletenessSettings = CompletenessSettings()
    eligibility: EligibilitySettings = EligibilitySettings()
    selection: SelectionSettings = SelectionSettings()
    priority: tuple[PriorityRule, ...] = ()
    liver: LiverSettings = LiverSettings()
    m3: M3Settings = M3Settings()
    detector: DetectorSettings = DetectorSettings()
    results: ResultSettings = ResultSettings()
    destinations: tuple[Destination, ...] = ()
    routing: tuple[RoutingRule, ...] = ()
    delivery: DeliverySettings = DeliverySettings()
    watch: WatchSettings = WatchSettings()
    jobs: JobSettings = JobSettings()
    retention: RetentionSettings = RetentionSettings()
    disk: DiskSettings = DiskSettings()
    log: LogSettings = LogSettings()
    audit: AuditSettings = AuditSettings()
    web: WebSettings = WebSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags (the constructor's arguments) over the environment over the TOML file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [destination.name for destination in self.destinations]
        if len(set(names)) != len(names):
            raise ValueError("two destinations have the same name")
        named = {name for rule in self.routing for name in rule.destinations}
        named |= {caller.return_to for caller in self.listener.callers if caller.return_to}
        if unknown := sorted(named - set(names)):
            raise ValueError(f"there is no destination {', '.join(unknown)}, which routing or return_to names")
        title = self.delivery.calling_ae_title or self.listener.ae_title
        if title != self.listener.ae_title and any(destination.commitment for destination in self.destinations):
            # A peer reports to the title that asked it, and the listener answers to its own only.
            raise ValueError(
                "a destination with commitment reports to the title that asks: delivery.calling_ae_title is "
                "listener.ae_title there, or not set"
            )
        if self.database_url.get_secret_value() and self.database_url_file is not None:
            raise ValueError("database_url and database_url_file are both set; keep one of them")
        titles = [caller.ae_title for caller in self.listener.callers]
        if len(set(titles)) != len(titles):
            raise ValueError("listener.callers names one AE title twice")
        if (self.watch.folder is None) != (self.watch.out is None):
            raise ValueError("watch.folder and watch.out are set together")
        return self


def config_file(path: Path | None) -> Path | None:
    """Return the settings file: the one given, else the one that ``M3NODE_CONFIG`` names; None without either."""
    named = os.environ.get("M3NODE_CONFIG")
    return path if path is not None or not named else Path(named)


def load(path: Path | None = None, flags: dict[str, Any] | None = None) -> Settings:
    """Read the settings.

    Parameters
    ----------
    path : Path, optional
        TOML file; ``M3NODE_CONFIG`` names it otherwise; without either only defaults and environment.
    flags : dict, optional
        Command-line flags as dotted keys, for example ``{"detector.name": "contrast"}``.

    Raises
    ------
    ConfigError
        The file is missing or not TOML, a key is unknown or a value is wrong; every problem is named.
    """
    path = config_file(path)
    if path is not None:
        _check_toml(path)
    _check_environment()

    class _FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        return _FromFile(**_nested(flags or {}))
    except SettingsError as error:
        raise ConfigError(f"wrong settings: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'settings'}: {item['msg']}" for item in error.errors()
        )
        where = f" in {path}" if path else ""
        raise ConfigError(f"wrong settings{where}: {problems}") from error


def _check_toml(path: Path) -> None:
    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {path} is not valid TOML: {error}") from error


def _check_environment() -> None:
    known = {f"M3NODE_{name.upper()}" for name in Settings.model_fields} | {"M3NODE_CONFIG"}
    for variable in os.environ:
        name = variable.upper()
        if name.startswith("M3NODE_TEST_") or not name.startswith("M3NODE_"):
            continue
        if name.split("__", maxsplit=1)[0] not in known:
            raise ConfigError(f"the environment variable {variable} names no setting; see m3node config check")


def _nested(flags: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for dotted, value in flags.items():
        *parents, leaf = dotted.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree
