"""Which adapters are served, as the model registry says; knows no Ray, no HTTP and no drawing.

`catalogue` polls the registry's aliases, `registry_client` reads it, `adapter_check` refuses adapters that no engine could
use, `version_lookup` finds versions without an alias, and a `snapshot` is the result.
"""
