"""The conformance statement is what the node does: its tables are made from the code, and one that differs fails."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from attended import GEOMETRIES, built, findings_of, series
from documents import network
from documents.created import KINDS, REPORTS
from documents.markers import blocks, filled
from documents.nested import inside
from m3node.delivery.status import Verdict
from m3node.intake.receive.admission import Refusal, admission_of
from m3node.intake.receive.contexts import SOPClass
from m3node.intake.receive.peer import Peer
from m3node.results.objects import ObjectKind
from m3node.settings import Caller, ListenerSettings, ListenerTls, Settings
from m3node.tls.contexts import TLS12_SUITES, TLS13_SUITES
from write_documents import CONFORMANCE, made_tables

TEXT = CONFORMANCE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return made_tables(tmp_path_factory.mktemp("documents"))


def rows(block: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]]


def test_every_generated_table_is_in_the_statement_and_as_the_code_makes_it(made: dict[str, str]) -> None:
    written = blocks(TEXT)
    assert written.keys() == made.keys()
    stale = [name for name in made if written[name] != made[name]]
    assert stale == [], "renew them with: python tests/write_documents.py --write"


def test_a_class_that_is_accepted_anew_makes_the_statement_stale(
    made: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mr = SOPClass("MR Image Storage", "1.2.840.10008.5.1.4.1.1.4", "analysed", network.UNCOMPRESSED)
    monkeypatch.setattr(network, "SOP_CLASSES", (*network.SOP_CLASSES, mr))
    monkeypatch.setattr("m3node.intake.receive.contexts.STORAGE", (mr,))
    now = network.network_tables([])
    assert "MR Image Storage" in now["services"]
    assert "MR Image Storage" in now["provider-contexts"]
    assert "CT Image Storage" not in now["provider-contexts"]


def test_a_status_that_is_judged_otherwise_makes_the_statement_stale(
    made: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "STORE_MEANINGS", ((0xA700, 0xA7FF, Verdict.REFUSED, "out of resources"),))
    now = network.network_tables([])
    assert now["store-statuses"] != made["store-statuses"]
    assert ["out of resources", "`0xA7xx`", "set aside"] in rows(now["store-statuses"])


def test_what_is_written_by_hand_outlives_a_renewal(made: dict[str, str]) -> None:
    services, codes = (f"<!-- generated: {name} -->\n{{}}<!-- end -->\n" for name in ("services", "codes"))
    text = f"before\n{services}between\n{codes}end\n".format("old\n", "")
    renewed = filled(text, made)
    assert blocks(renewed) == {name: made[name] for name in ("services", "codes")}
    assert filled(renewed, {"services": "old\n", "codes": ""}) == text
    with pytest.raises(KeyError, match="nobody-makes-it"):
        filled("<!-- generated: nobody-makes-it -->\n<!-- end -->\n", made)


def test_the_statement_has_the_sections_of_the_template_in_order() -> None:
    headings = re.findall(r"^## (.*)$", TEXT, flags=re.MULTILINE)
    assert headings == [
        "1 Overview",
        "2 Introduction",
        "3 Networking",
        "4 Media interchange",
        "5 Character sets",
        "6 Security",
        "7 Not supported",
        "Annex A: created SOP instances",
        "Annex B: coded concepts",
    ]


def test_the_statement_names_every_rejection_of_a_caller() -> None:
    door = admission_of(Settings(listener=ListenerSettings(callers=(Caller(ae_title="PACS"),))))
    peer = Peer("10.1.2.3")
    refused = [
        door.admit(calling="PACS", called="OTHER", peer=peer),
        door.admit(calling="STRANGER", called="M3NODE", peer=peer),
    ]
    said = set(re.findall(r"^\| (\d, \d, \d) \|", TEXT, flags=re.MULTILINE))
    given = {f"{item.result}, {item.source}, {item.reason}" for item in refused if isinstance(item, Refusal)}
    assert given == {"1, 1, 7", "1, 1, 3"}
    assert given | {"2, 3, 1", "2, 3, 2"} == said


@pytest.fixture(scope="module")
def other_objects(tmp_path_factory: pytest.TempPathFactory) -> dict[ObjectKind, Dataset]:
    """Of a series that the tables were not made from."""
    folder = tmp_path_factory.mktemp("others")
    manifest = series(folder, GEOMETRIES["turned table"])
    return built(findings_of(manifest), manifest, folder)


@pytest.mark.parametrize("kind", KINDS)
def test_no_object_has_an_attribute_or_a_fixed_value_that_the_statement_lacks(
    kind: ObjectKind, other_objects: dict[ObjectKind, Dataset], made: dict[str, str]
) -> None:
    ds = other_objects[kind]
    listed = {
        row[1].strip("`"): row for name in ("created-shared", f"created-{kind.value}") for row in rows(made[name])
    }
    assert [str(element.tag) for element in ds if str(element.tag) not in listed] == []
    assert [
        name
        for tag, (name, _, _, _, _, presence, *_) in listed.items()
        if presence == "ALWAYS" and not ds.get(tag_of(tag))
    ] == []
    fixed = {tag: row[6].strip("`") for tag, row in listed.items() if row[7] == "FIXED" and row[6].startswith("`")}
    assert len(fixed) > 5
    assert {tag: str(ds[tag_of(tag)].value) for tag in fixed} == fixed


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in REPORTS])
def test_no_sequence_of_an_object_holds_what_the_statement_lacks(
    kind: ObjectKind, other_objects: dict[ObjectKind, Dataset], made: dict[str, str]
) -> None:
    listed = [row for name in ("inside-shared", f"inside-{kind.value}") for row in rows(made[name])]
    found = rows(inside([other_objects[kind]]))
    assert {tuple(row[:3]) for row in found} <= {tuple(row[:3]) for row in listed}
    always = {(row[0], row[1], row[4]) for row in listed if re.fullmatch(r"`[^`]+`|\([^()]+\)", row[4])}
    assert len(always) >= 2
    assert always <= {(row[0], row[1], row[4]) for row in found}


def tag_of(text: str) -> tuple[int, int]:
    group, element = text.strip("()").split(",")
    return int(group, 16), int(element, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_every_attribute_of_an_object_has_its_module_and_type(kind: ObjectKind, made: dict[str, str]) -> None:
    own = rows(made[f"created-{kind.value}"]) + rows(made["created-shared"])
    assert [row[0] for row in own if row[3] == "–" or row[4] not in ("1", "1C", "2", "2C", "3")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_standard_requires_is_in_every_object(kind: ObjectKind, made: dict[str, str]) -> None:
    own = rows(made[f"created-{kind.value}"]) + rows(made["created-shared"])
    presence = {(row[0], row[4]): row[5] for row in own}
    assert [name for (name, type_), shown in presence.items() if type_ == "1" and shown != "ALWAYS"] == []
    assert [name for (name, type_), shown in presence.items() if type_ == "2" and shown == "ANAP"] == []
    assert sum(type_ == "1" for _, type_ in presence) > 5


def test_patient_and_study_come_from_the_source_and_from_nowhere_else(made: dict[str, str]) -> None:
    origin = {
        row[0]: row[7]
        for row in rows(made["created-shared"])
        if row[3] in ("patient", "general study", "patient study")
    }
    assert {"Patient's Name", "Patient ID", "Accession Number", "Study Instance UID"} <= origin.keys()
    assert set(origin.values()) == {"SRC"}


def test_the_statement_names_the_profile_of_tls_and_every_setting_of_it() -> None:
    security = TEXT.partition("\n## 6 Security")[2].partition("\n## 7 ")[0]
    assert "BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile" in security
    settings = ListenerTls.model_fields
    assert [name for name in settings if f"`listener.tls.{name}`" not in security and f"`{name}`" not in security] == []


def test_the_suites_are_named_as_the_registry_has_them(made: dict[str, str]) -> None:
    named = {name.strip("`") for _, name in rows(made["tls-suites"])}
    assert {
        "TLS_AES_128_GCM_SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    } <= named
    assert len(named) == len(TLS12_SUITES) + len(TLS13_SUITES)


def test_the_statement_links_to_documents_that_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)", TEXT)
    assert "ihe-air.md" in targets
    assert [target for target in targets if not (Path(CONFORMANCE).parent / target).exists()] == []
