"""One value means the same in a batch file of any format, its schema, a request, the registry and the router."""

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from pydantic import ValidationError

from corrector.prompts import BatchErrors, json_schema, load_batch
from corrector.prompts.search_settings import Choices
from corrector.registry.tags import cut
from corrector.settings import Settings
from corrector.values import normalised
from serving.catalogue.snapshot import Snapshot
from serving.ingress.http.body import strict_json
from serving.ingress.http.errors import ApiError
from serving.ingress.http.schema import ImagesRequest, RouteRequest
from serving.router.embedding import Embedder
from serving.router.router import Router
from tests.support.batch_files import write
from tests.support.snapshots import Registered, adapter, snapshot

ENTRY = {"exemplars": "ex/cat-running-on-the-snow", "preservation": "none"}
REFUSED = "refused"
ABSENT = "absent"

Reader = Callable[[Path, Settings, str, str], object]
"""Folder, settings, key and value as JSON -> what is read, `ABSENT`, or `REFUSED`."""

DEFAULTS = {"rank": 16, "owner": None}


def _in_batch(folder: Path, settings: Settings, name: str, text: str, key: str) -> object:
    """The value of `key` of the one prompt of a batch file; `ABSENT` for the default."""
    try:
        (entry,) = load_batch(write(folder, name, text), settings=settings).prompts
    except BatchErrors:
        return REFUSED
    value = entry.hyperparameters.rank if key == "rank" else getattr(entry, key)
    return ABSENT if value == DEFAULTS.get(key, REFUSED) else value


def _entry(key: str, written: str) -> str:
    """A prompt of a batch file as JSON."""
    others = {"prompt": "a cat", **ENTRY}
    others.pop(key, None)
    return f"{json.dumps(others)[:-1]}, {json.dumps(key)}: {written}}}"


def _yaml(folder: Path, settings: Settings, key: str, written: str) -> object:
    others = {"prompt": "a cat", **ENTRY}
    lines = [f"    {name}: {value}\n" for name, value in others.items() if name != key]
    bare = "" if written == "null" else written
    return _in_batch(folder, settings, "batch.yaml", f"prompts:\n  - {key}: {bare}\n{''.join(lines)}", key)


def _json(folder: Path, settings: Settings, key: str, written: str) -> object:
    return _in_batch(folder, settings, "batch.json", f'{{"prompts": [{_entry(key, written)}]}}', key)


def _lines(folder: Path, settings: Settings, key: str, written: str) -> object:
    return _in_batch(folder, settings, "batch.ndjson", _entry(key, written), key)


def _defaults(folder: Path, settings: Settings, key: str, written: str) -> object:
    text = f'{{"defaults": {{"rank": {written}}}, "prompts": [{json.dumps({"prompt": "a cat", **ENTRY})}]}}'
    return _in_batch(folder, settings, "batch.json", text, key)


def _table(name: str, delimiter: str) -> Reader:
    def read(folder: Path, settings: Settings, key: str, written: str) -> object:
        value = json.loads(written, parse_float=str, parse_int=str)
        cells = {"prompt": "a cat", **ENTRY, key: "" if value is None else value}
        text = io.StringIO()
        csv.writer(text, delimiter=delimiter).writerows([cells.keys(), cells.values()])
        return _in_batch(folder, settings, name, text.getvalue(), key)

    return read


def _schema(folder: Path, settings: Settings, key: str, written: str) -> object:
    """What the schema accepts is read as the JSON file is."""
    document = json.loads(f'{{"prompts": [{_entry(key, written)}]}}')
    valid = jsonschema.Draft202012Validator(json_schema()).is_valid(document)
    return _json(folder, settings, key, written) if valid else REFUSED


def _space(folder: Path, settings: Settings, key: str, written: str) -> object:
    """The first of a search's choices."""
    text = f'{{"search": {{"space": {{"rank": [{written}, 3]}}}}, "prompts": [{_entry("owner", "null")}]}}'
    try:
        space = load_batch(write(folder, "batch.json", text), settings=settings).search.space
    except BatchErrors:
        return REFUSED
    chosen = space["rank"]
    assert isinstance(chosen, Choices)
    return chosen.values[0]


def _request(folder: Path, settings: Settings, key: str, written: str) -> object:
    """A request's field of the same kind."""
    field = {"rank": "num_inference_steps", "owner": "user", "prompt": "prompt"}[key]
    others = "" if field == "prompt" else '"prompt": "a cat", '
    try:
        body = strict_json(f'{{{others}"{field}": {written}}}'.encode())
        value = getattr(ImagesRequest.model_validate(body), field)
    except (ApiError, ValidationError):
        return REFUSED
    return ABSENT if value is None else value


FILES: Mapping[str, Reader] = {
    "YAML": _yaml,
    "JSON": _json,
    "JSON Lines": _lines,
    "CSV": _table("batch.csv", ","),
    "CSV of Excel": _table("batch.csv", ";"),
    "TSV": _table("batch.tsv", "\t"),
    "JSON Schema": _schema,
}
READERS: Mapping[str, Reader] = {**FILES, "defaults": _defaults, "search": _space, "API": _request}

