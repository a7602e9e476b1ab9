"""Programs that measure the error rates of the gate on pictures whose truth is known."""
