"""Where exemplars come from: a folder, an archive, a dataset folder, S3, or the web.

`load_source` reads what a batch file names. What is no plain folder is first resolved to one in the cache, keyed by
its content.
"""

from corrector.exemplars.sources.cache import ResolvedSource
from corrector.exemplars.sources.limits import SourceLimits
from corrector.exemplars.sources.resolving import load_source, resolve_source

__all__ = ["ResolvedSource", "SourceLimits", "load_source", "resolve_source"]