NUMBERS: Sequence[tuple[str, object]] = [
    ("8", 8),
    ("8.0", 8),
    ("8.000", 8),
    ("8e0", 8),
    ("3E+2", 300),
    ("80.0e-1", 8),
    ("8.5", REFUSED),
    ("-8.0", REFUSED),
    ("1e300", REFUSED),
    ("1e400", REFUSED),
    ("true", REFUSED),
    ('"eight"', REFUSED),
    ('"８"', REFUSED),
    ('"8,0"', REFUSED),
    ('"8\\u200b"', REFUSED),
    ("null", ABSENT),
]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("written", "right"), NUMBERS, ids=[written for written, _ in NUMBERS])
def test_a_number_is_the_same_wherever_it_is_written(
    folder: Path, settings: Settings, reader: str, written: str, right: object
) -> None:
    if (reader, written) == ("search", "null"):
        right = REFUSED  # an item of a list is no key that could be left out
    found = READERS[reader](folder, settings, "rank", written)

    assert (found, type(found)) == (right, type(right))


@pytest.mark.parametrize("reader", [*FILES, "API"])
@pytest.mark.parametrize(
    ("written", "right", "in_tables"),
    [
        ("null", ABSENT, ABSENT),
        ('"parks"', "parks", "parks"),
        ("8.0", REFUSED, "8.0"),
        ("true", REFUSED, "True"),
    ],
)
def test_a_text_is_text_or_absent(
    folder: Path, settings: Settings, reader: str, written: str, right: str, in_tables: str
) -> None:
    expected = in_tables if reader.startswith(("CSV", "TSV")) else right  # the cells of a table have no types

    assert READERS[reader](folder, settings, "owner", written) == expected


CAFE = "a café on snow"
SPELLINGS = {
    "composed": CAFE,
    "decomposed": unicodedata.normalize("NFD", CAFE),
    "zero-width space": "a ca\u200bfé on snow",
    "byte order mark": f"\ufeff{CAFE}",
    "soft hyphen": "a ca\u00adfé on snow",
    "direction mark": f"{CAFE}\u200e",
    "word joiner": "a\u2060 café on snow",
}
"""Spellings that nobody tells from the first."""
VARIANTS = SPELLINGS | {
    "no-break space": "a\u00a0café on snow",
    "ideographic space": "a\u3000café on snow",
    "fullwidth": "ａ ｃａｆé on snow",
    "capitals": "A CAFÉ on Snow",
    "punctuation": "a café, on snow.",
    "quotation marks": "“a café on snow”",
    "spaces": "  a   café on snow ",
}
"""Spellings of the same words."""


@pytest.mark.parametrize("reader", FILES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_texts_that_look_the_same_are_the_same(
    folder: Path, settings: Settings, reader: str, spelling: str
) -> None:
    written = json.dumps(SPELLINGS[spelling], ensure_ascii=False)

    assert FILES[reader](folder, settings, "prompt", written) == CAFE


@pytest.fixture(scope="module")
def router() -> Router:
    """A router that knows nothing yet; it does not train."""
    return Router(Snapshot(), Embedder())


@pytest.mark.parametrize("spelling", VARIANTS)
def test_the_same_words_are_one_prompt_in_batch_registry_request_and_router(
    folder: Path, settings: Settings, router: Router, spelling: str
) -> None:
    variant = VARIANTS[spelling]
    stored = _json(folder, settings, "prompt", json.dumps(variant))
    assert isinstance(stored, str)
    tag = cut(stored)
    asked = RouteRequest.model_validate(strict_json(json.dumps({"prompt": variant}).encode())).prompt
    for registered, request in ((CAFE, asked), (tag, CAFE), (tag, asked)):
        router.apply(snapshot([adapter(Registered("cafe", registered))]))
        decision = router.route(request, user="")
        assert (decision.route, decision.adapter_name) == ("exact", "cafe")
    entries = [{"prompt": each, "name": f"n{i}", **ENTRY} for i, each in enumerate((CAFE, variant))]
    with pytest.raises(BatchErrors, match="is also the prompt"):
        load_batch(write(folder, "two.json", json.dumps({"prompts": entries})), settings=settings)


few = effort(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@few
@given(number=st.integers(1, 1000), form=st.sampled_from(["{}", "{}.0", "{}.00", "{}e0", "{}0.0E-1"]))
def test_any_whole_number_is_read_alike(folder: Path, settings: Settings, number: int, form: str) -> None:
    written = form.format(number)
    right = ABSENT if number == DEFAULTS["rank"] else number

    found = {name: READERS[name](folder, settings, "rank", written) for name in (*FILES, "defaults", "API")}

    assert found == dict.fromkeys(FILES, right) | {"defaults": right, "API": number}


@few
@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_is_read_or_refused_alike(folder: Path, settings: Settings, number: float) -> None:
    found = {read(folder, settings, "rank", json.dumps(number)) for read in FILES.values()}

    assert len(found) == 1


LETTERS = "abé\u0301ß中ー,.'’“ \u00a0\u200b\u200d\u00ad\ufeffＡ！"


@few
@given(end=st.text(LETTERS, max_size=12))
def test_any_text_is_read_alike(folder: Path, settings: Settings, end: str) -> None:
    written = json.dumps(f"a cat {end}", ensure_ascii=False)

    found = {read(folder, settings, "prompt", written) for read in FILES.values()}

    assert len(found) == 1
    (stored,) = found
    assert isinstance(stored, str)
    assert stored == unicodedata.normalize("NFC", stored)
    assert normalised(stored) == normalised(f"a cat {end}")
