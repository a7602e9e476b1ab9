"""Request bodies, answers, errors, server-sent events and the OpenAPI schema."""
