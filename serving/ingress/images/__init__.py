"""From an images request to encoded images: parameters, generation, safety filter, file formats, events."""
