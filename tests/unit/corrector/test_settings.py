"""Environment settings: defaults, what variables change, and what they may not say."""

import os
from pathlib import Path

import pytest

from corrector.errors import UserError
from corrector.settings import Settings


def test_without_variables_the_usual_places_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")

    settings = Settings.from_environment({})

    assert settings.cache == Path("/home/someone/.cache/corrector")
    assert settings.storage == str(tmp_path / "runs")
    assert settings.tracking_uri is None
    assert settings.exemplar_roots == (tmp_path,)


def test_variables_decide_and_empty_ones_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environment(
        {
            "CORRECTOR_CACHE": "cache",
            "CORRECTOR_RUNS": "",
            "XDG_CACHE_HOME": "/elsewhere",
            "MLFLOW_TRACKING_URI": "https://mlflow.example.org",
            "CORRECTOR_EXEMPLAR_ROOTS": f"/mnt/exemplars{os.pathsep}more{os.pathsep}",
        }
    )

    assert settings.cache == tmp_path / "cache"
    assert settings.storage == str(tmp_path / "runs")
    assert settings.tracking_uri == "https://mlflow.example.org"
    assert settings.exemplar_roots == (Path("/mnt/exemplars"), tmp_path / "more")
    assert Settings.from_environment({"XDG_CACHE_HOME": "/x"}).cache == Path("/x/corrector")


def test_the_process_environment_is_read_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRECTOR_RUNS", str(tmp_path / "first"))
    assert Settings.from_environment().storage == str(tmp_path / "first")
    monkeypatch.setenv("CORRECTOR_RUNS", str(tmp_path / "second"))
    assert Settings.from_environment().storage == str(tmp_path / "second")


def test_started_at_the_root_the_whole_disk_is_not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert Settings.from_environment({}).exemplar_roots == ()


def test_a_file_where_a_folder_belongs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"CORRECTOR_CACHE: .* is a file; name a folder"):
        Settings.from_environment({"CORRECTOR_CACHE": str(tmp_path / "file")})


def test_a_missing_home_folder_says_what_to_set() -> None:
    with pytest.raises(UserError, match="set CORRECTOR_RUNS to a whole path"):
        Settings.from_environment({"CORRECTOR_RUNS": "~nobody-of-this-name/runs"})


def test_a_password_in_the_tracking_address_is_not_shown() -> None:
    settings = Settings.from_environment({"MLFLOW_TRACKING_URI": "https://me:secret@example.org"})
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "attribute", "default"),
    [
        ("CORRECTOR_IMAGE_CACHE_GIB", "image_cache_bytes", 32),
        ("CORRECTOR_EXEMPLAR_CACHE_GIB", "exemplar_cache_bytes", 16),
    ],
)
def test_the_size_of_a_cache_is_a_number_of_gib(variable: str, attribute: str, default: int) -> None:
    assert getattr(Settings.from_environment({variable: "0.5"}), attribute) == 2**29
    assert getattr(Settings.from_environment({}), attribute) == default * 2**30
    for wrong in ("much", "-1", "inf"):
        with pytest.raises(UserError, match=f'{variable}: "{wrong}" is no size; give a number of GiB'):
            Settings.from_environment({variable: wrong})


def test_a_price_is_a_number_of_dollars() -> None:
    variable = "CORRECTOR_DEVICE_HOUR_DOLLARS"
    assert Settings.from_environment({variable: "2.5"}).device_hour_dollars == 2.5
    assert Settings.from_environment({variable: ""}).device_hour_dollars is None
    for wrong in ("much", "-1", "nan"):
        with pytest.raises(UserError, match=f'{variable}: "{wrong}" is no price'):
            Settings.from_environment({variable: wrong})


def test_private_urls_are_allowed_by_1_only() -> None:
    variable = "CORRECTOR_ALLOW_PRIVATE_URLS"
    assert [
        Settings.from_environment({variable: written}).allow_private_urls for written in ("", "0", "1")
    ] == [
        False,
        False,
        True,
    ]
    with pytest.raises(UserError, match=f'{variable}: "yes" is neither 0 nor 1'):
        Settings.from_environment({variable: "yes"})
