"""A base on the hub is pinned to a commit, fetched part by part, and refused plainly when the hub refuses."""

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from corrector.base import (
    BaseSpec,
    load_scheduler,
    load_text_encoders,
    load_transformer,
    load_vae,
    resolve_base,
)
from corrector.errors import UserError
from tests.support.hub_server import COMMIT, Hub, serving
from tests.support.original_layout import write_single_file
from tests.support.small_sd3 import transformer_inputs


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def hub(small_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(small_sd3, monkeypatch, tmp_path / "hub") as running:
        yield running


def weights(hub: Hub) -> list[str]:
    """Parts whose weights were sent."""
    return sorted({name.partition("/")[0] for name in hub.served if name.endswith(".safetensors")})


def predict(spec: BaseSpec) -> torch.Tensor:
    with torch.no_grad():
        return load_transformer(spec)(**transformer_inputs(1)).sample


def test_a_stage_downloads_only_the_parts_that_it_needs(hub: Hub, small_sd3: Path) -> None:
    spec = resolve_base("someone/sd3")
    assert (spec.revision, spec.resolution, spec.name) == (COMMIT, 16, "small-sd3")
    assert (spec.folder / "transformer" / "config.json").is_file()
    assert (spec.folder / "tokenizer" / "tokenizer_config.json").is_file()
    assert weights(hub) == []
    torch.testing.assert_close(predict(spec), predict(resolve_base(str(small_sd3))), rtol=1e-5, atol=1e-5)
    assert weights(hub) == ["transformer"]
    load_vae(spec)
    load_scheduler(spec)
    assert weights(hub) == ["transformer", "vae"]
    load_text_encoders(spec)
    assert weights(hub) == ["text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "vae"]
    assert len(hub.served) == len(set(hub.served))


def test_another_machine_fetches_for_itself(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = pickle.dumps(resolve_base("someone/sd3@main"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    spec = pickle.loads(sent)
    assert spec.folder.is_relative_to(tmp_path / "elsewhere")
    assert load_vae(spec).config.latent_channels == 4
    assert spec.revision == COMMIT


def test_what_was_fetched_serves_offline_and_what_was_not_is_named(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_transformer(resolve_base("someone/sd3"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    spec = resolve_base("someone/sd3")
    assert spec.revision == COMMIT
    load_transformer(spec)
    with pytest.raises(
        UserError, match=r"someone/sd3@0123.*: .* its vae found neither on the hub nor in its local cache"
    ):
        load_vae(spec)


def test_a_gated_repository_says_what_to_do(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token, hub.gated = "hf_right", True
    with pytest.raises(
        UserError, match=r"gated, and no token is set; accept the licence at .*/someone/sd3 and set HF"
    ):
        resolve_base("someone/sd3")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="gated, and the token's account has no access; accept the licence"):
        resolve_base("someone/sd3")
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert resolve_base("someone/sd3").revision == COMMIT


def test_access_that_ends_after_the_configurations_is_named_when_weights_are_fetched(hub: Hub) -> None:
    spec = resolve_base("someone/sd3")
    hub.token, hub.gated = "hf_right", True
    with pytest.raises(UserError, match="gated, and no token is set"):
        load_vae(spec)


def test_a_repository_that_is_private_or_not_there_says_what_to_do(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UserError, match=r"no such folder, and not found on the hub; check the name, and set HF_TOKEN"
    ):
        resolve_base("someone/else")
    with pytest.raises(UserError, match=r'has no revision "v9"; .*/someone/sd3 lists'):
        resolve_base("someone/sd3@v9")
    hub.token = "hf_right"
    with pytest.raises(UserError, match="set HF_TOKEN if it is private"):
        resolve_base("someone/sd3")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(
        UserError, match="HF_TOKEN may not read it; give the token read access to someone/sd3"
    ):
        resolve_base("someone/sd3")
    with pytest.raises(UserError, match="check that HF_TOKEN's account may read it"):
        resolve_base("someone/else")


def test_a_token_that_has_expired_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.expired = "hf_old"
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    with pytest.raises(UserError, match="the hub refuses HF_TOKEN; make a new token"):
        resolve_base("someone/sd3")


def test_a_hub_that_does_not_answer_is_named(
    small_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(small_sd3, monkeypatch, tmp_path / "hub"):
        pass
    with pytest.raises(UserError, match=r'base "someone/sd3": .*check the name and the network'):
        resolve_base("someone/sd3")


def test_a_single_file_takes_the_rest_from_the_hub(hub: Hub, small_sd3: Path, tmp_path: Path) -> None:
    file = write_single_file(small_sd3, tmp_path / "one.safetensors", vae=True)
    spec = resolve_base(f"{file}#someone/sd3@{COMMIT}")
    expected = predict(resolve_base(str(small_sd3)))
    torch.testing.assert_close(predict(spec), expected, rtol=1e-5, atol=1e-5)
    load_vae(spec)
    assert weights(hub) == []
    load_text_encoders(spec)
    assert "text_encoder_3" in weights(hub)


def test_another_pipeline_is_refused_before_its_weights_are_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.folder = Path(shutil.copytree(hub.folder, tmp_path / "flux"))
    (hub.folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(UserError, match="is a FluxPipeline; only StableDiffusion3Pipeline"):
        resolve_base("someone/sd3")
    assert weights(hub) == []
