"""The walk of README's section "Review", step by step, on the real servers of one machine."""
