"""What ``prefect.yaml`` may say: both ways to deploy make the same of it, and what one cannot do it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from data.errors import ConfigError

if TYPE_CHECKING:
    from tests.flows.conftest import Api

ROOT = Path(__file__).parents[2]
FORMS = """
deployments:
  - name: form-cron
    entrypoint: flows.pipeline.language_model
    work_pool: { name: forms }
    description: Every form that a schedule has.
    schedules:
      - { cron: "0 3 * * *", timezone: Europe/Berlin, active: false, slug: at-three }
      - { cron: "0 4 * * 1", day_or: false, parameters: { force: [train] } }
      - { interval: 3600, anchor_date: "2026-01-01T00:00:00+00:00", timezone: UTC }
      - { rrule: "FREQ=DAILY;BYHOUR=5" }
  - name: form-one
    entrypoint: flows.retrain.retrain
    work_pool: { name: forms, work_queue_name: nights }
    schedule: { interval: 86400, anchor_date: "2026-01-01T03:00:00+00:00" }
    parameters:
      config: { download: { corpus: "{{ $FORMS_CORPUS }}" }, train: { epochs: 60 } }
  - name: form-limit
    entrypoint: flows.sweep.sweep
    work_pool: { name: forms }
    tags: [heavy, "two words"]
    version: "7"
    paused: true
    enforce_parameter_schema: false
    concurrency_limit: 3
    triggers:
      - { type: event, expect: [rnnlm.model.promoted], parameters: { vary: ["train.hidden_size=64,128"] } }
  - name: form-strategy
    entrypoint: flows.retrain.rollback
    work_pool: { name: forms }
    concurrency_limit: { limit: 2, collision_strategy: CANCEL_NEW, grace_period_seconds: 120 }
"""
SAME = (
    *("flow_id", "name", "entrypoint", "description", "parameters", "tags", "version", "paused"),
    *("concurrency_options", "enforce_parameter_schema", "parameter_openapi_schema"),
)
OF_A_SCHEDULE = ("schedule", "active", "parameters", "slug")


def registered(api: Api) -> dict[str, Any]:
    """Name → what the server has of each of the deployments above, which are then removed from it."""
    found: dict[str, Any] = {}
    for one in api.ask("deployments", deployments={"name": {"like_": "form-"}}):
        limit = one["global_concurrency_limit"]
        schedules = [[entry[part] for part in OF_A_SCHEDULE] for entry in one["schedules"]]
        found[one["name"]] = {part: one[part] for part in SAME} | {
            "limit": limit and limit["limit"],
            "schedules": sorted(schedules, key=str),
            "automations": [
                (automation["trigger"]["expect"], automation["actions"][0].get("parameters"))
                for automation in api.call("GET", f"automations/related-to/prefect.deployment.{one['id']}").json()
            ],
        }
        assert api.call("DELETE", f"deployments/{one['id']}").status_code == 204
    return found


def test_both_ways_to_deploy_make_the_same_of_every_form(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.declared import deployments

    file = tmp_path / "prefect.yaml"
    file.write_text(FORMS, encoding="utf-8")
    monkeypatch.setenv("FORMS_CORPUS", "letters.txt")
    api.call("POST", "work_pools/", json={"name": "forms", "type": "process"}).raise_for_status()
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(file), "--all"]
    environment = {**os.environ, "PREFECT_API_URL": api.address, "PREFECT_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    deployed = registered(api)
    with temporary_settings({PREFECT_API_URL: api.address}):
        for deployment in deployments(file):
            deployment.apply()
    served = registered(api)
    assert sorted(deployed) == ["form-cron", "form-limit", "form-one", "form-strategy"]
    assert served == deployed
    assert served["form-one"]["parameters"]["config"]["download"]["corpus"] == "letters.txt"
    assert [active for _, active, *_ in served["form-cron"]["schedules"]].count(False) == 1
    assert len(served["form-limit"]["automations"]) == 1


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("work_pool: { name: forms, job_variables: { env: { A: b } } }", "work_pool.job_variables"),
        ("pull: [{ prefect.deployments.steps.git_clone: { repository: elsewhere } }]", "pull"),
        ("sla: [{ name: prompt, duration: 60, severity: high }]", "sla"),
        ("schedules: [{ cron: '0 3 * * *', interval: 60 }]", "schedules"),
        ("concurrency_limit: many", "concurrency_limit"),
        ("{ schedule: { interval: 60 }, schedules: [{ interval: 60 }] }", "Both 'schedule' and 'schedules'"),
        ("parameters: [", "cannot be read"),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_sentence(tmp_path: Path, said: str, meant: str) -> None:
    from flows.declared import deployments

    file = tmp_path / "prefect.yaml"
    entry = said.strip("{} ").replace("}, sch", "}\n    sch") if said.startswith("{") else said
    file.write_text(
        f"deployments:\n  - name: form\n    entrypoint: flows.retrain.rollback\n    {entry}\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=r"prefect\.yaml") as refused:
        deployments(file)
    assert meant in str(refused.value)


def test_serving_needs_a_server_that_stays(tmp_path: Path) -> None:
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "flows.serve"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("rnnlm: serving needs a server that stays")
