"""The adapters to serve, according to the model registry; independent of Ray, HTTP and the engine's loop.

`catalogue` polls the registry's aliases, `registry_client` reads it, `adapter_check` refuses adapters that no engine can
use, `version_lookup` finds versions without an alias, and a `snapshot` is the result.
"""
