"""A batch file may come from anyone: whatever it holds, it is loaded or refused, quickly and without harm."""

import json
import os
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from corrector.prompts import BatchError, BatchErrors, load_batch
from corrector.prompts.loading import MAX_BYTES, SUFFIXES
from corrector.settings import Settings
from tests.support.batch_files import ENTRY, mistakes, only, write

KEYS = ["prompts", "defaults", "base", "gate", "prompt", "exemplars", "rank", "guard_prompts", "<<"]
FRAGMENTS = [
    *(f"{key}: " for key in KEYS),
    *(f'"{key}": ' for key in KEYS),
    *",:-?|>&*!%@`'\"[]{}#~\t\n\r",
    *(
        "- ",
        "\n  ",
        "\n    - ",
        "&a ",
        "*a",
        "!!python/name:os ",
        "--- ",
        "...",
        "%YAML 9",
        "\\u0000",
        "\\ud800",
    ),
    *(
        "null",
        "true",
        "1e999",
        "-0",
        "0x",
        "9" * 400,
        ".nan",
        "a person",
        "exemplars/lying",
        "a.csv",
        "é",
        "😀",
    ),
    *("\ufeff", "\x00", "\x85", "\u2028", "prompt,exemplars\n"),
]


def check(folder: Path, suffix: str, content: bytes) -> None:
    """Load a file with this content; only mistakes may be raised."""
    path = folder / f"fuzzed{suffix}"
    path.write_bytes(content)
    environment = Settings(cache=folder, storage=str(folder), tracking_uri=None, exemplar_roots=())
    found: list[BatchError] | None = None
    try:
        load_batch(path, settings=environment)
    except BatchErrors as raised:
        found = raised.errors
    if found is not None:
        assert found
        assert all(error.message and "\n" not in str(error) for error in found)


fuzzing = effort(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@fuzzing
@given(suffix=st.sampled_from(SUFFIXES), text=st.text(max_size=200))
@example(suffix=".yaml", text='a: "\\UFFFFFFFF"')
@example(suffix=".yaml", text="%YAML 1." + "9" * 5000 + "\n---\na")
@example(suffix=".json", text="[" * 5000)
@example(suffix=".json", text="9" * 5000)
@example(suffix=".json", text='{"prompts": [{"prompt": "\\ud800", "exemplars": "\\ud800"}], "\\udfff": 1}')
def test_arbitrary_text_is_loaded_or_refused(folder: Path, suffix: str, text: str) -> None:
    check(folder, suffix, text.encode("utf-8", "surrogatepass"))


@fuzzing
@given(suffix=st.sampled_from(SUFFIXES), parts=st.lists(st.sampled_from(FRAGMENTS), max_size=40))
def test_shuffled_pieces_of_batch_files_are_loaded_or_refused(
    folder: Path, suffix: str, parts: list[str]
) -> None:
    check(folder, suffix, "".join(parts).encode())


@fuzzing
@given(suffix=st.sampled_from(SUFFIXES), content=st.binary(max_size=200))
def test_arbitrary_bytes_are_loaded_or_refused(folder: Path, suffix: str, content: bytes) -> None:
    check(folder, suffix, content)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner)
    ),
    max_leaves=8,
)
entries = st.dictionaries(
    st.sampled_from(["prompt", "exemplars", "rank", "guard_prompts", "paraphrases", "name", "steps"]), values
)


@fuzzing
@given(entries=st.lists(entries, max_size=3), defaults=values)
def test_wrong_values_in_the_right_places_are_refused(
    folder: Path, entries: list[dict[str, object]], defaults: object
) -> None:
    content = json.dumps({"prompts": entries, "defaults": defaults}).encode()
    check(folder, ".json", content)
    check(folder, ".yaml", content)


def test_a_file_of_aliases_that_would_grow_without_bound_is_refused(folder: Path, settings: Settings) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]

    error = only(mistakes(folder, "batch.yaml", "\n".join(lines), settings))

    assert error.line == 6
    assert "1,000,000 values" in error.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompts: &a [*a]\n", "stands inside what it names"),
        ("prompts: *a\n", "no anchor &a before this alias"),
        (
            "prompts: !!python/object/apply:os.system [touch harm]\n",
            '"!!python/object/apply:os.system" is not',
        ),
        ("prompts: !!int 3\n", "is not supported; remove it"),
        ("prompts: " + "[" * 40 + "]" * 40, "nested more than 16 levels deep"),
        ("? [a]\n: b\n", "a key must be text"),
        ("prompts: []\nbase: \x1b[31m\n", "an invisible control character, U+001B"),
    ],
)
def test_yaml_that_is_more_than_data_is_refused(
    folder: Path, settings: Settings, text: str, message: str
) -> None:
    assert message in only(mistakes(folder, "batch.yaml", text, settings)).message
    assert not (folder / "harm").exists()


def test_merge_keys_are_unknown_keys(folder: Path, settings: Settings) -> None:
    text = "prompts:\n" + ENTRY + "    <<: {rank: 8}\n"

    error = only(mistakes(folder, "batch.yaml", text, settings))

    assert (error.line, error.field) == (5, '"<<"')


def test_a_file_too_large_or_with_too_many_mistakes_is_given_up(folder: Path, settings: Settings) -> None:
    error = only(mistakes(folder, "batch.json", b" " * (MAX_BYTES + 1), settings))
    assert "larger than 4 MiB" in error.message

    errors = mistakes(folder, "batch.jsonl", "[]\n" * 5000, settings)
    assert len(errors) == 1001
    assert "1000 mistakes; reading ends here" in errors[-1].message


