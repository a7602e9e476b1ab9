"""Which adapter, if any, a prompt goes through. Knows no Ray, no registry, no HTTP and no drawing."""
