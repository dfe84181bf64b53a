"""Documentation that a test can check is documentation that stays true."""

from __future__ import annotations

import inspect
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from graph_ops import errors
from graph_ops.options import PruneOptions
from service.app import create_app
from service.problem_types import LIBRARY_PROBLEMS, PROBLEM_TYPES, SERVICE_PROBLEMS
from service.settings import Settings
from tests.support.server import REPOSITORY, Server

HTTP_API = (REPOSITORY / "docs" / "http-api.md").read_text()
SETTINGS = (REPOSITORY / "docs" / "settings.md").read_text()


@pytest.fixture(scope="module")
def openapi(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, object]]]:
    document: dict[str, dict[str, dict[str, object]]] = create_app(
        Settings(data_dir=tmp_path_factory.mktemp("data"))
    ).openapi()
    return document


def test_every_endpoint_is_documented(openapi: dict[str, dict[str, dict[str, object]]]) -> None:
    served = {
        f"{method.upper()} {path}" for path, item in openapi["paths"].items() for method in item
    }
    documented = set(re.findall(r"^### `(\w+ /\S*)`$", HTTP_API, re.MULTILINE))
    assert documented == served


def test_every_problem_of_the_service_is_documented_with_its_status() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", HTTP_API, re.MULTILINE))
    assert rows == {code: str(kind.status) for code, kind in SERVICE_PROBLEMS.items()}


def test_every_library_error_has_a_status() -> None:
    classes = [
        member
        for _, member in inspect.getmembers(errors, inspect.isclass)
        if issubclass(member, errors.PrunerError)
    ]
    assert {error.code for error in classes} == set(LIBRARY_PROBLEMS)
    assert not set(LIBRARY_PROBLEMS) & set(SERVICE_PROBLEMS)


def test_every_code_in_the_sources_is_known() -> None:
    """Codes are strings where they are raised; a misspelt one would only show when it happens."""
    sources = "".join(path.read_text() for path in (REPOSITORY / "service").rglob("*.py"))
    raised = set(re.findall(r'(?:Problem|ChildFailure)\(\s*"(\w+)"', sources))
    raised |= set(re.findall(r'code="(\w+)"', sources))
    assert len(raised) > 25
    assert raised <= set(PROBLEM_TYPES)


def test_every_setting_is_documented_with_its_default() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\S.*?) \| (.+) \|$", SETTINGS, re.MULTILINE)
    expected = [
        (
            name.upper(),
            "not set" if field.default is None else f"`{field.default}`",
            " ".join((field.description or "").split()),
        )
        for name, field in Settings.model_fields.items()
    ]
    assert rows == expected


def test_every_problem_can_be_looked_up(server: Server) -> None:
    listed = {kind["code"]: kind for kind in server.client.get("/problems").json()}
    assert set(listed) == set(PROBLEM_TYPES)
    for code, kind in listed.items():
        assert server.client.get(f"/problems/{code}").json() == kind


def test_the_options_schema_is_the_one_of_the_library(server: Server) -> None:
    assert server.client.get("/v1/options/schema").json() == PruneOptions.model_json_schema()


def test_openapi_resolves_its_references(server: Server) -> None:
    response = server.client.get("/openapi.json")
    document = response.json()
    references = set(re.findall(r'"\$ref":\s*"#/components/schemas/([^"]+)"', response.text))
    assert references <= set(document["components"]["schemas"])
    prune = document["paths"]["/v1/prune"]["post"]
    form = prune["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {
        *("model", "bundle", "options", "metadata", "model_id", "bundle_id")
    }
    assert {"200", "202", "default"} <= set(prune["responses"])


def test_the_page_of_the_api_needs_no_other_host(server: Server) -> None:
    page = server.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    links = _Links()
    links.feed(page.text)
    assert links.found
    for link in links.found:
        assert link.startswith("/"), link
        assert not link.startswith("//"), link
        assert server.client.get(link).status_code == 200, link


def test_the_page_script_asks_no_other_host() -> None:
    script = (REPOSITORY / "service" / "web" / "docs.js").read_text()
    assert not re.search(r"https?:", script)
    assert "validatorUrl: null" in script


class _Links(HTMLParser):
    """Everything a page loads or leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


def test_every_module_of_the_service_says_what_it_is_for() -> None:
    for path in sorted(Path(REPOSITORY / "service").rglob("*.py")):
        assert path.read_text().startswith('"""'), path
