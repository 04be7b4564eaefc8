// What the scripts share: where the gateway is, and one line of JSON as the outcome.
//
//   EDWIN_URL=http://127.0.0.1:18789 EDWIN_TOKEN=… node openai.mjs whole '{"user": "ann"}'

export const baseURL = `${process.env.EDWIN_URL}/v1`;
export const apiKey = process.env.EDWIN_TOKEN;

/** Run the scenario that the command line names, with its JSON argument. */
export async function main(scenarios) {
  const [name, argument = '{}'] = process.argv.slice(2);
  await scenarios[name](JSON.parse(argument));
}

/** Print the outcome. */
export function say(outcome) {
  console.log(JSON.stringify(outcome));
}

/** Wait until the test lets the process end: a process that ends closes everything. */
export async function stay() {
  for await (const _ of process.stdin);
}
