"""diffusers' ``train_dreambooth_lora_sd3.py``, run from its own file in a checkout, and this project's training on the
very numbers that it draws.

    script.py       runs the script and says how fast it was
    recording.py    takes down every step of a run
    transforms.py   the few image transforms that it takes from torchvision, on Pillow
    pipelines.py    small pipelines and pictures on which it runs anywhere
    replay.py       the same steps by ``corrector``'s objective, packed pass, optimiser and schedule
    parity.py       both side by side: ``python -m tests.reference.parity --reference PATH``
"""
