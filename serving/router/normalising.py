"""normalised: removes differences of case, spacing, punctuation and Unicode form from prompts."""

import unicodedata


def normalised(prompt: str) -> str:
    """The prompt's words: NFKC, without case and punctuation; the prompt itself where that leaves nothing."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", prompt).casefold())
    # An apostrophe joins, all other punctuation separates: "dog's" is "dogs", "cat,dog" is two words.
    text = text.replace("’", "'").replace("'", "")
    spaced = "".join(" " if unicodedata.category(character)[0] in "PCZ" else character for character in text)
    return " ".join(spaced.split()) or text
