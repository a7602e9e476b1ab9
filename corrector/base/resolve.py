"""resolve_base: the BaseSpec of a reference that a user wrote."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

from corrector.base.architecture import (
    Architecture,
    UnknownArchitecture,
    holds_vae,
    published_pipeline,
    recognise,
)
from corrector.base.headers import PICKLES, read_headers
from corrector.base.revision import file_revision
from corrector.base.sources import (
    CheckpointSource,
    EmbeddedPipeline,
    FolderPipeline,
    HubPipeline,
    LocalCheckpoint,
    PipelineSource,
    S3Checkpoint,
    S3Pipeline,
)
from corrector.base.spec import BaseSpec, Precision, SingleFile, json_object, read_pipeline
from corrector.errors import UserError
from corrector.s3 import is_s3_url

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.-]+)?")
_SINGLE_FILE = re.compile(r"(?P<file>.+\.safetensors)(#(?P<pipeline>.*))?")
_EXPECTED = (
    'expected "embedded", a folder with a Stable Diffusion 3 pipeline, a hub id such as '
    "stabilityai/stable-diffusion-3.5-medium, FILE.safetensors#PIPELINE, or either in S3 (s3://bucket/...)"
)


def resolve_base(reference: str, *, precision: Precision = "auto") -> BaseSpec:
    """Finds the base that ``reference`` names and reads its settings; its weights only for the revision.

    A reference is one of:

    - ``embedded``: the base inside this package;
    - a folder that ``StableDiffusion3Pipeline.save_pretrained`` wrote, on disk or in S3 (``s3://bucket/prefix``);
    - a hub id, ``owner/name`` or ``owner/name@revision``;
    - ``FILE.safetensors#PIPELINE``, on disk or in S3: a transformer in one file, in Stability's layout (perhaps with the
      VAE) or in diffusers'. Other components come from PIPELINE, one of the references above; without it, from the
      published pipeline of the same sizes.

    Settings come from ``base.json`` beside ``model_index.json``; without it they are SD3's. Raises :class:`UserError` where
    there is no such base, it is not a complete Stable Diffusion 3, or file and pipeline do not fit together.
    """
    spec = find_base(reference, precision=precision)
    return replace(spec, revision=_revision(spec))


def find_base(reference: str, *, precision: Precision = "auto") -> BaseSpec:
    """As :func:`resolve_base`, without the revision, for which all weights on this machine would be read."""
    if precision not in get_args(Precision):
        raise UserError(f'precision "{precision}": unknown; expected one of {", ".join(get_args(Precision))}')
    if Path(reference.partition("#")[0]).suffix in PICKLES and not Path(reference).is_dir():
        raise UserError(
            f'base "{reference}": a pickle can run any code and is never loaded; convert it to safetensors'
        )
    written = _SINGLE_FILE.fullmatch(reference)
    if written and not Path(reference).is_dir():
        return _single_file(reference, written["file"], written["pipeline"], precision)
    return _pipeline(reference, precision)


def _revision(spec: BaseSpec) -> str:
    pipeline = spec.source.revision
    if spec.single_file is None:
        return pipeline
    file = file_revision(spec.single_file.source.path)
    return hashlib.sha256(f"{file}\0{pipeline}".encode()).hexdigest()


def _pipeline(reference: str, precision: Precision) -> BaseSpec:
    source = _pipeline_source(reference)
    return read_pipeline(reference, source, name=_name(reference, source), precision=precision)


def _name(reference: str, source: PipelineSource) -> str:
    """The name of a base whose ``base.json`` has none."""
    if isinstance(source, FolderPipeline):
        return source.path.resolve().name
    return reference.partition("@")[0].rstrip("/")


def _pipeline_source(reference: str) -> PipelineSource:
    if reference == "embedded":
        return EmbeddedPipeline()
    if is_s3_url(reference):
        return S3Pipeline.find(reference)
    folder = _path(reference)
    if not folder.exists() and _HUB_ID.fullmatch(reference):
        return HubPipeline.find(reference)
    if not (folder / "model_index.json").is_file():
        raise UserError(f'base "{reference}": {folder} has no model_index.json; {_EXPECTED}')
    return FolderPipeline(folder.absolute())


def _single_file(reference: str, file: str, pipeline: str | None, precision: Precision) -> BaseSpec:
    if is_s3_url(file):
        source: CheckpointSource = S3Checkpoint.find(file)
    elif _path(file).is_file():
        source = LocalCheckpoint(_path(file).absolute())
    else:
        raise UserError(f'base "{reference}": there is no file {_path(file)}; {_EXPECTED}')
    headers = read_headers([source.path])
    try:
        layout, architecture = recognise(headers)
    except UnknownArchitecture as error:
        raise UserError(
            f'base "{reference}": {file} is {error}; only transformers of Stable Diffusion 3 and 3.5 are supported'
        ) from error
    pipeline = published_pipeline(architecture) if pipeline is None else pipeline
    if not pipeline:
        raise UserError(
            f'base "{reference}": no published pipeline has {architecture}; name the one that has the text encoders, '
            f"as in {file}#PIPELINE"
        )
    rest = _pipeline(pipeline, precision)
    _check_same(reference, architecture, rest)
    return replace(
        rest,
        reference=reference,
        single_file=SingleFile(source, layout, holds_vae(headers)),
        name=Path(file).stem,
    )


def _check_same(reference: str, found: Architecture, rest: BaseSpec) -> None:
    config = rest.folder / "transformer" / "config.json"
    try:
        expected = Architecture.of_config(json_object(config))
    except (KeyError, TypeError) as error:
        raise UserError(f"{config}: not the configuration of a Stable Diffusion 3: {error!r}") from error
    differences = found.differences(expected)
    if differences:
        raise UserError(
            f'base "{reference}": its transformer is not that of {rest.reference}: {"; ".join(differences)}; '
            "name the pipeline that the file was made for after #"
        )


def _path(written: str) -> Path:
    return Path(written).expanduser() if written.startswith("~/") else Path(written)
