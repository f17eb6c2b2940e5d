"""Dockerfiles as their instructions, and our rules about them: what hadolint would say, and a little more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE", re.IGNORECASE)


@dataclass
class Stage:
    """One ``FROM`` and what follows, as (instruction, rest of the line) with continued lines joined."""

    image: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The instructions, without comments."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        word, _, rest = line.strip().partition(" ")
        yield word.upper(), re.sub(r"\s+", " ", rest).strip()


def stages(text: str) -> tuple[dict[str, str], list[Stage]]:
    """The arguments before the first stage with their defaults, and the stages with the images put in."""
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for word, rest in instructions(text):
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            for argument, default in arguments.items():
                image = image.replace(f"${{{argument}}}", default)
            found.append(Stage(image, name))
        elif not found:
            assert word == "ARG", f"{word} before the first FROM"
            name, _, default = rest.partition("=")
            arguments[name] = default
        else:
            found[-1].steps.append((word, rest))
    return arguments, found


def history(stage: Stage, all_stages: list[Stage]) -> list[tuple[str, str]]:
    """All steps of a stage, those of the stages that it is built on included."""
    below = next((other for other in all_stages if other.name == stage.image), None)
    return [*(history(below, all_stages) if below else []), *stage.steps]


def violations(text: str, targets: tuple[str, ...]) -> list[str]:
    """What is wrong with a Dockerfile; ``targets`` are the stages that run."""
    _, found = stages(text)
    names = {stage.name for stage in found}
    wrong = []
    for stage in found:
        if stage.image not in names and not re.search(r":[^:/]*\d+\.\d+|@sha256:", stage.image):
            wrong.append(f"{stage.name}: the image {stage.image} is not pinned")
        wrong += [f"{stage.name}: {problem}" for word, rest in stage.steps for problem in step_violations(word, rest)]
    for name in targets:
        steps = history(next(stage for stage in found if stage.name == name), found)
        users = [rest.split(":")[0] for word, rest in steps if word == "USER"]
        if not users or users[-1] in {"root", "0"} or not users[-1].isdigit():
            wrong.append(f"{name}: runs as root, or as a user whose number an orchestrator cannot see")
        words = {word for word, _ in steps}
        wrong += [f"{name}: no {word}" for word in ("HEALTHCHECK", "STOPSIGNAL", "LABEL") if word not in words]
        wrong += [
            f"{name}: a shell stands before the process, which gets no signal"
            for word, rest in steps
            if word in {"ENTRYPOINT", "CMD"} and not rest.startswith("[")
        ]
        installed = " ".join(rest for word, rest in steps if word == "RUN")
        wrong += [
            f"{name}: {tool} in what runs"
            for tool in ("gcc", "build-essential", "python3-venv", "python3-pip", "git", "curl", "wget", "sudo")
            if re.search(rf"\b{tool}\b", installed)
        ]
    return wrong


def step_violations(word: str, rest: str) -> Iterator[str]:
    """What is wrong with one instruction."""
    if word == "ADD":
        yield "ADD fetches and unpacks in silence; COPY does neither"
    if word in {"ENV", "ARG"}:
        names = re.findall(r"(\w+)=", rest) or [rest.partition(" ")[0]]
        yield from (f"a secret in {word} {name}" for name in names if SECRET.search(name))
    if word == "RUN" and "apt-get install" in rest:
        if "--no-install-recommends" not in rest:
            yield "apt-get install without --no-install-recommends"
        if "rm -rf /var/lib/apt/lists/*" not in rest:
            yield "apt's lists stay in the layer"
        if "apt-get update" not in rest:
            yield "apt-get install without update in the same layer"
    if word == "RUN" and re.search(r"\b(curl|wget)\b.*\|\s*(ba)?sh\b|\bsudo\b|apt-get (dist-)?upgrade", rest):
        yield f"not to be done in an image: {rest}"
