"""The routed endpoint: images over HTTP; prompts with an approved correction use its adapter, all others the base.

`ingress` implements OpenAI's images API, `router` selects the adapter for a prompt, `engine` draws with many adapters in
one denoising batch, and `catalogue` polls the registry. `app` and `ray_serve` run them on Ray Serve; only these two,
`edge` and `__main__` depend on Ray.
"""
