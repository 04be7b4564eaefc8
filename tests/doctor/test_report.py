"""All checks together."""

from __future__ import annotations

import pytest
import yaml

from edwin.doctor import Finding, Report, examine
from edwin.validate import Schemas, retrieve
from tests.test_docs import DOCS, quoted, section, table

SCHEMA = retrieve("edwin:doctor/report")
FINDING = SCHEMA["properties"]["findings"]["items"]


def written(tmp_path, **gateway):
    """Return a configuration's file, which needs nothing of the machine."""
    file = tmp_path / "edwin.yaml"
    document = {
        "gateway": {"port": 0, "stateDir": str(tmp_path / "state"), **gateway},
        "agents": {"defaults": {"model": "s/echo"}},
        "models": {"providers": {"s": {"api": "scripted"}}},
    }
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.mark.gen_test
async def test_doctor_report(tmp_path):
    """A report has all that was looked at, in the shape of its schema."""
    environ = {"HOME": str(tmp_path), "EDWIN_QQQ": "1"}
    report = await examine(written(tmp_path), environ)
    assert report.configured and report.healthy
    document = report.document()
    Schemas().check("doctor/report", document)
    assert [finding["check"] for finding in document["findings"]] == [
        *("configuration", "environment", "permissions", "store", "port"),
        *("files", "disk", "providers", "versions"),
    ]
    assert not (tmp_path / "state").exists()


@pytest.mark.gen_test
async def test_doctor_report_of_a_bad_configuration(tmp_path):
    """A configuration that cannot be used is told line by line."""
    file = written(tmp_path, prot=1, bindd="x")
    report = await examine(file, {"HOME": str(tmp_path)})
    assert not report.configured and not report.healthy
    Schemas().check("doctor/report", report.document())
    lines = [f.what for f in report.findings if f.check == "configuration"]
    assert len(lines) == 2
    assert all(line.startswith(f"{file}:") for line in lines)


def test_doctor_report_is_documented():
    """Checks and fields in the documents are those of the schema."""
    rows = table(section(DOCS["cli"], "### `edwin doctor`"))
    shown = [quoted(row[0]) for row in rows if "--" not in row[0]]
    checks = FINDING["properties"]["check"]["enum"]
    assert shown == [*checks, *FINDING["required"]]
    assert FINDING["required"] == list(Finding._fields)


@pytest.mark.parametrize(
    ("levels", "healthy"),
    [([], True), (["ok", "warning"], True), (["ok", "problem"], False)],
)
def test_doctor_report_is_healthy_without_problems(levels, healthy):
    """A warning is no problem."""
    findings = [Finding(level, "disk", "it is") for level in levels]
    assert Report(True, findings).healthy is healthy
