// The AI SDK, with each of its two providers that speak chat completions.

import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { Output, generateText, isStepCount, streamText, tool } from 'ai';
import { z } from 'zod';
import { apiKey, baseURL, main, say, stay } from './scenario.mjs';

const compatible = createOpenAICompatible({
  name: 'compatible',
  baseURL,
  apiKey,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const official = createOpenAI({ baseURL, apiKey });

function model({ provider, name = 'edwin' }) {
  return provider === 'openai' ? official.chat(name) : compatible.chatModel(name);
}

const look = tool({
  description: 'Look at a place.',
  inputSchema: z.object({ at: z.string() }),
  execute: async ({ at }) => `a cat at ${at}`,
});

function described(error) {
  return {
    class: error.name,
    status: error.statusCode ?? null,
    message: error.message,
    code: error.data?.error?.code ?? error.code ?? null,
    param: error.data?.error?.param ?? null,
    retryable: error.isRetryable ?? null,
  };
}

/** Read every part of a stream; return its text, its tools and what else happened. */
async function read(result) {
  const seen = { pieces: [], tools: [], error: null, thrown: null };
  try {
    for await (const part of result.stream) {
      if (part.type === 'text-delta') seen.pieces.push(part.text);
      if (part.type === 'tool-result') seen.tools.push(part.output);
      if (part.type === 'error') seen.error = described(part.error);
    }
  } catch (error) {
    seen.thrown = described(error);
  }
  return seen;
}

await main({
  async whole({ user, ...options }) {
    const parts = ['Hello', ' there'].map((text) => ({ type: 'text', text }));
    const result = await generateText({
      model: model(options),
      instructions: 'Be brief.',
      messages: [{ role: 'user', content: parts }],
      providerOptions: { [options.provider]: { user } },
      maxRetries: 0,
    });
    const { text, usage, finishReason, warnings } = result;
    say({ text, usage, finishReason, warnings, modelId: result.response.modelId });
  },

  async stream(options) {
    const result = streamText({ model: model(options), prompt: 'Hello', maxRetries: 0 });
    const { pieces } = await read(result);
    say({ pieces, usage: await result.usage, finishReason: await result.finishReason });
  },

  async tools(options) {
    const call = {
      model: model(options),
      prompt: 'Hello',
      tools: { look },
      stopWhen: isStepCount(3),
      maxRetries: 0,
    };
    const whole = await generateText(call);
    const streamed = streamText(call);
    const { pieces, tools } = await read(streamed);
    say({ whole: whole.text, streamed: pieces.join(''), tools });
  },

  async object(options) {
    const { output } = await generateText({
      model: model(options),
      prompt: 'Hello',
      output: Output.object({ schema: z.object({ city: z.string() }) }),
      maxRetries: 0,
    });
    say(output);
  },

  async errors({ provider, cases }) {
    const found = [];
    for (const { name, ...settings } of cases) {
      const call = generateText({
        model: model({ provider, name }),
        prompt: 'Hello',
        maxRetries: 0,
        ...settings,
      });
      found.push(await call.then(() => null, described));
    }
    say(found);
  },

  async leave(options) {
    const leaving = new AbortController();
    const result = streamText({
      model: model(options),
      prompt: 'Hello',
      maxRetries: 0,
      abortSignal: leaving.signal,
    });
    let text = '';
    let left = false;
    for await (const part of result.stream) {
      if (part.type === 'abort') left = true;
      if (part.type !== 'text-delta') continue;
      text += part.text;
      leaving.abort();
    }
    say({ text, left });
    await stay();
  },

  async broken(options) {
    const result = streamText({
      model: model(options),
      prompt: 'Hello',
      maxRetries: 0,
      // The default prints the error.
      onError() {},
    });
    const seen = await read(result);
    const finish = await result.finishReason.then(String, () => null);
    say({ ...seen, finish });
  },
});
