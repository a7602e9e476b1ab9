"""The routed endpoint: images over HTTP, prompts with an approved correction get it, all others get the base.

`ingress` speaks OpenAI's images API, `router` decides which adapter a prompt goes through, `engine` draws with many adapters
in one denoising batch, `catalogue` follows the registry, and `app` puts them on Ray Serve. Only `app` and `deployments` know
Ray.
"""
