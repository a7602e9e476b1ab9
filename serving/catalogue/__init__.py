"""What is to be served, as the registry says: `catalogue` follows its aliases, `reading` asks it, `fitness` checks adapters
before they count, `source` delivers them. Knows no Ray, no HTTP and no drawing.
"""
