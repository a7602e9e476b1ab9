"""The HTTP interface: OpenAI's images API; independent of Ray and the registry.

`routes` are its paths, `images` turns a request into encoded images, `access` checks keys and limits, `http` has bodies,
errors, events and the schema, and `image_service` joins router, engines and feedback.
"""
