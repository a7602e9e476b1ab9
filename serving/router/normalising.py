"""What two prompts share that differ only in case, spacing, punctuation and Unicode's ways to write the same letter."""

import unicodedata


def normalised(prompt: str) -> str:
    """The prompt's words: NFKC, without case and punctuation; the prompt itself where that leaves nothing."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", prompt).casefold())
    # An apostrophe joins what it stands in, all else separates: "dog's" is "dogs", "cat,dog" two words.
    text = text.replace("’", "'").replace("'", "")
    spaced = "".join(" " if unicodedata.category(character)[0] in "PCZ" else character for character in text)
    return " ".join(spaced.split()) or text
