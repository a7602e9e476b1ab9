"""Which of two images people and vision-language judges prefer: surveys, votes, their analysis and their agreement."""
