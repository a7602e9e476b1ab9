"""HTTP: OpenAI's images API over any `Service` that can route and draw, and a page to try it.

Knows no Ray and no registry: `service` says what it needs, `local` meets that within one process, `app` puts it together.
"""
