"""Decides which adapter a prompt goes through; knows no Ray, no registry, no HTTP and no drawing."""
