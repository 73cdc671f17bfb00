// Runs the steps of a work-out: a line for each, `ok STEP` or `failed STEP: why`; the process fails if one did.

const assert = require('node:assert');

const LIMIT_MS = 10000;

// Each step gets a client of its own, from `connect`, which `close` closes whatever happens.
async function workOut(version, connect, close, steps) {
  console.log(`version ${version}`);
  let code = 0;
  for (const [name, step] of Object.entries(steps)) {
    const clients = [];
    const fresh = async () => {
      const client = await connect();
      clients.push(client);
      return client;
    };
    try {
      await within(name, (async () => step(await fresh(), fresh))());
      console.log(`ok ${name}`);
    } catch (error) {
      code = 1;
      console.log(`failed ${name}: ${String(error.message || error).replace(/\s*\n\s*/g, ' ')}`);
    }
    for (const client of clients) {
      try { close(client); } catch { /* closed already */ }
    }
  }
  process.exit(code);
}

function within(name, promise) {
  const limit = new Promise((_, reject) => setTimeout(() => reject(new Error(`no end within ${LIMIT_MS} ms`)), LIMIT_MS).unref());
  return Promise.race([promise, limit]);
}

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

async function until(what, isSo) {
  for (let n = 0; n < 500; n++) {
    if (isSo()) return;
    await sleep(10);
  }
  throw new Error(`${what}: not within 5 s`);
}

const SCRIPT = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])";
const range = n => [...Array(n).keys()];

module.exports = { assert, workOut, sleep, until, range, SCRIPT };
