// A work-out with node-redis: node node_redis.js HOST PORT 2|3 (with NODE_PATH where it is installed)

const { createClient } = require('redis');
const { version } = require('redis/package.json');
const { assert, workOut, sleep, until, range, SCRIPT } = require('./steps.js');

const [host, port, RESP] = process.argv.slice(2);
const KEY = `work-out:node-redis:${RESP}`;

async function connect() {
  const socket = { host, port: Number(port), reconnectStrategy: false };
  const client = createClient({ RESP: Number(RESP), name: 'work-out', socket });
  client.on('error', () => {});
  await client.connect();
  return client;
}

workOut(version, connect, client => client.destroy(), {
  async handshake(r) {
    assert.equal(await r.ping(), 'PONG');
    assert.equal(await r.clientGetName(), 'work-out');
  },
  async 'get-set'(r) {
    assert.equal(await r.set(KEY, 'value'), 'OK');
    assert.equal(await r.get(KEY), 'value');
    await r.hSet(`${KEY}:h`, { a: 1, b: 2 });
    assert.deepEqual({ ...await r.hGetAll(`${KEY}:h`) }, { a: '1', b: '2' });
  },
  async pipeline(r) {
    // Commands of one turn of the event loop are sent as one pipeline.
    const replies = range(100).flatMap(n => [r.set(`${KEY}:${n}`, String(n)), r.get(`${KEY}:${n}`)]);
    const found = (await Promise.all(replies)).filter((_, n) => n % 2);
    assert.deepEqual(found, range(100).map(String));
  },
  async multi(r) {
    assert.deepEqual(await r.multi().set(`{${KEY}}a`, '1').incr(`{${KEY}}a`).exec(), ['OK', 2]);
  },
  async watch(r, fresh) {
    const other = await fresh();
    await r.watch(`{${KEY}}w`);
    await other.set(`{${KEY}}w`, '10');
    await assert.rejects(r.multi().incr(`{${KEY}}w`).exec(), { name: /WatchError|Error/, message: /watched keys/ });
  },
  async pubsub(r, fresh) {
    const publisher = await fresh();
    const found = [];
    await r.subscribe(`${KEY}:news`, message => found.push(message));
    await r.pSubscribe(`${KEY}:p*`, message => found.push(message));
    for (const n of range(3)) await publisher.publish(`${KEY}:news`, String(n));
    await publisher.publish(`${KEY}:pattern`, 'last');
    await until('four messages', () => found.length === 4);
    assert.deepEqual(found.filter(message => message !== 'last'), ['0', '1', '2']);
    await r.unsubscribe();
  },
  async scan(r) {
    await Promise.all(range(300).map(n => r.set(`${KEY}:scan:${n}`, '1')));
    const found = new Set();
    for await (const keys of r.scanIterator({ MATCH: `${KEY}:scan:*`, COUNT: 50 })) [keys].flat().forEach(key => found.add(key));
    assert.equal(found.size, 300);
  },
  async script(r) {
    const sha = await r.scriptLoad(SCRIPT);
    assert.equal(await r.evalSha(sha, { keys: [KEY], arguments: ['by script'] }), 'by script');
  },
  async blocking(r, fresh) {
    const other = await fresh();
    await r.del(`${KEY}:list`);
    assert.equal(await r.blPop(`${KEY}:list`, 1), null);
    const waiting = r.blPop(`${KEY}:list`, 4);
    waiting.catch(() => {});
    await sleep(100);
    await other.rPush(`${KEY}:list`, 'element');
    assert.deepEqual({ ...await waiting }, { key: `${KEY}:list`, element: 'element' });
  },
});
