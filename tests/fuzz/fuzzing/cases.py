"""Case number *n* of seed *s*: always the same."""

from __future__ import annotations

import random
from dataclasses import replace

from fuzzing.case import Case
from fuzzing.commands import command_case
from fuzzing.data_sets import Base, data_set_case, series_case
from fuzzing.handshakes import handshake_case
from fuzzing.pdus import pdu_case
from fuzzing.requests import request_case

SERIES_EVERY = 200
"""A series that goes all the way costs a job."""
HANDSHAKES, OVER_TLS = 0.08, 0.2
"""Shares of the cases: handshakes that are wrong, and wrong DICOM behind right ones."""


def make_case(seed: int, number: int, right: Base) -> Case:
    """Make a case."""
    chance = random.Random(f"{seed}/{number}")
    if chance.random() < HANDSHAKES:
        return handshake_case(chance)
    return replace(_dicom_case(chance, number, right), way="TLS" if chance.random() < OVER_TLS else "plain")


def _dicom_case(chance: random.Random, number: int, right: Base) -> Case:
    if number % SERIES_EVERY == SERIES_EVERY // 2:
        return series_case(chance, right, number)
    match chance.choices(("request", "pdu", "command", "data set"), (35, 25, 20, 20))[0]:
        case "request":
            return request_case(chance)
        case "pdu":
            return pdu_case(chance)
        case "command":
            return command_case(chance)
        case _:
            return data_set_case(chance, right, number)
