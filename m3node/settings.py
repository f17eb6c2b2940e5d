"""One typed tree of settings: defaults, then a TOML file, then ``M3NODE_*``, then flags; a wrong key is an error."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from m3node.errors import ConfigError

AETitle = Annotated[str, StringConstraints(pattern=r"^[ -\[\]-~]{1,16}$", strip_whitespace=True)]
"""One to sixteen printable ASCII characters without a backslash (PS3.5 6.2, AE)."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""A name that also names a folder."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Port = Annotated[int, Field(ge=0, le=65535)]


def _compiles(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return value


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A regular expression."""


class Section(BaseModel):
    """A part of the tree: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Caller(Section):
    """An AE title that may open associations.

    Attributes
    ----------
    quiet_seconds : float or None
        Overrides ``completeness.quiet_seconds`` for stacks from this sender.
    wait_for_seg_seconds : float
        How long a complete stack from this sender waits for a SEG with a liver.
    """

    ae_title: AETitle
    quiet_seconds: Positive | None = None
    wait_for_seg_seconds: Annotated[float, Field(ge=0.0)] = 0.0


class ListenerSettings(Section):
    """The C-STORE listener.

    Attributes
    ----------
    host : str
        Address to bind; the default is reached from this machine only.
    callers : tuple of Caller
        Who may call; nobody by default.
    receivers : int
        Receiver processes.
    max_associations : int
        Open associations in all; one more is rejected as transient.
    maximum_pdu_size : int
        Bytes; 128 KiB is what makes receiving fast.
    idle_seconds : float
        An association without traffic for so long is aborted.
    durable : bool
        fdatasync and folder fsync before 0x0000. False only for measuring.
    """

    ae_title: AETitle = "M3NODE"
    host: str = "127.0.0.1"
    port: Port = 11112
    callers: tuple[Caller, ...] = ()
    receivers: Annotated[int, Field(ge=1, le=64)] = 4
    max_associations: Annotated[int, Field(ge=1)] = 50
    maximum_pdu_size: Annotated[int, Field(ge=4096)] = 131072
    idle_seconds: Positive = 60.0
    durable: bool = True


class CompletenessSettings(Section):
    """When a stack is complete."""

    quiet_seconds: Positive = 10.0
    late_seg_makes_generation: bool = False


class EligibilitySettings(Section):
    """What geometry is fit for the method."""

    min_slices: Annotated[int, Field(ge=1)] = 8
    max_normal_angle_degrees: Positive = 5.0
    max_stacking_angle_degrees: Positive = 1.0
    spacing_tolerance: Fraction = 0.05


class SelectionRule(Section):
    """Accepts or refuses stacks; the first rule that matches decides, and without a match a stack is accepted.

    Attributes
    ----------
    kernel, description, sender : str
        Regular expressions, searched without regard to case; empty matches everything.
    min_thickness_mm, max_thickness_mm : float or None
        Bounds on the slice thickness.
    """

    action: Literal["accept", "refuse"]
    kernel: Pattern = ""
    description: Pattern = ""
    sender: Pattern = ""
    min_thickness_mm: Positive | None = None
    max_thickness_mm: Positive | None = None


class SelectionSettings(Section):
    """Which of the fit stacks are processed."""

    rules: tuple[SelectionRule, ...] = ()
    unmatched: Literal["accept", "refuse"] = "accept"


class LiverSettings(Section):
    """Where the liver region comes from, and how far its envelope reaches."""

    use_received_seg: bool = True
    envelope_closing_mm: Positive = 15.0
    envelope_dilation_mm: Positive = 5.0
    min_volume_ml: Positive = 30.0


class M3Settings(Section):
    """The method (multi-crop, multi-scale NMS, linking).

    Attributes
    ----------
    paddings : tuple of float
        Fraction of the envelope's box added on each side, one crop each.
    min_envelope_overlap : float
        Share of a box that must lie in the envelope.
    nms_iou : float
        Boxes that overlap more are one finding.
    link_gap_mm : float
        Largest gap along the stack that a lesion may bridge.
    min_votes : int
        Views that must agree on a slice's box.
    min_diameter_mm : float
        Smaller findings are dropped.
    max_unreadable : float
        Share of views whose answer may be unreadable before the report says "incomplete", with or without lesions.
    """

    paddings: Annotated[tuple[Annotated[float, Field(ge=0.0, le=2.0)], ...], Field(min_length=1)] = (
        0.10,
        0.15,
        0.20,
    )
    min_envelope_overlap: Fraction = 0.15
    nms_iou: Fraction = 0.5
    link_gap_mm: Annotated[float, Field(ge=0.0)] = 6.0
    min_votes: Annotated[int, Field(ge=1)] = 1
    min_diameter_mm: Positive = 5.0
    max_unreadable: Fraction = 0.05


class ContrastSettings(Section):
    """The embedded detector."""

    hyperdense: bool = False


class DetectorSettings(Section):
    """Which detector looks, and its own settings."""

    name: str = "contrast"
    contrast: ContrastSettings = ContrastSettings()


class ResultSettings(Section):
    """What is built.

    Attributes
    ----------
    series_number_base : int
        Series Number of the first result series.
    station_name : str
        Station Name (0008,1010) of the results; none when empty.
    """

    series_number_base: Annotated[int, Field(ge=1, le=99_000)] = 9100
    station_name: Annotated[str, StringConstraints(max_length=16)] = ""


class Destination(Section):
    """A C-STORE peer that results are sent to.

    Attributes
    ----------
    sr : str
        ``comprehensive3d``, or ``enhanced`` for an archive that does not know Comprehensive 3D SR.
    """

    name: Name
    ae_title: AETitle
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    sr: Literal["comprehensive3d", "enhanced"] = "comprehensive3d"


class DeliverySettings(Section):
    """How results are sent."""

    calling_ae_title: AETitle | None = None
    connect_seconds: Positive = 10.0
    response_seconds: Positive = 30.0
    retry_first_seconds: Positive = 2.0
    retry_max_seconds: Positive = 300.0


class WatchSettings(Section):
    """The watched folder.

    Attributes
    ----------
    folder : Path or None
        What is dropped here is processed; off when not set.
    out : Path or None
        Where results appear; needed with ``folder``.
    settle_seconds : float
        An entry is taken when it has not changed for so long (NFS and SMB send no events).
    """

    folder: Path | None = None
    out: Path | None = None
    settle_seconds: Positive = 5.0
    max_unpacked_bytes: Annotated[int, Field(gt=0)] = 20 * 1024**3
    max_members: Annotated[int, Field(gt=0)] = 100_000


class LogSettings(Section):
    """Logging."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Settings(BaseSettings):
    """The whole tree.

    Environment variables are ``M3NODE_SECTION__KEY``, for example ``M3NODE_LISTENER__PORT=11113``; lists and
    tables are JSON.
    """

    model_config = SettingsConfigDict(env_prefix="M3NODE_", env_nested_delimiter="__", extra="forbid", frozen=True)

    data_dir: Path = Path("m3node-data")
    listener: ListenerSettings = ListenerSettings()
    completeness: CompletenessSettings = CompletenessSettings()
    eligibility: EligibilitySettings = EligibilitySettings()
    selection: SelectionSettings = SelectionSettings()
    liver: LiverSettings = LiverSettings()
    m3: M3Settings = M3Settings()
    detector: DetectorSettings = DetectorSettings()
    results: ResultSettings = ResultSettings()
    destinations: tuple[Destination, ...] = ()
    delivery: DeliverySettings = DeliverySettings()
    watch: WatchSettings = WatchSettings()
    log: LogSettings = LogSettings()

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
        titles = [caller.ae_title for caller in self.listener.callers]
        if len(set(titles)) != len(titles):
            raise ValueError("listener.callers names one AE title twice")
        if (self.watch.folder is None) != (self.watch.out is None):
            raise ValueError("watch.folder and watch.out are set together")
        return self


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
    if path is None and os.environ.get("M3NODE_CONFIG"):
        path = Path(os.environ["M3NODE_CONFIG"])
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
