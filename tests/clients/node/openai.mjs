// The `openai` package, as an application would use it.

import OpenAI from 'openai';
import { apiKey, baseURL, main, say, stay } from './scenario.mjs';

const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const hello = { model: 'edwin', messages: [{ role: 'user', content: 'Hello' }] };

function look({ at }) {
  return `a cat at ${at}`;
}

const lookTool = {
  type: 'function',
  function: {
    name: 'look',
    description: 'Look at a place.',
    parameters: {
      type: 'object',
      properties: { at: { type: 'string' } },
      required: ['at'],
    },
    parse: JSON.parse,
    function: look,
  },
};

function described(error) {
  return {
    class: error.constructor.name,
    status: error.status ?? null,
    type: error.type ?? null,
    code: error.code ?? null,
    param: error.param ?? null,
    request: error.requestID ?? null,
  };
}

await main({
  async whole(fields) {
    const made = await client.chat.completions.create({ ...hello, ...fields });
    say({ made, request: made._request_id });
  },

  async stream() {
    const stream = await client.chat.completions.create({
      ...hello,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    say(chunks);
  },

  async helper() {
    const stream = client.chat.completions.stream(hello);
    const pieces = [];
    stream.on('content', (piece) => pieces.push(piece));
    say({ pieces, final: await stream.finalChatCompletion() });
  },

  async tools({ stream }) {
    const runner = client.chat.completions.runTools({ ...hello, tools: [lookTool], stream });
    say(await runner.finalContent());
  },

  async errors({ cases }) {
    const found = [];
    for (const fields of cases) {
      const request = client.chat.completions.create({ ...hello, ...fields });
      found.push(await request.then(() => null, described));
    }
    const stranger = new OpenAI({ baseURL, apiKey: 'wrong', maxRetries: 0 });
    found.push(await stranger.models.list().then(() => null, described));
    say(found);
  },

  async retries() {
    const patient = new OpenAI({ baseURL, apiKey, maxRetries: 2 });
    say(await patient.chat.completions.create(hello).then(() => null, described));
  },

  async leave({ how }) {
    const stream = await client.chat.completions.create({ ...hello, stream: true });
    let text = '';
    for await (const chunk of stream) {
      text += chunk.choices[0].delta.content ?? '';
      if (!text) continue;
      if (how === 'break') break;
      stream.controller.abort();
    }
    say(text);
    await stay();
  },

  async broken() {
    const stream = await client.chat.completions.create({ ...hello, stream: true });
    let text = '';
    try {
      for await (const chunk of stream) text += chunk.choices[0].delta.content ?? '';
      say({ text, error: null });
    } catch (error) {
      say({ text, error: described(error) });
    }
  },

  async models() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    const one = await client.models.retrieve('edwin:main');
    const none = await client.models.retrieve('gpt-4o').then(() => null, described);
    say({ names, one, none });
  },
});
