"""Draws $PROMPT at $BASE_URL with the openai client, whole and as a stream; prints each image, base64, as a line."""

import os

from openai import OpenAI

client = OpenAI(base_url=os.environ["BASE_URL"], api_key="none")
prompt, extra = os.environ["PROMPT"], {"seed": 7, "num_inference_steps": 2}
whole = client.images.generate(model="embedded", prompt=prompt, extra_body=extra)
print(whole.data[0].b64_json if whole.data else None)
events = client.images.generate(
    model="embedded", prompt=prompt, stream=True, partial_images=1, extra_body=extra
)
print(list(events)[-1].b64_json)