def test_messages_cannot_write_to_the_terminal(folder: Path, settings: Settings) -> None:
    escape = "\\u001b[2J\\u202e"
    text = (
        f'{{"{escape}": 1, "base": "{escape}", "prompts": [{{"prompt": "a", "exemplars": "x{escape}", '
        f'"name": "{escape}", "preservation": "{escape}", "{escape}": 2}}, '
        '{"prompt": "b", "exemplars": "y\\u202e"}]}'
    )

    errors = mistakes(folder, "batch.json", text, settings)

    assert {"base", "exemplars", "name", "preservation"} <= {error.field for error in errors}
    assert all(character.isprintable() for error in errors for character in str(error))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with an image, beside the batch file's folder."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.png").write_bytes(b"")
    return tmp_path / "elsewhere"


def load_with(folder: Path, exemplars: str, settings: Settings) -> str | None:
    """The one mistake in a batch file with these exemplars, or None."""
    text = f"prompts:\n  - {{prompt: a, exemplars: '{exemplars}', preservation: none}}\n"
    try:
        load_batch(write(folder, "batch.yaml", text), settings=settings)
    except BatchErrors as errors:
        return only(errors.errors).message
    return None


def test_exemplars_lie_beside_the_batch_file_or_where_the_environment_allows(
    folder: Path, outside: Path, settings: Settings
) -> None:
    (folder / "link").symlink_to(outside)
    allowed = Settings(cache=folder, storage=str(folder), tracking_uri=None, exemplar_roots=(outside.parent,))
    for exemplars in ("../elsewhere", str(outside), "link", "exemplars/../../elsewhere"):
        refusal = load_with(folder, exemplars, settings)
        assert refusal is not None
        assert "leads outside of" in refusal
        assert "CORRECTOR_EXEMPLAR_ROOTS" in refusal
        assert load_with(folder, exemplars, allowed) is None
    assert load_with(folder, str(folder / "exemplars" / "lying"), settings) is None
    assert load_with(folder, "exemplars/empty/../lying", settings) is None


def test_odd_exemplar_paths_are_refused(folder: Path, settings: Settings) -> None:
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    (folder / "hidden").mkdir()
    (folder / "hidden" / ".1.png").write_bytes(b"")
    assert "address" in (load_with(folder, "ftp://example.org/images", settings) or "")
    assert "~ is not expanded" in (load_with(folder, "~/images", settings) or "")
    assert load_with(folder, "loop", settings) is not None
    assert "not a folder" in (load_with(folder, "pipe", settings) or "")
    assert "no images" in (load_with(folder, "hidden", settings) or "")
    assert "cannot be read" in (load_with(folder, "x" * 300, settings) or "")


@pytest.mark.parametrize(
    "address",
    [
        "s3://bucket",
        "s3://bucket/lying/",
        "s3://bucket/lying.zip",
        "https://example.org/a.zip?X-Signature=secret",
    ],
)
def test_addresses_of_exemplars_are_accepted_and_not_connected_to(
    address: str, folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", None)
    assert load_with(folder, address, settings) is None


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("https://me:secret@example.org/a.zip", "do not belong in a batch file"),
        ("s3://key:secret@bucket/a", "do not belong in a batch file"),
        ("http://example.org/a.zip?X=secret", "CORRECTOR_ALLOW_PRIVATE_URLS=1"),
        ("s3:///a", "is no S3 URL"),
        ("s3://bucket/a?X=secret", "is no S3 URL"),
        ("s3://bucket/a.tar.zst", "an archive of a kind that is not read"),
        ("https:///a.zip?X=secret", "is no URL"),
        ("https://[::1/a.zip?X=secret", "is no URL"),
        ("https://example.org:port/a.zip?X=secret", "is no URL"),
        ("https://exämple.org/a.zip?X=secret", "is no URL"),
        ("https://example.org/a.zip?…", "whose query was not recorded; write the whole URL"),
        ("hf://datasets/someone/lying", "is an address that is not read"),
    ],
)
def test_odd_addresses_are_refused_without_a_word_of_their_credentials(
    address: str, reason: str, folder: Path, settings: Settings
) -> None:
    told = load_with(folder, address, settings)
    assert told is not None
    assert reason in told
    assert "secret" not in told


def test_archives_are_checked_by_name_only(folder: Path, settings: Settings) -> None:
    for name in ("lying.zip", "lying.TAR", "lying.tar.gz", "lying.tgz", "lying.tar.zst", "lying.rar"):
        (folder / name).write_bytes(b"never opened here")
    for name in ("lying.zip", "lying.TAR", "lying.tar.gz", "lying.tgz"):
        assert load_with(folder, name, settings) is None
    for name in ("lying.tar.zst", "lying.rar"):
        assert "not read; pack it as .zip or .tar.gz" in (load_with(folder, name, settings) or "")
    assert "no folder" in (load_with(folder, "missing.zip", settings) or "")
    assert "leads outside of" in (load_with(folder, "../lying.zip", settings) or "")


def test_a_folder_may_have_its_images_in_folders(folder: Path, settings: Settings) -> None:
    (folder / "dataset" / "train").mkdir(parents=True)
    assert "no images" in (load_with(folder, "dataset", settings) or "")
    (folder / "dataset" / "train" / "1.png").write_bytes(b"never opened here")
    assert load_with(folder, "dataset", settings) is None
