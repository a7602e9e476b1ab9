"""The HTTP interface: OpenAI's images API; knows no Ray and no registry.

`routes` are its paths, `images` turns a request into encoded images, `access` checks keys and limits around every request,
`http` holds bodies, errors, events and the schema, and `image_service` joins router, engines and feedback.
"""
