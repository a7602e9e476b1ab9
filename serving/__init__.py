"""The routed endpoint: images over HTTP, prompts with an approved correction get it, all others get the base.

`ingress` speaks OpenAI's images API, `router` decides which adapter a prompt goes through, `engine` draws with many
adapters in one denoising batch, and `catalogue` follows the registry. `app` and `ray_serve` put them on Ray Serve;
only these two, `edge` and `__main__` depend on Ray.
"""
