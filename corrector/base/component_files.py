"""check_component_files: whether the files of a base would load, by their headers; no weight and no PyTorch is loaded."""

from corrector.base.architecture import Architecture, UnknownArchitecture, recognise
from corrector.base.headers import read_headers, weight_files
from corrector.base.sources import EmbeddedPipeline, FolderPipeline
from corrector.base.spec import BaseSpec, components
from corrector.errors import UserError

_WITH_WEIGHTS = ("vae", "text_encoder", "text_encoder_2", "text_encoder_3")


def check_component_files(spec: BaseSpec) -> None:
    """Checks that each component of a base on this machine has its weights, whole, and the transformer its configured sizes.

    A base on the hub or in S3 is not checked: its weights need not be here. The transformer of a single file was checked
    when it was found.

    Raises:
        UserError: With the file or the component, and what is wrong with it.
    """
    if not isinstance(spec.source, EmbeddedPipeline | FolderPipeline):
        return
    present = components(spec.folder)
    for part in _WITH_WEIGHTS:
        is_elsewhere = part == "vae" and spec.single_file is not None and spec.single_file.has_vae
        if part in present and not is_elsewhere:
            read_headers(weight_files(spec.component(part)))
    if spec.single_file is None:
        _check_transformer(spec)


def _check_transformer(spec: BaseSpec) -> None:
    folder = spec.component("transformer")
    headers = read_headers(weight_files(folder))
    try:
        found, expected = recognise(headers)[1], Architecture.of_config(spec.transformer_config)
    except UnknownArchitecture as error:
        raise UserError(
            f'base "{spec.reference}": {folder} holds {error}, not the transformer of a Stable Diffusion 3'
        ) from error
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{folder / 'config.json'}: not the configuration of a Stable Diffusion 3: {error!r}"
        ) from error
    if differences := found.differences(expected):
        raise UserError(
            f'base "{spec.reference}": the weights in {folder} are not of its configuration: '
            f"{'; '.join(differences)}; file and configuration must belong together"
        )
