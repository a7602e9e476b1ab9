"""Make the embedded base from nothing: `python -m tests.world.train --out DIR --export DIR`.

The stages leave checkpoints in the `--out` folder and are taken up again from them. With `--no-training`,
`--export` writes what the checkpoints hold so far.
"""

import argparse
import logging
from pathlib import Path

from tests.world.export import export
from tests.world.transformer_stage import cache_latents, train_transformer
from tests.world.vae_stage import train_vae


def main() -> None:
    """Run the stages in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and cached latents")
    parser.add_argument("--export", type=Path, help="write the pipeline to this folder at the end")
    parser.add_argument("--no-training", action="store_true", help="only export what the checkpoints hold")
    parser.add_argument("--vae-steps", type=int, default=2400, help="steps of the autoencoder")
    parser.add_argument(
        "--steps", type=int, default=5300, help="steps of the transformer; may change on resuming"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if not options.no_training:
        train_vae(options.out, options.vae_steps, seed=options.seed)
        cache_latents(options.out)
        train_transformer(options.out, options.steps, seed=options.seed)
    if options.export is not None:
        export(options.out, options.export)


if __name__ == "__main__":
    main()
