"""What an endpoint is made of: the file for `serve deploy`, the environment, and mistakes in either."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ServeDeploySchema

from corrector.errors import UserError
from serving import app
from serving.__main__ import main
from serving.app import build
from serving.settings import ServingSettings
from tests.support.paths import PROJECT


def test_the_configuration_in_the_repository_is_one_that_ray_serve_and_the_application_take() -> None:
    written = yaml.safe_load((PROJECT / "serving" / "config.yaml").read_text())
    config = ServeDeploySchema.model_validate(written)
    (application,) = config.applications
    assert application.import_path == "serving.app:build"
    settings = ServingSettings.model_validate(application.args)
    assert settings.engines.most == 4
    built = call_user_app_builder_with_args_if_necessary(vars(app)["build"], dict(application.args))
    assert built is not None


@pytest.mark.parametrize(
    ("mistake", "where"),
    [
        ({"bas": "embedded"}, "bas"),
        ({"engine": {"slot": 4}}, "engine.slot"),
        ({"router": {"ambiguity": -1}}, "router.ambiguity"),
        ({"engine": {"slots": 4}}, "engine"),
        ({"ingress": {"max_timeout": 1}}, "ingress"),
    ],
)
def test_a_mistake_is_told_with_its_place_before_anything_starts(
    mistake: dict[str, object], where: str
) -> None:
    with pytest.raises(ValidationError) as error:
        call_user_app_builder_with_args_if_necessary(vars(app)["build"], mistake)
    assert [".".join(map(str, each["loc"])) for each in error.value.errors()] == [where]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--alias=gpt-image-1=", 'model_aliases: "gpt-image-1" stands for ""'),
        ("--cors-origin=app.example", 'cors_origins: "app.example" is no origin'),
    ],
)
def test_a_mistake_in_an_option_is_told_before_anything_starts(
    option: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--port=0", option]) == 2
    assert capsys.readouterr().err.startswith(f"serving: {message}")


def test_a_base_that_is_none_is_refused_before_anything_starts() -> None:
    with pytest.raises(UserError, match="nowhere"):
        build(ServingSettings(base="./nowhere"))


def test_places_are_those_of_the_environment_in_which_it_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("CORRECTOR_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path / "cache"))
    found = ServingSettings().located()
    assert found.tracking_uri == "http://mlflow:5000"
    assert found.registry_root == tmp_path / "runs" / "registry"
    assert found.ingress.feedback == str(tmp_path / "runs" / "feedback")
    assert found.engine.cache is not None and found.engine.cache.is_relative_to(tmp_path / "cache")
    own = ServingSettings(tracking_uri="sqlite:///mine.db", registry_root=tmp_path / "other").located()
    assert (own.tracking_uri, own.registry_root) == ("sqlite:///mine.db", tmp_path / "other")


def test_a_replica_that_draws_nothing_does_not_import_what_draws() -> None:
    of_feedback = "import sys, serving.ray_serve.deployments, corrector.feedback; print(*sys.modules)"
    of_ingress = "import serving.ray_serve.clients, serving.ingress.app; print(*sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", f"{of_feedback}; {of_ingress}"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    feedback, ingress = (set(line.split()) for line in printed.stdout.splitlines())
    assert "serving.ray_serve.deployments" in feedback and "serving.ingress.app" in ingress
    assert not {"torch", "diffusers", "transformers"} & feedback
    assert "diffusers" not in ingress


def test_calls_of_the_catalogue_are_not_bounded_by_ray_serves_default() -> None:
    ingress = build(ServingSettings())._bound_deployment
    bound = {
        each._bound_deployment.name: each._bound_deployment
        for each in ingress.init_args
        if hasattr(each, "_bound_deployment")
    }
    assert bound["catalogue"].max_ongoing_requests >= 1000
    assert bound["feedback"].ray_actor_options["resources"] == {"node:__internal_head__": 0.001}
