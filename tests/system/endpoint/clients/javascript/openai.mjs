// Draws $PROMPT at $BASE_URL with the openai client, whole and as a stream; prints each image, base64, as a line.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "none" });
const chosen = { model: "embedded", prompt: process.env.PROMPT, seed: 7, num_inference_steps: 2 };
console.log((await client.images.generate(chosen)).data[0].b64_json);
let last;
for await (const event of await client.images.generate({ ...chosen, stream: true, partial_images: 1 })) last = event;
console.log(last.b64_json);
