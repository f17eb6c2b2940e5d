"""The page for tests: its application on a data folder, asked without a socket, and what a browser would make of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lxml import html
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from starlette.testclient import TestClient

from m3node.settings import Settings
from m3node.web.app import make_app
from m3node.web.site import Site

HERE = "http://127.0.0.1:11180"
BROWSER = {"Accept": "text/html,application/xhtml+xml"}
FROM_HERE = {"Origin": HERE, "Sec-Fetch-Site": "same-origin"}

Tree = html.HtmlElement


@contextmanager
def opened_site(settings: Settings) -> Iterator[tuple[Site, TestClient]]:
    """A page's application and a browser in front of it."""
    site = Site(settings)
    try:
        yield site, TestClient(make_app(site), base_url=HERE, headers=BROWSER, raise_server_exceptions=False)
    finally:
        site.close()


@contextmanager
def browsing(settings: Settings) -> Iterator[TestClient]:
    """A browser in front of a page."""
    with opened_site(settings) as (_, client):
        yield client


def tree_of(text: str) -> Tree:
    """A page as a browser reads it."""
    return html.document_fromstring(text)


def shown(client: TestClient, address: str, status: int = 200) -> Tree:
    """Ask for a page, which must be there."""
    answer = client.get(address)
    assert answer.status_code == status, (address, answer.status_code, answer.text[:500])
    return tree_of(answer.text)


def words_of(tree: Tree) -> str:
    """What a person reads, in one line."""
    return re.sub(r"\s+", " ", tree.text_content()).strip()


def token_on(client: TestClient, address: str) -> str:
    """The token of the forms of a page."""
    tokens = set(shown(client, address).xpath("//input[@name='token']/@value"))
    assert len(tokens) == 1, (address, tokens)
    return str(tokens.pop())


def press(client: TestClient, page: str, button: str, within: str = "//main") -> Tree:
    """Press a button as a browser does, and return the page that comes then."""
    (form,) = [
        form
        for form in shown(client, page).xpath(f"{within}//form[@method='post']")
        if words_of(form.xpath(".//button")[0]) == button
    ]
    fields = {item.get("name"): item.get("value") for item in form.xpath(".//input")}
    answer = client.post(form.get("action"), data=fields, headers=FROM_HERE)
    assert answer.status_code == 200, (answer.status_code, answer.text[:500])
    return tree_of(answer.text)


def write_received(folder: Path, study: str, **values: str) -> Path:
    """Put an instance into a spool whose patient and study are so."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    meta.MediaStorageSOPInstanceUID = UID(f"{study}.9.9")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = Dataset()
    ds.file_meta = meta
    ds.SpecificCharacterSet = values.pop("SpecificCharacterSet", "ISO_IR 192")
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, f"{study}.9"
    for name, value in values.items():
        vr = dictionary_VR(name)
        ds.add(DataElement(name, vr, value, validation_mode=IGNORE))
    path = folder / study / f"{study}.9" / f"{study}.9.9.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path
