// Draws $PROMPT at $BASE_URL with Vercel's AI SDK, by both its providers; prints each image, base64, as a line.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateImage } from "ai";

const place = { baseURL: process.env.BASE_URL, apiKey: "none" };
const compatible = createOpenAICompatible({ ...place, name: "corrector" });
const drawn = [
  { model: compatible.imageModel("embedded"), providerOptions: { corrector: { seed: 7, num_inference_steps: 2 } } },
  // A name that the server's configuration gives the base, with what DALL-E's callers send.
  {
    model: createOpenAI(place).image("gpt-image-1"),
    providerOptions: { openai: { quality: "standard", style: "vivid", user: "ann" } },
  },
  // For a name that it does not know, this provider asks for response_format: b64_json.
  { model: createOpenAI(place).image("embedded") },
];
for (const each of drawn) {
  const { image } = await generateImage({ prompt: process.env.PROMPT, size: "64x64", maxRetries: 0, ...each });
  console.log(image.base64);
}
