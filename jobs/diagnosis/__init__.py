"""Finds which prompts the base fails at: reads the list, draws on the cluster, judges in the driver, writes the results."""
