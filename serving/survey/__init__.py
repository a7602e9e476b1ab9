"""The page on which people compare pairs of images: FastAPI, without Ray."""
